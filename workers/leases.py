"""Keeps the leases of this process's running tasks, and tells the tasks to stop.

Two threads per worker process. Each beat of the first renews every lease in one statement, and
learns from the answer which tasks somebody wants canceled and which claims are lost. A NOTIFY makes
a beat happen at once, so that a cancel does not wait for the next one.

The ledger's clock decides when a lease ends. While the ledger cannot be reached, this process
must assume that its leases end on time: a task whose lease could not be renewed is stopped before
the rescuer may hand it to somebody else. The second thread sees to that, because the first may hang
on a connection whose other end has gone silent.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from archive.clock import Clock
from archive.errors import DicomqError
from archive.ledger import tasks
from archive.ledger.connection import CANCEL_CHANNEL, Ledger, Listener
from archive.model.task import Hint, Task
from archive.telemetry import LEDGER_UNAVAILABLE, log_event
from workers import events
from workers.processor import StopReason, StopSignal

LOGGER = logging.getLogger(__name__)

_IDLE_S = 1.0
"""Pause between two looks whether the process ends, while it holds no claim."""


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """How leases are kept.

    Attributes
    ----------
    lease_s
        Seconds until an unrenewed claim counts as lost.
    heartbeat_s
        Seconds between renewals, several of which must fit into a lease.
    grace_s
        Seconds that a task asked to stop has before its blocking calls are broken.
    reaction_s
        Longest time until a shutdown or the end of a grace period is noticed.
    """

    lease_s: float
    heartbeat_s: float
    grace_s: float = 3.0
    reaction_s: float = 0.25


@dataclass(slots=True)
class _Held:
    """A claim of this process."""

    task_pk: int
    attempt: int
    renewed_at: float
    signal: StopSignal = field(default_factory=StopSignal)
    stopped_at: float | None = None
    aborted: bool = False


class LeaseKeeper:
    """Holds the leases of all running tasks of a process.

    Parameters
    ----------
    ledger
        Ledger whose leases are kept.
    config
        Times.
    clock
        Local clock for heartbeats and grace periods.
    """

    def __init__(self, ledger: Ledger, config: LeaseConfig, clock: Clock) -> None:
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._threads: tuple[threading.Thread, ...] = ()
        self._closed = threading.Event()
        self._holding = threading.Event()
        self._ledger_was_reachable = True
        self._shutting_down = False

    @property
    def shutting_down(self) -> bool:
        """Whether the process is about to end and must not claim anything."""
        return self._shutting_down

    def shut_down(self) -> None:
        """Ask every running task to stop; safe to be called from a signal handler."""
        self._shutting_down = True

    def close(self) -> None:
        """End the threads; claims still held are left to lapse."""
        self._closed.set()
        with self._lock:
            self._holding.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def hold(self, task: Task) -> Iterator[StopSignal]:
        """Keep the lease of a claimed `task` while the block runs.

        Yields
        ------
        StopSignal
            Raised when the task is canceled, its claim lost or the process shut down.
        """
        held = _Held(task.pk, task.attempt, self._clock.monotonic())
        with self._lock:
            self._held[task.pk] = held
            self._holding.set()
            self._start()
        try:
            yield held.signal
        finally:
            with self._lock:
                if self._held.get(task.pk) is held:
                    del self._held[task.pk]

    def beat(self) -> None:
        """Renew all leases and pass on what the ledger says about the tasks.

        Raises
        ------
        LedgerUnavailableError
            When the ledger cannot be asked; leases that have run out are given up before.
        """
        claims = self._claims()
        self._give_up_lapsed(claims)
        if not claims:
            return
        asked_at = self._clock.monotonic()
        with self._ledger.statement() as tx:
            leases = tasks.renew(
                tx,
                [Hint(held.task_pk, held.attempt) for held in claims],
                lease_s=self._config.lease_s,
            )
        renewed = {lease.task_pk: lease for lease in leases}
        for held in claims:
            lease = renewed.get(held.task_pk)
            if lease is None:
                self._lose(held)
                continue
            held.renewed_at = asked_at
            if lease.cancel_requested:
                self._stop(held, StopReason.CANCELED)

    def tick(self) -> None:
        """Stop tasks when the process shuts down, and break those whose grace period is over."""
        now = self._clock.monotonic()
        for held in self._claims():
            if self._shutting_down:
                self._stop(held, StopReason.SHUTDOWN)
            overdue = held.stopped_at is not None and now - held.stopped_at >= self._config.grace_s
            if overdue and not held.aborted:
                log_event(LOGGER, events.TASK_ABORTED, task=held.task_pk, attempt=held.attempt)
                held.aborted = True
                held.signal.abort()

    def _start(self) -> None:
        if self._threads:
            return
        self._threads = (
            threading.Thread(target=self._run, name="leases", daemon=True),
            threading.Thread(target=self._watch, name="lapses", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def _claims(self) -> tuple[_Held, ...]:
        with self._lock:
            return tuple(self._held.values())

    def _give_up_lapsed(self, claims: tuple[_Held, ...]) -> None:
        now = self._clock.monotonic()
        for held in claims:
            if now - held.renewed_at >= self._config.lease_s:
                self._lose(held)

    def _lose(self, held: _Held) -> None:
        """Stop a task whose claim is not ours any more, unless it has just been finished."""
        with self._lock:
            if self._held.get(held.task_pk) is not held or held.signal.concluded or held.aborted:
                return
        log_event(LOGGER, events.CLAIM_LOST, task=held.task_pk, attempt=held.attempt)
        self._stop(held, StopReason.CLAIM_LOST)
        held.aborted = True
        held.signal.abort()

    def _stop(self, held: _Held, reason: StopReason) -> None:
        if held.stopped_at is None:
            held.stopped_at = self._clock.monotonic()
        held.signal.stop(reason)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with self._ledger.listen(CANCEL_CHANNEL) as listener:
                    self._keep(listener)
            except Exception as error:  # noqa: BLE001 - without this thread leases lapse unnoticed
                self._report(error)
                self._closed.wait(self._config.reaction_s)

    def _watch(self) -> None:
        """Stop what has to stop; asks nobody, so nothing can hold it up. Sleeps while idle."""
        while not self._closed.wait(self._config.reaction_s):
            self._give_up_lapsed(self._claims())
            self.tick()
            with self._lock:
                if not self._held and not self._closed.is_set():
                    self._holding.clear()
            self._holding.wait()

    def _report(self, error: Exception) -> None:
        """Log the first of several failures in a row."""
        if self._ledger_was_reachable:
            log_event(
                LOGGER,
                LEDGER_UNAVAILABLE,
                level=logging.WARNING,
                exc_info=not isinstance(error, DicomqError),
                message=f"leases cannot be renewed: {error}",
            )
        self._ledger_was_reachable = False

    def _keep(self, listener: Listener) -> None:
        next_beat = self._clock.monotonic()
        while not self._closed.is_set():
            pause_s = self._config.reaction_s if self._held else _IDLE_S
            if listener.wait(pause_s) or self._clock.monotonic() >= next_beat:
                self.beat()
                self._ledger_was_reachable = True
                next_beat = self._clock.monotonic() + self._config.heartbeat_s
