"""A task's life in the ledger: hand-over, claim, fence, outcome, rescue, and what operators do."""

import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from archive.errors import IllegalTransitionError, NoSuchTaskError
from archive.ledger import tasks
from archive.ledger.connection import CANCEL_CHANNEL, TASK_CHANNEL, Ledger
from archive.model.retry import Finish, RetryIn
from archive.model.task import (
    Failure,
    Hint,
    IanDetails,
    NewTask,
    Outcome,
    Task,
    TaskKind,
    TaskStatus,
)
from tests.fix_process import wait_until

DEVICE = "dcm4chee-arc"
DONE = Outcome(TaskStatus.COMPLETED, "all delivered")
BROKEN = Outcome(TaskStatus.FAILED, "connection refused", failure=Failure.TRANSIENT)


def new_export(study: str = "1.2.3", *, due_in_s: float = 0.0, queue: str = "Export") -> NewTask:
    """Return an export asked for by hand."""
    return NewTask(
        TaskKind.EXPORT,
        queue,
        DEVICE,
        "DCM4CHEE",
        "STORESCP",
        study,
        exporter_id="X",
        due_in_s=due_in_s,
    )


def stage(ledger: Ledger, new: NewTask) -> int:
    """Stage a task in a transaction of its own."""
    with ledger.transaction() as tx:
        return tasks.stage(tx, new, actor="test")


def dispatch(ledger: Ledger, limit: int = 9, queue: str = "Export") -> list[Hint]:
    """Hand over due tasks in a transaction of its own."""
    with ledger.transaction() as tx:
        return tasks.dispatch(tx, DEVICE, queue, limit)


def claim(ledger: Ledger, hint: Hint, lease_s: float = 60) -> Task | None:
    """Claim for worker `w`."""
    with ledger.statement() as tx:
        return tasks.claim(tx, hint, worker="w", lease_s=lease_s)


def running(ledger: Ledger, lease_s: float = 60) -> Task:
    """Return a fresh task that is being processed."""
    stage(ledger, new_export())
    (hint,) = dispatch(ledger)
    task = claim(ledger, hint, lease_s)
    assert task is not None
    return task


def finish(
    ledger: Ledger, task: Task, outcome: Outcome, decision: Finish | RetryIn
) -> TaskStatus | None:
    """Finish an attempt in a transaction of its own."""
    with ledger.transaction() as tx:
        return tasks.finish(tx, task, outcome, decision, actor="w")


def get(ledger: Ledger, pk: int) -> Task:
    """Read a task."""
    with ledger.statement() as tx:
        return tasks.get(tx, pk)


def test_life_of_a_task(ledger: Ledger) -> None:
    """Staged, claimed, failed, retried, completed: the history has each change and its reason."""
    task = running(ledger)
    assert finish(ledger, task, BROKEN, RetryIn(0.0)) is TaskStatus.SCHEDULED_FOR_RETRY
    waiting = get(ledger, task.pk)
    assert (waiting.failures, waiting.error_message) == (1, "connection refused")
    (hint,) = dispatch(ledger)
    second = claim(ledger, hint)
    assert second is not None
    assert second.attempt == task.attempt + 1
    assert finish(ledger, second, DONE, Finish(TaskStatus.COMPLETED)) is TaskStatus.COMPLETED
    done = get(ledger, task.pk)
    assert (done.status, done.error_message, done.outcome_message) == (
        TaskStatus.COMPLETED,
        None,
        "all delivered",
    )
    with ledger.statement() as tx:
        story = [(t.from_status, t.to_status, t.reason) for t in tasks.history(tx, task.pk)]
    assert story == [
        (None, TaskStatus.SCHEDULED, "staged"),
        (TaskStatus.SCHEDULED, TaskStatus.IN_PROCESS, "claimed"),
        (TaskStatus.IN_PROCESS, TaskStatus.SCHEDULED_FOR_RETRY, "connection refused"),
        (TaskStatus.SCHEDULED_FOR_RETRY, TaskStatus.IN_PROCESS, "claimed"),
        (TaskStatus.IN_PROCESS, TaskStatus.COMPLETED, "all delivered"),
    ]


