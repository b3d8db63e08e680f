"""What operators do to tasks: the service behind the command line, REST and Flower.

Legality stands in `archive.model.task.TRANSITIONS` and its SQL twin; this module finds the names
in the configuration, words the refusals, and leads changes of many tasks through the ledger in
chunks, each a transaction of its own. A change of many tasks may be stopped between two chunks,
and repeated: what is changed already is skipped or changed to the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from archive.configuration.descriptors import Exporter, Snapshot
from archive.configuration.source import SnapshotSource
from archive.errors import (
    ConfigurationError,
    IllegalTransitionError,
    InvalidValueError,
    LedgerConflictError,
    NoSuchTaskError,
)
from archive.ledger import deliveries, gates, operations, retrievals, tasks
from archive.ledger.connection import Ledger, Transaction
from archive.ledger.operations import Batch, Chunk, Extent, NewPlace, Operation, PageOrder
from archive.ledger.retrievals import RetrieveExtent
from archive.model.entities import DeliverySummary, InstanceResult
from archive.model.task import Task, TaskKind, TaskStatus, Transition
from archive.model.task_filter import BulkProgress, PagePosition, TaskFilter
from workers.queues import configured_queues
from workers.waiting import Gates, why_waiting

CHUNK = 2000
WALK = 1000
CONFLICT_RETRIES = 5


class UnknownNameError(ConfigurationError):
    """The configuration has no exporter, queue or AE of the name that an operator gave."""


@dataclass(frozen=True, slots=True)
class Target:
    """When, and through whom, rescheduled tasks run.

    Attributes
    ----------
    at
        When they are due; None for now.
    exporter_id
        For exports: the exporter instead; its queue, local AE and destination come with it.
    queue_name
        For retrieves: the queue instead.
    """

    at: datetime | None = None
    exporter_id: str | None = None
    queue_name: str | None = None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """Everything known of a task.

    Attributes
    ----------
    results
        (SOP Instance UID, result) of an export, newest first.
    summary
        Counts over the present round of an export; None for other kinds.
    waits
        Why a waiting task does not run; None for others.
    """

    task: Task
    history: tuple[Transition, ...]
    results: tuple[tuple[str, InstanceResult], ...] = ()
    summary: DeliverySummary | None = None
    waits: str | None = None


@dataclass(frozen=True, slots=True)
class BulkRun:
    """How a change of many tasks is led.

    Attributes
    ----------
    on_progress
        Called after each chunk with what was done so far; False stops.
    chunk
        Tasks per transaction.
    """

    on_progress: Callable[[BulkProgress], bool] = lambda _progress: True
    chunk: int = CHUNK


class Operations:
    """Looks at tasks and changes them on behalf of somebody.

    Parameters
    ----------
    ledger
        Where the tasks are.
    source
        Where exporters and queues are looked up.
    actor
        Who does it, for the history.
    """

    def __init__(self, ledger: Ledger, source: SnapshotSource, *, actor: str) -> None:
        self._ledger = ledger
        self._source = source
        self._actor = actor

    # --- looking

    def page(
        self,
        wanted: TaskFilter,
        *,
        order: PageOrder = PageOrder.UPDATED_DESCENDING,
        after: PagePosition | None = None,
        limit: int = 50,
    ) -> list[Task]:
        """Return a page of matching tasks."""
        with self._ledger.statement() as tx:
            return operations.page(tx, wanted, order=order, after=after, limit=limit)

    def walk(
        self,
        wanted: TaskFilter,
        *,
        order: PageOrder = PageOrder.UPDATED_DESCENDING,
        limit: int | None = None,
    ) -> Iterator[Task]:
        """Yield matching tasks, page by page, up to `limit` of them."""
        after: PagePosition | None = None
        left = limit
        while left is None or left > 0:
            size = WALK if left is None else min(WALK, left)
            page = self.page(wanted, order=order, after=after, limit=size)
            yield from page
            if len(page) < size:
                return
            after = position_of(page[-1], order)
            left = None if left is None else left - size

    def extents(self, task_pks: Sequence[int]) -> dict[int, Extent | RetrieveExtent]:
        """Return by primary key what exports and retrieves cover."""
        with self._ledger.transaction() as tx:
            return {**operations.extents(tx, task_pks), **retrievals.extents(tx, task_pks)}

    def count(self, wanted: TaskFilter) -> int:
        """Return how many tasks match."""
        with self._ledger.statement() as tx:
            return operations.count(tx, wanted)

    def count_by_status(self, wanted: TaskFilter) -> dict[TaskStatus, int]:
        """Return how many matching tasks stand in each status."""
        with self._ledger.statement() as tx:
            return operations.count_by_status(tx, wanted)

    def batches(self, wanted: TaskFilter, limit: int = 1000) -> list[Batch]:
        """Return the batches of matching tasks, latest change first."""
        with self._ledger.statement() as tx:
            return operations.batches(tx, wanted, limit)

    def show(self, pk: int) -> TaskReport:
        """Return a task with its history and, for an export, its result per instance.

        Raises
        ------
        NoSuchTaskError
            When there is no such task.
        """
        with self._ledger.transaction() as tx:
            task = tasks.get(tx, pk)
            history, waits = tuple(tasks.history(tx, pk)), self._why_waiting(tx, task)
            if task.kind is not TaskKind.EXPORT:
                return TaskReport(task, history, waits=waits)
            results = tuple(deliveries.results(tx, pk))
            return TaskReport(task, history, results, deliveries.summary(tx, task), waits)

    def _why_waiting(self, tx: Transaction, task: Task) -> str | None:
        if not task.status.is_waiting:
            return None
        now = task.scheduled_time - timedelta(seconds=operations.due_in_s(tx, task.scheduled_time))
        stand = Gates(
            self._source.snapshot().queue(task.queue_name),
            gates.queue_pauses(tx, task.device_name).get(task.queue_name),
            gates.destinations(tx, task.device_name).get(task.remote_aet or ""),
        )
        return why_waiting(task, stand, now)

    # --- changing one task

    def cancel(self, pk: int) -> TaskStatus:
        """Cancel a task; IN PROCESS is returned while its worker is stopping.

        Raises
        ------
        NoSuchTaskError
            When there is no such task (404).
        IllegalTransitionError
            When it is done already (409).
        """
        done = self._change_one(Operation.CANCEL, pk, Target())
        running = dict(done.changed_from).get(TaskStatus.IN_PROCESS)
        return TaskStatus.IN_PROCESS if running else TaskStatus.CANCELED

    def reschedule(self, pk: int, target: Target | None = None) -> TaskStatus:
        """Make a task due again; IN PROCESS is returned while its worker is stopping.

        Raises
        ------
        UnknownNameError
            When the exporter or queue does not exist (404).
        NoSuchTaskError
            When there is no such task (404).
        IllegalTransitionError
            When the task cannot go to that exporter or queue (409).
        """
        done = self._change_one(Operation.RESCHEDULE, pk, target or Target())
        running = dict(done.changed_from).get(TaskStatus.IN_PROCESS)
        return TaskStatus.IN_PROCESS if running else TaskStatus.SCHEDULED

    def delete(self, pk: int) -> None:
        """Delete a task with its history; what it delivered stays known.

        Raises
        ------
        NoSuchTaskError
            When there is no such task (404).
        """
        self._change_one(Operation.DELETE, pk, Target())

    # --- changing many tasks

    def preview(
        self, operation: Operation, wanted: TaskFilter, target: Target | None = None
    ) -> BulkProgress:
        """Return what `change` would do now, without doing it.

        Raises
        ------
        UnknownNameError
            When the exporter or queue does not exist.
        """
        place = self._place(target or Target())
        with self._ledger.statement() as tx:
            return operations.preview(tx, operation, wanted, place)

    def change(
        self,
        operation: Operation,
        wanted: TaskFilter,
        target: Target | None = None,
        run: BulkRun | None = None,
    ) -> BulkProgress:
        """Cancel, reschedule or delete all matching tasks, in chunks.

        Returns
        -------
        BulkProgress
            What was done; `last_pk` is None unless it was stopped before the end.

        Raises
        ------
        UnknownNameError
            When the exporter or queue does not exist; nothing was changed.
        LedgerUnavailableError
            When PostgreSQL went away; the chunks before were committed.
        """
        target, run = target or Target(), run or BulkRun()
        place = self._place(target)
        total = BulkProgress()
        while total.last_pk is not None:
            how = (Chunk(total.last_pk, run.chunk, self._actor), target, place)
            step = self._attempt(partial(_step, operation=operation, wanted=wanted, how=how))
            total = total.plus(step)
            if not run.on_progress(total):
                break
        return total

    def _change_one(self, operation: Operation, pk: int, target: Target) -> BulkProgress:
        wanted = TaskFilter(task_pks=(pk,))
        done = self.change(operation, wanted, target)
        if not done.visited:
            msg = f"there is no task {pk}; it may have been deleted or purged"
            raise NoSuchTaskError(msg)
        if not done.changed:
            raise IllegalTransitionError(_refusal(operation, pk, done.skipped[0][0]))
        return done

    def _attempt(self, step: Callable[[Transaction], BulkProgress]) -> BulkProgress:
        """Run a chunk again when it and a worker got in each other's way."""
        for _ in range(CONFLICT_RETRIES):
            try:
                with self._ledger.transaction() as tx:
                    return step(tx)
            except LedgerConflictError:
                continue
        with self._ledger.transaction() as tx:
            return step(tx)

    def _place(self, target: Target) -> NewPlace | None:
        if target.exporter_id is not None and target.queue_name is not None:
            msg = "an exporter brings its queue: give either a new exporter or a new queue"
            raise InvalidValueError(msg)
        if target.exporter_id is not None:
            exporter = exporter_called(self._source.snapshot(), target.exporter_id)
            return NewPlace(
                exporter.exporter_id, exporter.queue_name, exporter.aet, exporter.remote_aet
            )
        if target.queue_name is None:
            return None
        snapshot = self._source.snapshot()
        if target.queue_name not in configured_queues(snapshot):
            msg = (
                f"there is no queue {target.queue_name} on device {snapshot.device.name}: choose "
                f"one of {', '.join(sorted(configured_queues(snapshot)))}, or add a dcmQueue entry"
            )
            raise UnknownNameError(msg)
        return NewPlace(queue_name=target.queue_name)


