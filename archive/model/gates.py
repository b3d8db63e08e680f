"""Gates in front of due tasks: paused queues, paused destinations, and circuit breakers."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator's decision that nothing is handed over."""

    time: datetime
    actor: str
    reason: str


class GateState(StrEnum):
    """Whether tasks for a destination are handed over."""

    OPEN = "open"
    PAUSED = "paused"
    PROBING = "paused, probing"


@dataclass(frozen=True, slots=True)
class DestinationGate:
    """How a destination stands.

    Attributes
    ----------
    pause
        Set while an operator keeps it paused.
    failures
        Connection failures in a row, over all tasks.
    tripped_time
        Since when its circuit is open: nothing but a C-ECHO is tried.
    probes
        C-ECHOs tried since then.
    """

    remote_aet: str
    pause: Pause | None = None
    failures: int = 0
    last_error: str | None = None
    tripped_time: datetime | None = None
    probes: int = 0
    next_probe_time: datetime | None = None

    @property
    def state(self) -> GateState:
        """What holds: an operator's pause goes before the circuit breaker."""
        if self.pause is not None:
            return GateState.PAUSED
        return GateState.PROBING if self.tripped_time is not None else GateState.OPEN

    @property
    def since(self) -> datetime | None:
        """Since when it is not open."""
        return self.pause.time if self.pause is not None else self.tripped_time


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """Unfinished tasks of a queue.

    Attributes
    ----------
    waiting, retrying, running
        Tasks that are SCHEDULED, SCHEDULED FOR RETRY, IN PROCESS.
    in_flight
        Running, or handed over to the broker: what dcmMaxTasksParallel limits.
    due
        Waiting ones whose time has come.
    oldest_due
        The earliest time among those whose destination is neither paused nor unreachable.
    """

    queue_name: str
    waiting: int = 0
    retrying: int = 0
    running: int = 0
    in_flight: int = 0
    due: int = 0
    oldest_due: datetime | None = None


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """When a destination is paused by itself, and how often it is probed then.

    Attributes
    ----------
    failures
        Connection failures in a row from which on it is paused; 0 never pauses it.
    probe_delays_s
        Seconds before the first, second … C-ECHO; the last value is repeated.
    """

    failures: int = 3
    probe_delays_s: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0)

    def probe_delay_s(self, probes: int) -> float:
        """Return the pause after `probes` unsuccessful C-ECHOs."""
        return self.probe_delays_s[min(probes, len(self.probe_delays_s) - 1)]


@dataclass(frozen=True, slots=True)
class DueProbe:
    """A C-ECHO to be sent to a destination whose circuit is open.

    Attributes
    ----------
    local_aet
        The AE whose task failed last.
    probes
        This one included.
    tripped_time
        Tells this opening of the circuit from earlier and later ones.
    """

    remote_aet: str
    local_aet: str | None
    probes: int
    tripped_time: datetime