def test_hint_is_good_for_one_claim(ledger: Ledger) -> None:
    """A repeated hint, one of an older attempt, and one of a waiting retry are all dropped."""
    task = running(ledger)
    hint = Hint(task.pk, task.attempt)
    assert claim(ledger, hint) is None
    finish(ledger, task, BROKEN, RetryIn(0.0))
    assert claim(ledger, hint) is None
    (newer,) = dispatch(ledger)
    assert claim(ledger, hint) is None
    assert claim(ledger, newer) is not None


def test_many_workers_claim_once(ledger: Ledger) -> None:
    """Of workers that bring the same hint, one gets the task."""
    stage(ledger, new_export())
    (hint,) = dispatch(ledger)
    with ThreadPoolExecutor(6) as threads:
        claims = list(threads.map(lambda _: claim(ledger, hint), range(6)))
    assert sum(task is not None for task in claims) == 1


def test_lost_claim_changes_nothing(ledger: Ledger) -> None:
    """A worker whose lease lapsed and whose task was taken over cannot end it any more."""
    task = running(ledger, lease_s=0.0)
    with ledger.transaction() as tx:
        (lapsed,) = tasks.lapsed(tx, DEVICE)
        tasks.finish(tx, lapsed, BROKEN, RetryIn(0.0), actor="rescuer")
    with ledger.transaction() as tx:
        tasks.cancel(tx, task.pk, actor="operator")
    ian = NewTask(
        TaskKind.IAN, "IANSCU", DEVICE, "A", "B", "1.2.3", ian=IanDetails(("A",), "ONLINE")
    )
    late = Outcome(TaskStatus.COMPLETED, "too late", follow_ups=(ian,))
    assert finish(ledger, task, late, Finish(TaskStatus.COMPLETED)) is None
    assert get(ledger, task.pk).status is TaskStatus.CANCELED
    with ledger.statement() as tx:
        assert tasks.renew(tx, [Hint(task.pk, task.attempt)], lease_s=60) == []
        assert (TaskKind.IAN, TaskStatus.SCHEDULED) not in tasks.count_by_status(tx)


def test_renewed_lease_does_not_lapse(ledger: Ledger) -> None:
    """A heartbeat keeps the task; the answer carries the wish to cancel."""
    task = running(ledger, lease_s=0.0)
    with ledger.statement() as tx:
        (renewed,) = tasks.renew(tx, [Hint(task.pk, task.attempt)], lease_s=60)
        assert not renewed.cancel_requested
    with ledger.transaction() as tx:
        assert tasks.lapsed(tx, DEVICE) == []
        assert tasks.cancel(tx, task.pk, actor="operator") is TaskStatus.IN_PROCESS
    with ledger.statement() as tx:
        (renewed,) = tasks.renew(tx, [Hint(task.pk, task.attempt)], lease_s=60)
    assert renewed.cancel_requested


def test_cancel_beats_retry(ledger: Ledger) -> None:
    """A task that was asked to stop and then fails is canceled, not retried."""
    task = running(ledger)
    with ledger.transaction() as tx:
        tasks.cancel(tx, task.pk, actor="operator")
    assert finish(ledger, task, BROKEN, RetryIn(0.0)) is TaskStatus.CANCELED


def test_cancel_of_a_done_task_is_refused(ledger: Ledger) -> None:
    """The error says in which status the task is; nothing changes."""
    task = running(ledger)
    finish(ledger, task, DONE, Finish(TaskStatus.COMPLETED))
    with (
        pytest.raises(IllegalTransitionError, match="COMPLETED already"),
        ledger.transaction() as tx,
    ):
        tasks.cancel(tx, task.pk, actor="operator")
    with pytest.raises(NoSuchTaskError, match="no task 0"), ledger.transaction() as tx:
        tasks.cancel(tx, 0, actor="operator")


