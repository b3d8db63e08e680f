"""Tasks: staging, hand-over to the broker, claims, outcomes, and what operators do to them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from archive.errors import IllegalTransitionError, NoSuchTaskError
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.retry import Finish, RetryIn
from archive.model.task import (
    CommitmentDetails,
    Hint,
    NewTask,
    Outcome,
    Task,
    TaskKind,
    TaskStatus,
    Transition,
    WaitingQueue,
)

_FIELDS = tuple(field.name for field in fields(Task))
_COMMITMENT_FIELDS = tuple(field.name for field in fields(CommitmentDetails))


@dataclass(frozen=True, slots=True)
class RenewedLease:
    """A claim that is still held."""

    task_pk: int
    attempt: int
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class End:
    """What is written about an attempt that ended; the columns' names."""

    status: TaskStatus
    failed: bool
    delay_s: float
    error_message: str | None
    outcome_message: str | None


def stage(tx: Transaction, new: NewTask, *, actor: str, reason: str = "staged") -> int:
    """Insert a task and return its primary key; dispatchers are woken by the commit."""
    parameters = asdict(new) | {"actor": actor, "reason": reason}
    pk = int(_one(tx, "stage", parameters)[0])
    if new.kind is TaskKind.EXPORT:
        tx.execute(load_queries("tasks")["stage_export_detail"], {"task_pk": pk})
    _stage_ian_detail(tx, pk, new)
    _stage_commitment_detail(tx, pk, new)
    return pk


def get(tx: Transaction, pk: int) -> Task:
    """Return one task.

    Raises
    ------
    NoSuchTaskError
        When there is none with that primary key.
    """
    tasks = _tasks(tx, "get", {"pk": pk})
    if not tasks:
        raise NoSuchTaskError(_no_such_task(pk))
    return tasks[0]


def _no_such_task(pk: int) -> str:
    return f"there is no task {pk}; it may have been deleted or purged"


def history(tx: Transaction, pk: int) -> list[Transition]:
    """Return what happened to a task, oldest first."""
    rows = tx.execute(load_queries("tasks")["history"], {"pk": pk})
    return [
        Transition(time, TaskStatus(old) if old else None, TaskStatus(new), attempt, actor, reason)
        for time, old, new, attempt, actor, reason in rows
    ]


def count_by_status(tx: Transaction) -> dict[tuple[TaskKind, TaskStatus], int]:
    """Return how many tasks of each kind stand in each status."""
    rows = tx.execute(load_queries("tasks")["count_by_status"])
    return {(TaskKind(kind), TaskStatus(status)): count for kind, status, count in rows}


def waiting_queues(tx: Transaction, device_name: str) -> list[WaitingQueue]:
    """Return the queues of a device that have tasks not handed over yet."""
    rows = tx.execute(load_queries("tasks")["waiting_queues"], {"device_name": device_name})
    return [WaitingQueue(*row) for row in rows]


def dispatch(tx: Transaction, device_name: str, queue_name: str, limit: int) -> list[Hint]:
    """Mark due tasks of a queue as handed over, up to `limit` in flight, and return their hints.

    Publish the hints only after the transaction is committed. Returns nothing while another
    dispatcher is at the same queue.
    """
    parameters = {"device_name": device_name, "queue_name": queue_name, "limit": limit}
    if not _one(tx, "lock_queue", parameters)[0]:
        return []
    return [Hint(*row) for row in tx.execute(load_queries("tasks")["dispatch"], parameters)]


def announce(tx: Transaction, queue_name: str) -> None:
    """Tell the workers, at the commit, that a queue has hints they should listen to."""
    tx.execute(load_queries("tasks")["announce"], {"queue_name": queue_name})


def unclaimed(tx: Transaction, device_name: str, older_than_s: float) -> dict[str, int]:
    """Return per queue how many tasks were handed over more than `older_than_s` seconds ago."""
    rows = tx.execute(
        load_queries("tasks")["unclaimed"],
        {"device_name": device_name, "older_than_s": older_than_s},
    )
    return dict(rows.fetchall())


