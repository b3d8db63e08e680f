"""Why a task that waits does not run: in words for an administrator, decided from what is known."""

from dataclasses import dataclass
from datetime import datetime

from archive.configuration.descriptors import Queue
from archive.model.gates import DestinationGate, GateState, Pause
from archive.model.task import Task


@dataclass(frozen=True, slots=True)
class Gates:
    """What stands between a waiting task and a worker.

    Attributes
    ----------
    queue_pause
        Set while its queue is paused.
    destination
        How its destination stands, if that was paused or failed of late.
    """

    queue: Queue
    queue_pause: Pause | None = None
    destination: DestinationGate | None = None


def why_waiting(task: Task, gates: Gates, now: datetime) -> str | None:
    """Return why a task is not being processed; None for one that does not wait.

    Parameters
    ----------
    now
        The present time by the ledger's clock.
    """
    if not task.status.is_waiting:
        return None
    reasons = (
        _queue_reason(gates),
        _destination_reason(gates.destination),
        _time_reason(task, gates.queue, now),
    )
    return next(filter(None, reasons), f"for a free worker of queue {task.queue_name}")


def _queue_reason(gates: Gates) -> str | None:
    name, pause = gates.queue.name, gates.queue_pause
    if not gates.queue.installed:
        return f"queue {name} is not installed (dicomInstalled): no worker serves it"
    return None if pause is None else f"queue {name} is paused {_by_whom(pause)}"


def _destination_reason(gate: DestinationGate | None) -> str | None:
    if gate is None or gate.state is GateState.OPEN:
        return None
    if gate.pause is not None:
        return f"destination {gate.remote_aet} is paused {_by_whom(gate.pause)}"
    probe = "" if gate.next_probe_time is None else f" at {_shown(gate.next_probe_time)}"
    return (
        f"destination {gate.remote_aet} could not be reached {gate.failures} times in a row "
        f"({gate.last_error}); no attempt is made or counted until it answers a C-ECHO, "
        f"number {gate.probes + 1} of which is sent{probe}"
    )


def _time_reason(task: Task, queue: Queue, now: datetime) -> str | None:
    if task.scheduled_time > now:
        what = "until it is tried again" if task.failures else "until it is due"
        return f"{what}, {_shown(task.scheduled_time)}"
    if queue.schedule.contains(now):
        return None
    opens = queue.schedule.ceil(now)
    return f"the window of queue {queue.name} (dcmSchedule) opens {_shown(opens)}"


def _by_whom(pause: Pause) -> str:
    reason = f": {pause.reason}" if pause.reason else ""
    return f"since {_shown(pause.time)} by {pause.actor}{reason}; resume it to let tasks go"


def _shown(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