@pytest.mark.parametrize(
    ("decision", "found", "left"),
    [
        (RetryIn(60), "CANCELED", TaskStatus.CANCELED),
        (Finish(TaskStatus.FAILED), "is FAILED already", TaskStatus.FAILED),
    ],
)
def test_cancel_that_meets_the_end_of_an_attempt(
    ledger: Ledger, decision: Finish | RetryIn, found: str, left: TaskStatus
) -> None:
    """It waits for the worker's transaction, and its answer is true of what that left."""
    task = running(ledger)

    def cancel() -> str:
        try:
            with ledger.statement() as tx:
                return tasks.cancel(tx, task.pk, actor="operator")
        except IllegalTransitionError as error:
            return str(error)

    with ThreadPoolExecutor(1) as pool:
        with ledger.transaction() as tx:
            tasks.finish(tx, task, BROKEN, decision, actor="w")
            answer = pool.submit(cancel)
            wait_until(lambda: _waits_for_lock(ledger), what="the cancel to wait")
        assert found in answer.result(10)
    assert get(ledger, task.pk).status is left


def _waits_for_lock(ledger: Ledger) -> bool:
    with ledger.statement() as tx:
        return bool(
            tx.execute(
                "SELECT FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchall()
        )


def test_cancel_takes_a_dispatched_task_back(ledger: Ledger) -> None:
    """Its hint is worthless from then on."""
    pk = stage(ledger, new_export())
    (hint,) = dispatch(ledger)
    with ledger.transaction() as tx:
        assert tasks.cancel(tx, pk, actor="operator") is TaskStatus.CANCELED
    assert claim(ledger, hint) is None


@pytest.mark.parametrize(
    ("outcome", "rounds"),
    [(DONE, 1), (Outcome(TaskStatus.FAILED, "no", failure=Failure.PERMANENT), 0)],
)
def test_reschedule_of_a_done_task(ledger: Ledger, outcome: Outcome, rounds: int) -> None:
    """Failures and messages are forgotten; only a completed task starts a new round."""
    task = running(ledger)
    finish(ledger, task, outcome, Finish(outcome.status))
    with ledger.transaction() as tx:
        tasks.reschedule(tx, task.pk, due_in_s=60, actor="operator")
    again = get(ledger, task.pk)
    assert (again.status, again.failures, again.error_message) == (TaskStatus.SCHEDULED, 0, None)
    assert again.round == task.round + rounds
    assert dispatch(ledger) == []


def test_reschedule_of_a_running_task_is_refused(ledger: Ledger) -> None:
    """It has to be canceled first."""
    task = running(ledger)
    with (
        pytest.raises(IllegalTransitionError, match="cancel it before"),
        ledger.transaction() as tx,
    ):
        tasks.reschedule(tx, task.pk, actor="operator")


def test_release_burns_no_retry(ledger: Ledger) -> None:
    """A worker that shuts down gives its tasks back, due at once."""
    task = running(ledger)
    with ledger.transaction() as tx:
        assert tasks.release(tx, task, actor="w", reason="worker shuts down")
    assert get(ledger, task.pk).failures == 0
    assert len(dispatch(ledger)) == 1


def test_limit_holds_across_dispatchers(ledger: Ledger) -> None:
    """However many dispatchers fill a queue at once, its limit of tasks in flight is kept."""
    for number in range(40):
        stage(ledger, new_export(f"1.2.{number + 1}"))
    with ThreadPoolExecutor(6) as threads:
        handed = list(threads.map(lambda _: dispatch(ledger, limit=5), range(24)))
    hints = [hint for batch in handed for hint in batch]
    assert len(hints) == 5
    first = claim(ledger, hints[0])
    assert first is not None
    assert dispatch(ledger, limit=5) == []
    finish(ledger, first, DONE, Finish(TaskStatus.COMPLETED))
    assert len(dispatch(ledger, limit=5)) == 1


def test_dispatch_order_is_due_order(ledger: Ledger) -> None:
    """Earliest due first."""
    pks = [stage(ledger, new_export(f"1.2.{n + 1}", due_in_s=-n)) for n in range(4)]
    assert [hint.task_pk for hint in dispatch(ledger, limit=4)] == list(reversed(pks))


def test_lost_hints_are_handed_over_again(ledger: Ledger) -> None:
    """The raised attempt makes hints that turn up after all worthless."""
    stage(ledger, new_export())
    (hint,) = dispatch(ledger)
    with ledger.transaction() as tx:
        assert tasks.unclaimed(tx, DEVICE, older_than_s=60) == {}
        assert tasks.unclaimed(tx, DEVICE, older_than_s=0) == {"Export": 1}
        (again,) = tasks.redispatch(tx, DEVICE, "Export", older_than_s=0)
    assert claim(ledger, hint) is None
    assert claim(ledger, again) is not None


def test_waiting_queues_name_the_earliest(ledger: Ledger) -> None:
    """One row per queue with work; queues of other devices and handed-over tasks are left out."""
    stage(ledger, new_export("1.2.1", due_in_s=50, queue="Ä queue with blanks"))
    stage(ledger, new_export("1.2.2", due_in_s=500, queue="Ä queue with blanks"))
    stage(ledger, new_export("1.2.3", due_in_s=-5))
    with ledger.statement() as tx:
        found = {queue.name: queue.due_in_s for queue in tasks.waiting_queues(tx, DEVICE)}
        assert tasks.waiting_queues(tx, "other-device") == []
    assert found == {
        "Ä queue with blanks": pytest.approx(50, abs=2),
        "Export": pytest.approx(-5, abs=2),
    }
    dispatch(ledger)
    with ledger.statement() as tx:
        assert [queue.name for queue in tasks.waiting_queues(tx, DEVICE)] == ["Ä queue with blanks"]


def test_notifications_reach_listeners(ledger: Ledger) -> None:
    """Staging and finishing wake dispatchers, cancelling reaches the workers, with the task."""
    with ledger.listen(TASK_CHANNEL, CANCEL_CHANNEL) as listener:
        task = running(ledger)
        assert (TASK_CHANNEL, "") in listener.wait(5)
        with ledger.transaction() as tx:
            tasks.cancel(tx, task.pk, actor="operator")
        assert listener.wait(5) == [(CANCEL_CHANNEL, str(task.pk))]
        finish(ledger, task, BROKEN, RetryIn(0.0))
        assert listener.wait(5) == [(TASK_CHANNEL, "")]
        assert listener.wait(0.0) == []


def test_listener_that_waits_does_not_wake(ledger: Ledger) -> None:
    """Every process has one or two: one that looked now and then would keep an idle host busy."""
    with ledger.listen(TASK_CHANNEL) as listener:
        listener.wait(0.0)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        assert listener.wait(0.4) == []
        assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before <= 2


def test_purge_deletes_by_queue_status_and_age(ledger: Ledger) -> None:
    """Only done tasks of that queue and status that are old enough go, with their details."""
    task = running(ledger)
    finish(ledger, task, DONE, Finish(TaskStatus.COMPLETED))
    kept = stage(ledger, new_export("1.2.9"))
    with ledger.transaction() as tx:
        completed = TaskStatus.COMPLETED
        assert tasks.purge(tx, DEVICE, "Export", completed, older_than_s=60) == 0
        assert tasks.purge(tx, DEVICE, "Other", completed, older_than_s=0) == 0
        assert tasks.purge(tx, DEVICE, "Export", completed, older_than_s=0) == 1
        assert tasks.get(tx, kept).pk == kept
        with pytest.raises(NoSuchTaskError):
            tasks.get(tx, task.pk)
