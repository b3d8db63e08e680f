"""Claims and results of several attempts in one statement: what they take, and what they leave."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from archive.ledger import gates, tasks
from archive.ledger.attempts import Ending, claim_together, finish_together
from archive.ledger.connection import TASK_CHANNEL, Ledger
from archive.ledger.gates import Gate
from archive.model.gates import CircuitPolicy
from archive.model.retry import Finish, RetryIn
from archive.model.task import Failure, Hint, NewTask, Outcome, Task, TaskKind, TaskStatus
from workers.bookkeeping import Bookkeeping

DEVICE = "dcm4chee-arc"
DONE = Outcome(TaskStatus.COMPLETED, "all delivered")
BROKEN = Outcome(TaskStatus.FAILED, "connection refused", failure=Failure.TRANSIENT)
FINISH = Finish(TaskStatus.COMPLETED)


def handed_over(ledger: Ledger, *studies: str, queue: str = "Export") -> list[Hint]:
    """Stage an export of each study (with a series after a slash) and hand all of them over."""
    with ledger.transaction() as tx:
        for study in studies:
            uid, _, series = study.partition("/")
            new = NewTask(
                TaskKind.EXPORT,
                queue,
                DEVICE,
                "DCM4CHEE",
                "STORESCP",
                uid,
                series_instance_uid=series or None,
                exporter_id="X",
            )
            tasks.stage(tx, new, actor="test")
    with ledger.transaction() as tx:
        return tasks.dispatch(tx, DEVICE, queue, 99)


def claim(ledger: Ledger, hints: Sequence[Hint]) -> dict[Hint, Task]:
    """Claim together for worker `w`."""
    with ledger.statement() as tx:
        return claim_together(tx, hints, worker="w", lease_s=60)


def claimed(ledger: Ledger, *studies: str) -> list[Task]:
    """Return running exports, in the order of the studies."""
    hints = handed_over(ledger, *studies)
    running = claim(ledger, hints)
    return [running[hint] for hint in hints]


def finish(ledger: Ledger, endings: Sequence[Ending]) -> dict[int, TaskStatus]:
    """Finish together as worker `w`."""
    with ledger.statement() as tx:
        return finish_together(tx, endings, actor="w")


def history(ledger: Ledger, pk: int) -> list[tuple[TaskStatus | None, TaskStatus, str | None]]:
    """Return the changes of status of a task and their reasons."""
    with ledger.statement() as tx:
        return [(each.from_status, each.to_status, each.reason) for each in tasks.history(tx, pk)]


def test_claims_are_those_that_each_hint_would_have_got_alone(ledger: Ledger) -> None:
    together = claimed(ledger, "1.1", "1.2")
    (hint,) = handed_over(ledger, "1.3")
    with ledger.statement() as tx:
        alone = tasks.claim(tx, hint, worker="w", lease_s=60)
    assert alone is not None
    for task in together:
        assert (task.status, task.worker, task.attempt) == (TaskStatus.IN_PROCESS, "w", 1)
        assert task.start_time is not None
        assert history(ledger, task.pk) == history(ledger, alone.pk)


def test_stale_hints_are_left_out(ledger: Ledger) -> None:
    first, second = handed_over(ledger, "1.1", "1.2")
    stale = Hint(first.task_pk, first.attempt - 1)
    assert set(claim(ledger, [stale, second, Hint(10**9, 1)])) == {second}
    assert claim(ledger, [second, second]) == {}


def test_what_is_paused_overlaps_or_is_not_due_is_left_out(ledger: Ledger) -> None:
    (paused,) = handed_over(ledger, "1.1", queue="Paused")
    series, whole, other = handed_over(ledger, "1.2/1", "1.2", "1.3")
    (postponed,) = handed_over(ledger, "1.4")
    with ledger.transaction() as tx:
        gates.pause_queue(tx, Gate(DEVICE, "Paused"), actor="test", reason="")
        tx.execute(
            "UPDATE task SET scheduled_time = now() + interval '1 h' WHERE pk = %s",
            (postponed.task_pk,),
        )
    found = claim(ledger, [paused, series, whole, other, postponed])
    assert set(found) == {series, other}
    assert claim(ledger, [whole]) == {}, "a running export overlaps"
    with ledger.transaction() as tx:
        gates.pause_destination(tx, Gate(DEVICE, "STORESCP"), actor="test", reason="")
    assert claim(ledger, handed_over(ledger, "1.5")) == {}


def test_claims_wait_for_nobody(ledger: Ledger) -> None:
    locked, staged_for, free = handed_over(ledger, "1.1", "1.2", "1.3")
    with ledger.transaction() as tx:
        tx.execute("SELECT FROM task WHERE pk = %s FOR UPDATE", (locked.task_pk,))
        tx.execute("SELECT lock_exports('X', '1.2')")
        assert set(claim(ledger, [locked, staged_for, free])) == {free}
    assert set(claim(ledger, [locked, staged_for])) == {locked, staged_for}


def test_results_are_those_that_each_attempt_would_have_got_alone(ledger: Ledger) -> None:
    done, retried, failed, alone = claimed(ledger, "1.1", "1.2", "1.3", "1.4")
    finished = finish(
        ledger,
        [
            Ending(done, DONE, FINISH),
            Ending(retried, BROKEN, RetryIn(60)),
            Ending(failed, BROKEN, Finish(TaskStatus.FAILED)),
        ],
    )
    assert finished == {
        done.pk: TaskStatus.COMPLETED,
        retried.pk: TaskStatus.SCHEDULED_FOR_RETRY,
        failed.pk: TaskStatus.FAILED,
    }
    with ledger.transaction() as tx:
        tasks.finish(tx, alone, BROKEN, RetryIn(60), actor="w")
        one, other = tasks.get(tx, retried.pk), tasks.get(tx, alone.pk)
        assert tasks.get(tx, done.pk).outcome_message == "all delivered"
        assert tasks.get(tx, failed.pk).error_message == "connection refused"
    for name in ("status", "failures", "error_message", "outcome_message", "attempt", "worker"):
        assert getattr(one, name) == getattr(other, name)
    assert abs((one.scheduled_time - other.scheduled_time).total_seconds()) < 30
    assert history(ledger, one.pk) == history(ledger, other.pk)


def test_results_of_lost_claims_and_of_tasks_to_be_stopped_are_left_out(ledger: Ledger) -> None:
    lost, unwanted, fine = claimed(ledger, "1.1", "1.2", "1.3")
    with ledger.transaction() as tx:
        tasks.release(tx, lost, actor="rescuer", reason="lease ran out")
        tasks.cancel(tx, unwanted.pk, actor="test")
    endings = [Ending(task, DONE, FINISH) for task in (lost, unwanted, fine)]
    assert finish(ledger, endings) == {fine.pk: TaskStatus.COMPLETED}
    with ledger.statement() as tx:
        assert tasks.get(tx, lost.pk).status is TaskStatus.SCHEDULED_FOR_RETRY
        assert tasks.get(tx, unwanted.pk).status is TaskStatus.IN_PROCESS


def test_a_result_that_closes_a_circuit_goes_alone(ledger: Ledger) -> None:
    task, failing = claimed(ledger, "1.1", "1.2")
    with ledger.transaction() as tx:
        gates.note_failure(tx, failing, "refused", CircuitPolicy(failures=9))
    assert finish(ledger, [Ending(task, DONE, FINISH)]) == {}


def test_results_wait_for_nobody_and_wake_the_dispatchers(ledger: Ledger) -> None:
    locked, free = claimed(ledger, "1.1", "1.2")
    endings = [Ending(task, DONE, FINISH) for task in (locked, free)]
    with ledger.listen(TASK_CHANNEL) as listener:
        with ledger.transaction() as tx:
            tx.execute("SELECT FROM task WHERE pk = %s FOR UPDATE", (locked.pk,))
            assert set(finish(ledger, endings)) == {free.pk}
        assert listener.wait(5)


@pytest.mark.parametrize("threads", [1, 8])
def test_a_worker_claims_and_finishes_each_task_once(ledger: Ledger, threads: int) -> None:
    studies = [f"1.{number // 2}{'/1' if number % 2 else '/2'}" for number in range(60)]
    hints = handed_over(ledger, *studies)
    bookkeeping = Bookkeeping(ledger, worker="w", lease_s=60)

    def work(hint: Hint) -> tuple[TaskStatus | None, Task | None]:
        task = bookkeeping.claim(hint)
        assert task is not None
        ended = bookkeeping.finish(Ending(task, DONE, FINISH))
        return ended, bookkeeping.claim(hint)

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(work, hints)) == {(TaskStatus.COMPLETED, None)}
    with ledger.statement() as tx:
        changes = tx.execute("SELECT count(*) FROM task_history").fetchone()
    assert changes == (3 * len(hints),)
