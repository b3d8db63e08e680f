"""Gates in front of due tasks: which queues and destinations are paused, by whom, and why.

Dispatch and claims ask the same two tables, so a pause holds from its commit on, also for hints
that are with the broker already. A circuit breaker counts connection failures of a destination
in the transaction that ends the attempt; a success ends the count in the statement `finish`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.gates import CircuitPolicy, DestinationGate, DueProbe, Pause, QueueLoad
from archive.model.task import Task, TaskStatus

_NEVER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Gate:
    """A queue or the AE title of a destination, of one device."""

    device_name: str
    name: str


def pause_queue(tx: Transaction, gate: Gate, *, actor: str, reason: str) -> bool:
    """Stop handing over tasks of a queue; False if it was paused already."""
    return _changed(tx, "pause_queue", _queue(gate) | {"actor": actor, "reason": reason})


def resume_queue(tx: Transaction, gate: Gate) -> bool:
    """Hand tasks of a queue over again; False if it was not paused."""
    return _changed(tx, "resume_queue", _queue(gate))


def queue_pauses(tx: Transaction, device_name: str) -> dict[str, Pause]:
    """Return the paused queues of a device by name."""
    rows = tx.execute(load_queries("gates")["queue_pauses"], {"device_name": device_name})
    return {name: Pause(*pause) for name, *pause in rows}


def queue_loads(tx: Transaction, device_name: str) -> dict[str, QueueLoad]:
    """Return by name the queues of a device that have unfinished tasks."""
    rows = tx.execute(load_queries("gates")["queue_loads"], {"device_name": device_name})
    counts: dict[str, dict[TaskStatus, int]] = {}
    totals: dict[str, tuple[int, int, datetime | None]] = {}
    for name, status, number, in_flight, due, oldest in rows:
        counts.setdefault(name, {})[TaskStatus(status)] = number
        flying, ripe, earliest = totals.get(name, (0, 0, None))
        times = [time for time in (earliest, oldest) if time is not None]
        totals[name] = (flying + in_flight, ripe + due, min(times, default=None))
    return {
        name: QueueLoad(
            name,
            counts[name].get(TaskStatus.SCHEDULED, 0),
            counts[name].get(TaskStatus.SCHEDULED_FOR_RETRY, 0),
            counts[name].get(TaskStatus.IN_PROCESS, 0),
            *total,
        )
        for name, total in totals.items()
    }


def pause_destination(tx: Transaction, gate: Gate, *, actor: str, reason: str) -> bool:
    """Stop handing over tasks to a destination; False if it was paused by somebody already."""
    parameters = _destination(gate) | {"actor": actor, "reason": reason}
    return _changed(tx, "pause_destination", parameters)


def resume_destination(tx: Transaction, gate: Gate) -> bool:
    """Take a pause back; one that is being probed is probed at once. False: it was open."""
    return _changed(tx, "resume_destination", _destination(gate))


def destinations(tx: Transaction, device_name: str) -> dict[str, DestinationGate]:
    """Return by AE title the destinations of a device that are paused or failed of late."""
    rows = tx.execute(load_queries("gates")["destinations"], {"device_name": device_name})
    return {
        remote_aet: DestinationGate(
            remote_aet, None if paused_time is None else Pause(paused_time, actor, reason), *circuit
        )
        for remote_aet, paused_time, actor, reason, *circuit in rows
    }


def destination_loads(tx: Transaction, device_name: str) -> dict[str, int]:
    """Return how many tasks wait for each destination of a device."""
    rows = tx.execute(load_queries("gates")["destination_loads"], {"device_name": device_name})
    return dict(rows.fetchall())


def note_failure(tx: Transaction, task: Task, error: str, policy: CircuitPolicy) -> bool:
    """Count that a task could not reach its destination.

    Returns
    -------
    bool
        Whether the destination is paused now, because of this failure or since an earlier one.
    """
    if not task.remote_aet:
        return False
    parameters = _destination(Gate(task.device_name, task.remote_aet)) | {
        "local_aet": task.local_aet,
        "error": error,
        "threshold": policy.failures or _NEVER,
        "first_probe_s": policy.probe_delay_s(0),
    }
    row = tx.execute(load_queries("gates")["note_failure"], parameters).fetchone()
    return bool(row and row[0])


def take_probes(tx: Transaction, device_name: str, *, lease_s: float, limit: int) -> list[DueProbe]:
    """Take the destinations that are due for a C-ECHO; nobody else gets them for `lease_s`."""
    parameters = {"device_name": device_name, "lease_s": lease_s, "limit": limit}
    return [DueProbe(*row) for row in tx.execute(load_queries("gates")["take_probes"], parameters)]


def probe_failed(
    tx: Transaction, device_name: str, probe: DueProbe, *, error: str, delay_s: float
) -> bool:
    """Note that a destination did not answer; False: its circuit was closed meanwhile."""
    parameters = _destination(Gate(device_name, probe.remote_aet)) | {
        "tripped_time": probe.tripped_time,
        "error": error,
        "delay_s": delay_s,
    }
    return _changed(tx, "probe_failed", parameters)


def close_circuit(tx: Transaction, gate: Gate) -> bool:
    """Hand tasks over to a destination again because it answered; False: it was not tripped."""
    return _changed(tx, "close_circuit", _destination(gate))


def _queue(gate: Gate) -> dict[str, Any]:
    return {"device_name": gate.device_name, "queue_name": gate.name}


def _destination(gate: Gate) -> dict[str, Any]:
    return {"device_name": gate.device_name, "remote_aet": gate.name}


def _changed(tx: Transaction, name: str, parameters: dict[str, Any]) -> bool:
    return tx.execute(load_queries("gates")[name], parameters).fetchone() is not None