def exporter_called(snapshot: Snapshot, exporter_id: str) -> Exporter:
    """Return an exporter of the own device that is able to work.

    Raises
    ------
    UnknownNameError
        When there is none of that ID, or it names no local AE.
    """
    exporter = snapshot.device.exporters.get(exporter_id)
    if exporter is None:
        known = ", ".join(sorted(snapshot.device.exporters)) or "none"
        msg = (
            f"there is no exporter {exporter_id} on device {snapshot.device.name} "
            f"(exporters: {known})"
        )
        raise UnknownNameError(msg)
    if exporter.aet is None:
        msg = f"exporter {exporter_id} names no local AE: set dicomAETitle in {exporter.dn}"
        raise UnknownNameError(msg)
    return exporter


def position_of(task: Task, order: PageOrder) -> PagePosition:
    """Return where the page after `task` begins."""
    times = {
        PageOrder.CREATED: task.created_time,
        PageOrder.UPDATED: task.updated_time,
        PageOrder.SCHEDULED: task.scheduled_time,
    }
    column = PageOrder(order.value.lstrip("-"))
    words = {PageOrder.STATUS: (task.status,), PageOrder.QUEUE: (task.queue_name, task.status)}
    return PagePosition(times.get(column, task.updated_time), task.pk, words.get(column, ()))


def _step(
    tx: Transaction,
    *,
    operation: Operation,
    wanted: TaskFilter,
    how: tuple[Chunk, Target, NewPlace | None],
) -> BulkProgress:
    chunk, target, place = how
    match operation:
        case Operation.CANCEL:
            return operations.cancel_chunk(tx, wanted, chunk)
        case Operation.RESCHEDULE:
            return operations.reschedule_chunk(tx, wanted, chunk, at=target.at, place=place)
        case Operation.DELETE:
            return operations.delete_chunk(tx, wanted, chunk)


def _refusal(operation: Operation, pk: int, reason: str) -> str:
    if operation is Operation.CANCEL:
        return f"task {pk} is {reason} already and cannot be canceled"
    if reason == TaskStatus.IN_PROCESS:
        return f"task {pk} is {reason}: cancel it before it is sent somewhere else"
    return (
        f"task {pk} cannot be rescheduled there: {reason} (another exporter suits EXPORT tasks, "
        f"another queue RETRIEVE tasks)"
    )