def redispatch(
    tx: Transaction, device_name: str, queue_name: str, older_than_s: float
) -> list[Hint]:
    """Raise the attempt of tasks whose hints the broker lost and return the new hints."""
    rows = tx.execute(
        load_queries("tasks")["redispatch"],
        {"device_name": device_name, "queue_name": queue_name, "older_than_s": older_than_s},
    )
    return [Hint(*row) for row in rows]


def claim(tx: Transaction, hint: Hint, *, worker: str, lease_s: float) -> Task | None:
    """Give the task to `worker` for `lease_s` seconds; None when the hint is stale."""
    parameters = {
        "pk": hint.task_pk,
        "attempt": hint.attempt,
        "worker": worker,
        "lease_s": lease_s,
    }
    tasks = _tasks(tx, "claim", parameters)
    return tasks[0] if tasks else None


def renew(tx: Transaction, held: Sequence[Hint], *, lease_s: float) -> list[RenewedLease]:
    """Renew claims; those missing from the answer are lost and their work has to stop."""
    rows = tx.execute(
        load_queries("tasks")["renew"],
        {
            "pks": [hint.task_pk for hint in held],
            "attempts": [hint.attempt for hint in held],
            "lease_s": lease_s,
        },
    )
    return [RenewedLease(*row) for row in rows]


def finish(
    tx: Transaction, task: Task, outcome: Outcome, decision: Finish | RetryIn, *, actor: str
) -> TaskStatus | None:
    """End the attempt that `task` was claimed for and stage what follows from it.

    Returns
    -------
    TaskStatus or None
        The new status; None when the claim was lost, in which case nothing was changed.
    """
    end = ending(outcome, decision)
    ended = _end(tx, task, asdict(end) | {"actor": actor, "reason": outcome.message})
    if ended is TaskStatus.COMPLETED:
        for new in outcome.follow_ups:
            stage_follow_up(tx, new, actor=actor, reason=f"after task {task.pk}")
    return ended


def ending(outcome: Outcome, decision: Finish | RetryIn) -> End:
    """Return what is written about an attempt."""
    failed = outcome.status in {TaskStatus.WARNING, TaskStatus.FAILED}
    return End(
        status=TaskStatus.SCHEDULED_FOR_RETRY if isinstance(decision, RetryIn) else decision.status,
        failed=failed,
        delay_s=float(decision.delay_s) if isinstance(decision, RetryIn) else 0.0,
        error_message=outcome.message if failed else None,
        outcome_message=outcome.message,
    )


def release(
    tx: Transaction, task: Task, *, actor: str, reason: str, error_message: str | None = None
) -> bool:
    """Put a claimed task back, due at once and without counting a failure."""
    ended = _end(
        tx,
        task,
        {
            "status": TaskStatus.SCHEDULED_FOR_RETRY,
            "failed": False,
            "delay_s": 0.0,
            "error_message": error_message,
            "outcome_message": None,
            "actor": actor,
            "reason": reason,
        },
    )
    return ended is not None


def _end(tx: Transaction, task: Task, parameters: Mapping[str, Any]) -> TaskStatus | None:
    claim_of = {"pk": task.pk, "attempt": task.attempt}
    (status,) = _one(tx, "finish", {**parameters, **claim_of})
    return None if status is None else TaskStatus(status)


def lapsed(tx: Transaction, device_name: str, limit: int = 100) -> list[Task]:
    """Lock and return running tasks whose lease ran out; `finish` or `release` them."""
    return _tasks(tx, "lapsed", {"device_name": device_name, "limit": limit})


