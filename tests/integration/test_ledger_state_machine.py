"""Plays operations and worker events against PostgreSQL beside the table of transitions.

A model in memory holds for each task what `archive.model.task.TRANSITIONS` says of it. After each
step every row is compared with it, and the history has to consist of legal transitions. Time is
played, not waited for: due times and leases are moved by the rules.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from archive.errors import IllegalTransitionError, NoSuchTaskError
from archive.ledger import gates, operations, tasks
from archive.ledger.connection import Ledger, Transaction
from archive.ledger.gates import Gate
from archive.ledger.operations import Chunk, NewPlace
from archive.model.retry import Finish, RetryIn
from archive.model.task import (
    TRANSITIONS,
    Failure,
    Hint,
    NewTask,
    Outcome,
    Task,
    TaskEvent,
    TaskKind,
    TaskStatus,
    next_status,
)
from archive.model.task_filter import TaskFilter

DEVICE = "dcm4chee-arc"
QUEUES = ("Export", "Retrieve")
PACS = "PACS"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2100, 1, 1, tzinfo=UTC)
LIMIT = 3
S, E = TaskStatus, TaskEvent
EVENTS = {S.COMPLETED: E.COMPLETE, S.WARNING: E.WARN, S.FAILED: E.FAIL, S.CANCELED: E.CANCEL}


@dataclass
class Expected:
    """What the model knows of a task."""

    kind: TaskKind
    queue: str
    remote_aet: str = PACS
    status: TaskStatus = S.SCHEDULED
    attempt: int = 0
    failures: int = 0
    round: int = 1
    is_due: bool = True
    dispatched: bool = False
    cancel_requested: bool = False
    # Wanted by a reschedule while running: None for no, else whether it is due at once.
    again_due: bool | None = None

    def apply(self, event: TaskEvent) -> None:
        """Take one transition of the table."""
        self.status = next_status(self.status, event)
        self.dispatched = False

    def reschedule(self, *, is_due: bool, anew: bool = False) -> None:
        """Become SCHEDULED with failures forgotten."""
        self.round += self.status is S.COMPLETED or anew
        self.apply(E.RESCHEDULE)
        self.attempt += 1
        self.failures = 0
        self.is_due = is_due

    def end(self, event: TaskEvent, *, failed: bool = False, is_due: bool = True) -> None:
        """End an attempt; a wish to cancel beats a retry, a wished reschedule follows."""
        again = self.again_due
        beaten = self.cancel_requested and event in {E.RETRY, E.RELEASE}
        self.apply(E.CANCEL if beaten else event)
        self.failures += failed
        self.cancel_requested, self.again_due = False, None
        if event in {E.RETRY, E.RELEASE}:
            self.is_due = is_due
        if again is not None and self.status.is_final:
            self.reschedule(is_due=again)


@dataclass
class Model:
    """All tasks, and the gates."""

    tasks: dict[int, Expected] = field(default_factory=dict)
    paused_queues: set[str] = field(default_factory=set)
    destination_paused: bool = False
    staged: int = 0

    def is_open(self, task: Expected) -> bool:
        """Whether nothing keeps the task from the workers."""
        blocked = self.destination_paused and task.remote_aet == PACS
        return task.queue not in self.paused_queues and not blocked


class LedgerMachine(RuleBasedStateMachine):
    """See the module."""

    ledger: ClassVar[Ledger]
    pks = Bundle("pks")
    hints = Bundle("hints")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        with self.ledger.statement() as tx:
            tx.execute("TRUNCATE task, queue_pause, destination CASCADE")

    @contextmanager
    def tx(self) -> Iterator[Transaction]:
        with self.ledger.transaction() as tx:
            yield tx

    # --- staging, dispatch, claims

    @rule(
        target=pks,
        kind=st.sampled_from([TaskKind.RETRIEVE, TaskKind.EXPORT]),
        remote_aet=st.sampled_from([PACS, "OTHER"]),
        is_due=st.booleans(),
    )
    def stage(self, kind: TaskKind, remote_aet: str, *, is_due: bool) -> int:
        return self.put(kind, remote_aet, is_due=is_due)

    def put(self, kind: TaskKind, remote_aet: str, *, is_due: bool) -> int:
        queue = QUEUES[kind is TaskKind.RETRIEVE]
        self.model.staged += 1
        study = f"1.2.{self.model.staged}"
        new = NewTask(kind, queue, DEVICE, "ARC", remote_aet, study, exporter_id="X")
        with self.tx() as tx:
            pk = tasks.stage(tx, _due(new, is_due=is_due), actor="machine")
        self.model.tasks[pk] = Expected(kind, queue, remote_aet, is_due=is_due)
        return pk

    @rule(target=claims, kind=st.sampled_from([TaskKind.RETRIEVE, TaskKind.EXPORT]))
    def start(self, kind: TaskKind) -> object:
        """Bring a new task to a worker at once, so that running tasks are common."""
        pk = self.put(kind, "OTHER", is_due=True)
        hints = self.hand_over(self.model.tasks[pk].queue, 1000)
        taken = [self.take(hint) for hint in hints if hint.task_pk == pk]
        return multiple(*(task for task in taken if task is not None))

    @rule(target=hints, queue=st.sampled_from(QUEUES))
    def dispatch(self, queue: str) -> object:
        return multiple(*self.hand_over(queue, LIMIT))

    def hand_over(self, queue: str, limit: int) -> list[Hint]:
        with self.tx() as tx:
            hints = tasks.dispatch(tx, DEVICE, queue, limit)
        of_queue = {pk: task for pk, task in self.model.tasks.items() if task.queue == queue}
        in_flight = sum(t.dispatched or t.status is S.IN_PROCESS for t in of_queue.values())
        ready = {
            pk
            for pk, task in of_queue.items()
            if task.status.is_waiting
            and task.is_due
            and not task.dispatched
            and self.model.is_open(task)
        }
        handed = {hint.task_pk for hint in hints}
        assert handed <= ready
        assert len(handed) == min(len(ready), max(0, limit - in_flight))
        for hint in hints:
            task = self.model.tasks[hint.task_pk]
            task.attempt += 1
            task.dispatched = True
            assert hint.attempt == task.attempt
        return hints

    @rule(target=hints, queue=st.sampled_from(QUEUES))
    def redispatch(self, queue: str) -> object:
        """Redis was flushed: what nobody claimed is handed over under a new attempt."""
        with self.tx() as tx:
            hints = tasks.redispatch(tx, DEVICE, queue, -1.0)
        for hint in hints:
            task = self.model.tasks[hint.task_pk]
            assert task.dispatched
            task.attempt += 1
        lost = [t for t in self.model.tasks.values() if t.queue == queue and t.dispatched]
        assert len(hints) == len(lost)
        return multiple(*hints)

    @rule(target=claims, hint=hints)
    def claim(self, hint: Hint) -> object:
        """Any hint ever published may turn up, any number of times."""
        task = self.take(hint)
        return multiple() if task is None else task

    def take(self, hint: Hint) -> Task | None:
        with self.tx() as tx:
            task = tasks.claim(tx, hint, worker="w", lease_s=3600)
        expected = self.model.tasks.get(hint.task_pk)
        fits = expected is not None and expected.dispatched and expected.attempt == hint.attempt
        if expected is None or not fits:
            assert task is None
            return None
        if not self.model.is_open(expected):
            assert task is None
            expected.dispatched = False
            return None
        assert task is not None
        expected.apply(E.CLAIM)
        return task

    @rule(claimed=claims)
    def renew(self, claimed: Task) -> None:
        hint = Hint(claimed.pk, claimed.attempt)
        with self.tx() as tx:
            leases = tasks.renew(tx, [hint], lease_s=3600)
        expected = self.held(claimed)
        wishes = [] if expected is None else [expected.cancel_requested]
        assert [lease.cancel_requested for lease in leases] == wishes

    # --- ends of attempts; a claim may have been lost long ago

    @rule(claimed=claims, status=st.sampled_from(sorted(EVENTS)))
    def finish(self, claimed: Task, status: TaskStatus) -> None:
        outcome = Outcome(status, f"ended {status}")
        with self.tx() as tx:
            ended = tasks.finish(tx, claimed, outcome, Finish(status), actor="w")
        expected = self.held(claimed)
        if expected is None:
            assert ended is None
            return
        assert ended is status
        expected.end(EVENTS[status], failed=status in {S.WARNING, S.FAILED})

    @rule(claimed=claims, is_due=st.booleans())
    def retry(self, claimed: Task, *, is_due: bool) -> None:
        outcome = Outcome(S.FAILED, "refused", Failure.TRANSIENT)
        decision = RetryIn(0.0 if is_due else 1e6)
        with self.tx() as tx:
            ended = tasks.finish(tx, claimed, outcome, decision, actor="w")
        expected = self.held(claimed)
        if expected is None:
            assert ended is None
            return
        expected.end(E.RETRY, failed=True, is_due=is_due)

    @rule(claimed=claims)
    def release(self, claimed: Task) -> None:
        with self.tx() as tx:
            released = tasks.release(tx, claimed, actor="w", reason="shutdown")
        expected = self.held(claimed)
        assert released == (expected is not None)
        if expected is not None:
            expected.end(E.RELEASE)

    @rule(claimed=claims)
    def lapse(self, claimed: Task) -> None:
        """The worker is gone and its lease runs out; the rescuer retries the task."""
        expected = self.held(claimed)
        with self.tx() as tx:
            tasks.renew(tx, [Hint(claimed.pk, claimed.attempt)], lease_s=-1)
            lost = tasks.lapsed(tx, DEVICE)
            assert [task.pk for task in lost] == ([] if expected is None else [claimed.pk])
            for task in lost:
                outcome = Outcome(S.FAILED, "worker lost", Failure.TRANSIENT)
                tasks.finish(tx, task, outcome, RetryIn(0.0), actor="rescuer")
        if expected is not None:
            expected.end(E.RETRY, failed=True)

    # --- operators, one task

    @rule(pk=pks)
    def cancel(self, pk: int) -> None:
        expected = self.model.tasks.get(pk)
        if expected is None:
            with pytest.raises(NoSuchTaskError), self.tx() as tx:
                tasks.cancel(tx, pk, actor="anna")
        elif E.CANCEL not in TRANSITIONS[expected.status]:
            with pytest.raises(IllegalTransitionError), self.tx() as tx:
                tasks.cancel(tx, pk, actor="anna")
        else:
            with self.tx() as tx:
                status = tasks.cancel(tx, pk, actor="anna")
            self.ask_to_cancel(expected)
            assert status is expected.status

    @rule(pk=pks, is_due=st.booleans())
    def reschedule(self, pk: int, *, is_due: bool) -> None:
        expected = self.model.tasks.get(pk)
        due_in_s = 0.0 if is_due else 1e6
        if expected is None:
            with pytest.raises(NoSuchTaskError), self.tx() as tx:
                tasks.reschedule(tx, pk, due_in_s=due_in_s, actor="anna")
        elif E.RESCHEDULE not in TRANSITIONS[expected.status]:
            with pytest.raises(IllegalTransitionError), self.tx() as tx:
                tasks.reschedule(tx, pk, due_in_s=due_in_s, actor="anna")
        else:
            with self.tx() as tx:
                tasks.reschedule(tx, pk, due_in_s=due_in_s, actor="anna")
            expected.reschedule(is_due=is_due)

    @rule(pk=consumes(pks))
    def delete(self, pk: int) -> None:
        with self.tx() as tx:
            done = operations.delete_chunk(tx, TaskFilter(task_pks=(pk,)), Chunk(0, 9, "anna"))
        assert done.changed == (self.model.tasks.pop(pk, None) is not None)

    @rule(claimed=claims, again=st.sampled_from([None, True, False]))
    def stop(self, claimed: Task, again: bool | None) -> None:
        """Cancel a running task, or reschedule it: it is asked to stop, and scheduled then."""
        expected = self.held(claimed)
        if expected is None:
            return
        wanted, chunk = TaskFilter(task_pks=(claimed.pk,)), Chunk(0, 9, "anna")
        with self.tx() as tx:
            if again is None:
                operations.cancel_chunk(tx, wanted, chunk)
            else:
                at = LONG_AGO if again else FAR_AHEAD
                operations.reschedule_chunk(tx, wanted, chunk, at=at)
        expected.cancel_requested, expected.again_due = True, again

    # --- operators, many tasks

    @rule(status=st.sampled_from(list(TaskStatus)), limit=st.integers(1, 3))
    def cancel_many(self, status: TaskStatus, limit: int) -> None:
        wanted = TaskFilter(statuses=(status,))
        changed = 0
        chunk: Chunk | None = Chunk(0, limit, "anna")
        matching = self.matching(status)
        while chunk is not None:
            with self.tx() as tx:
                step = operations.cancel_chunk(tx, wanted, chunk)
            changed += step.changed
            chunk = None if step.last_pk is None else Chunk(step.last_pk, limit, "anna")
        may_cancel = E.CANCEL in TRANSITIONS[status]
        assert changed == (len(matching) if may_cancel else 0)
        for expected in matching if may_cancel else ():
            self.ask_to_cancel(expected)

    @rule(status=st.sampled_from(list(TaskStatus)), is_due=st.booleans(), moves=st.booleans())
    def reschedule_many(self, status: TaskStatus, *, is_due: bool, moves: bool) -> None:
        wanted = TaskFilter(statuses=(status,))
        place = NewPlace("Y", "Export", "ARC", "OTHER") if moves else None
        matching = self.matching(status)
        movable = [
            task
            for task in matching
            if not moves or (task.kind is TaskKind.EXPORT and status is not S.IN_PROCESS)
        ]
        with self.tx() as tx:
            preview = operations.preview(tx, operations.Operation.RESCHEDULE, wanted, place)
            done = operations.reschedule_chunk(
                tx,
                wanted,
                Chunk(0, 1000, "anna"),
                at=LONG_AGO if is_due else FAR_AHEAD,
                place=place,
            )
        assert (preview.changed, preview.skipped) == (done.changed, done.skipped)
        assert done.changed == len(movable)
        for task in movable:
            if status is S.IN_PROCESS:
                task.cancel_requested, task.again_due = True, is_due
                continue
            task.reschedule(is_due=is_due, anew=moves and status is not S.COMPLETED)
            if moves:
                task.remote_aet = "OTHER"

    # --- gates

    @rule(queue=st.sampled_from(QUEUES), pause=st.booleans())
    def switch_queue(self, queue: str, *, pause: bool) -> None:
        gate = Gate(DEVICE, queue)
        with self.tx() as tx:
            if pause:
                gates.pause_queue(tx, gate, actor="anna", reason="")
                self.model.paused_queues.add(queue)
            else:
                gates.resume_queue(tx, gate)
                self.model.paused_queues.discard(queue)

    @rule(pause=st.booleans())
    def switch_destination(self, *, pause: bool) -> None:
        with self.tx() as tx:
            if pause:
                gates.pause_destination(tx, Gate(DEVICE, PACS), actor="anna", reason="")
            else:
                gates.resume_destination(tx, Gate(DEVICE, PACS))
        self.model.destination_paused = pause

    # --- comparison

    def held(self, claimed: Task) -> Expected | None:
        """Return the model's task if the claim still holds."""
        expected = self.model.tasks.get(claimed.pk)
        if expected is None or expected.status is not S.IN_PROCESS:
            return None
        return expected if expected.attempt == claimed.attempt else None

    def ask_to_cancel(self, expected: Expected) -> None:
        if expected.status is S.IN_PROCESS:
            expected.cancel_requested, expected.again_due = True, None
        else:
            expected.apply(E.CANCEL)

    def matching(self, status: TaskStatus) -> list[Expected]:
        return [task for task in self.model.tasks.values() if task.status is status]

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.ledger.statement() as tx:
            rows = tx.execute(
                "SELECT pk, status, attempt, failures, round, dispatched_time IS NOT NULL,"
                " cancel_requested, reschedule_time IS NOT NULL, remote_aet FROM task"
            ).fetchall()
        found = {pk: rest for pk, *rest in rows}
        assert found == {
            pk: [
                *(task.status, task.attempt, task.failures, task.round, task.dispatched),
                *(task.cancel_requested, task.again_due is not None, task.remote_aet),
            ]
            for pk, task in self.model.tasks.items()
        }

    @invariant()
    def history_ends_where_the_task_stands(self) -> None:
        with self.ledger.statement() as tx:
            rows = tx.execute(
                "SELECT t.status, h.to_status FROM task t CROSS JOIN LATERAL (SELECT to_status"
                " FROM task_history WHERE task_fk = t.pk ORDER BY pk DESC LIMIT 1) h"
            ).fetchall()
        assert len(rows) == len(self.model.tasks)
        assert all(status == latest for status, latest in rows)

    @invariant()
    def waiting_queues_are_those_with_ready_tasks(self) -> None:
        with self.ledger.statement() as tx:
            found = {each.name for each in tasks.waiting_queues(tx, DEVICE) if each.due_in_s <= 0}
        assert found == {
            task.queue
            for task in self.model.tasks.values()
            if task.status.is_waiting
            and task.is_due
            and not task.dispatched
            and self.model.is_open(task)
        }


def _due(new: NewTask, *, is_due: bool) -> NewTask:
    return replace(new, due_in_s=0.0 if is_due else 1e6)


@pytest.mark.timeout(600)
def test_ledger_obeys_the_table_of_transitions(ledger: Ledger) -> None:
    """The rows, their history and what is handed over agree with the model after every step."""
    machine = type("Machine", (LedgerMachine,), {"ledger": ledger})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
