"""What the engine makes of a task's outcome."""

import pytest

from archive.ledger import tasks
from archive.model.task import TaskStatus
from tests.fix_engine import Engine

COMPLETED, FAILED = TaskStatus.COMPLETED, TaskStatus.FAILED


def test_a_due_task_is_performed_once_and_completed(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    task = engine.await_status(engine.stage(), COMPLETED)
    assert task.outcome_message == "1 of 1 delivered"
    assert task.error_message is None
    assert task.failures == 0
    assert [run.task_pk for run in engine.runs()] == [task.pk]
    with engine.ledger.statement() as tx:
        statuses = [each.to_status for each in tasks.history(tx, task.pk)]
    assert statuses == [TaskStatus.SCHEDULED, TaskStatus.IN_PROCESS, COMPLETED]


def test_a_task_waits_for_its_time(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    task = engine.await_status(engine.stage(due_in_s=1.5), COMPLETED)
    assert task.start_time is not None
    assert 0 <= (task.start_time - task.scheduled_time).total_seconds() < 1


def test_a_transient_failure_is_retried_until_the_queue_gives_up(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    pk = engine.stage("transient")
    waiting = engine.await_status(pk, TaskStatus.SCHEDULED_FOR_RETRY)
    assert waiting.error_message == (
        "STORESCP refused the connection (a fault of the remote AE); retry 1 of 2 in 1 s"
    )
    given_up = engine.await_status(pk, FAILED)
    assert given_up.failures == 3
    assert "given up after 3 attempts" in (given_up.error_message or "")
    assert len(engine.runs()) == 3


@pytest.mark.parametrize(
    ("script", "failures", "message"),
    [
        ("permanent", 1, "STORESCP accepts no CT images (a fault of the remote AE); not retried"),
        ("bug", 3, "internal error (a fault of this archive: see the worker's log)"),
    ],
)
def test_failures_are_final_with_a_reason(
    engine: Engine, script: str, failures: int, message: str
) -> None:
    engine.start_dispatcher()
    worker = engine.start_worker()
    task = engine.await_status(engine.stage(script), FAILED)
    assert task.failures == failures
    assert (task.error_message or "").startswith(message)
    assert ("RuntimeError: a defect" in worker.output()) is (script == "bug")