def cancel(tx: Transaction, pk: int, *, actor: str, reason: str = "canceled") -> TaskStatus:
    """Cancel a task: at once if it waits, else its worker is asked to stop.

    Returns
    -------
    TaskStatus
        CANCELED, or IN PROCESS while the worker is stopping.

    Raises
    ------
    IllegalTransitionError
        When the task is done already.
    NoSuchTaskError
        When there is no such task.
    """
    parameters = {"pk": pk, "actor": actor, "reason": reason}
    (found,) = _one(tx, "cancel", parameters)
    if found is None:
        raise NoSuchTaskError(_no_such_task(pk))
    status = TaskStatus(found)
    if status.is_final:
        msg = f"task {pk} is {status} already and cannot be canceled"
        raise IllegalTransitionError(msg)
    return TaskStatus.CANCELED if status.is_waiting else status


def reschedule(
    tx: Transaction, pk: int, *, due_in_s: float = 0.0, actor: str, reason: str = "rescheduled"
) -> None:
    """Make a waiting or done task due again, with its failures forgotten.

    A completed export sends everything again; one that ended otherwise sends what is missing.

    Raises
    ------
    IllegalTransitionError
        When the task is being processed; cancel it first.
    NoSuchTaskError
        When there is no such task.
    """
    parameters = {"pk": pk, "due_in_s": due_in_s, "actor": actor, "reason": reason}
    if not tx.execute(load_queries("tasks")["reschedule"], parameters).fetchone():
        msg = f"task {pk} is {get(tx, pk).status}: cancel it before rescheduling it"
        raise IllegalTransitionError(msg)


def purge(
    tx: Transaction,
    device_name: str,
    queue_name: str,
    status: TaskStatus,
    *,
    older_than_s: float,
    limit: int = 1000,
) -> int:
    """Delete up to `limit` done tasks unchanged for `older_than_s` seconds; return how many."""
    return tx.execute(
        load_queries("tasks")["purge"],
        {
            "device_name": device_name,
            "queue_name": queue_name,
            "status": status,
            "older_than_s": older_than_s,
            "limit": limit,
        },
    ).rowcount


def stage_follow_up(tx: Transaction, new: NewTask, *, actor: str, reason: str) -> None:
    """Stage what follows from a result; a notification joins one that waits for the same."""
    if new.kind is not TaskKind.IAN:
        stage(tx, new, actor=actor, reason=reason)
        return
    parameters = asdict(new) | {"actor": actor, "reason": reason}
    row = tx.execute(load_queries("tasks")["stage_follow_up_ian"], parameters).fetchone()
    if row is not None:
        _stage_ian_detail(tx, int(row[0]), new)


def _stage_ian_detail(tx: Transaction, pk: int, new: NewTask) -> None:
    if new.ian is None:
        return
    details = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(new.ian).items()
    }
    tx.execute(load_queries("tasks")["stage_ian_detail"], details | {"task_pk": pk})


def _stage_commitment_detail(tx: Transaction, pk: int, new: NewTask) -> None:
    details = new.commitment
    if details is None:
        return
    after = Jsonb([asdict(each) for each in details.after_committed])
    parameters = {name: getattr(details, name) for name in _COMMITMENT_FIELDS}
    tx.execute(
        load_queries("commitments")["stage_detail"],
        parameters | {"task_pk": pk, "after_committed": after},
    )


def _one(tx: Transaction, name: str, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
    row = tx.execute(load_queries("tasks")[name], parameters).fetchone()
    assert row is not None  # noqa: S101 - these statements always return a row
    return row


def _tasks(tx: Transaction, name: str, parameters: Mapping[str, Any]) -> list[Task]:
    return read_tasks(tx, load_queries("tasks")[name], parameters)


def read_tasks(
    tx: Transaction, statement: LiteralString, parameters: Mapping[str, Any]
) -> list[Task]:
    """Return the tasks that a statement selects, whole rows of their table."""
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement, parameters).fetchall()
    return [task_of_row(row) for row in rows]


def task_of_row(row: Mapping[str, Any]) -> Task:
    """Make a `Task` of a row of its table."""
    values = {name: row[name] for name in _FIELDS}
    values["kind"] = TaskKind(row["kind"])
    values["status"] = TaskStatus(row["status"])
    return Task(**values)
