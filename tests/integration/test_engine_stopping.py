"""Cancel, revoke, shutdown and death of workers."""

import signal

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.model.task import Task, TaskStatus
from tests.fix_engine import QUEUE, Engine, Run
from tests.fix_process import wait_until

COMPLETED, CANCELED = TaskStatus.COMPLETED, TaskStatus.CANCELED
IN_PROCESS, FAILED = TaskStatus.IN_PROCESS, TaskStatus.FAILED


def running_task(engine: Engine, script: str) -> Task:
    return engine.await_status(engine.stage(script), IN_PROCESS)


def ended_runs(engine: Engine, pk: int) -> list[Run]:
    return [run for run in engine.runs() if run.task_pk == pk and run.ended is not None]


def test_cancel_of_a_waiting_task_is_immediate(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    pk = engine.stage(due_in_s=3600)
    assert engine.cancel(pk) is CANCELED
    engine.await_status(engine.stage(), COMPLETED)
    assert engine.get(pk).status is CANCELED
    assert all(run.task_pk != pk for run in engine.runs())


def test_cancel_of_a_handed_over_task_makes_its_hint_stale(engine: Engine) -> None:
    engine.start_dispatcher()
    pk = engine.stage()
    wait_until(lambda: engine.redis.command(f"LLEN {QUEUE}") == b":1\r\n", what="the hint")
    assert engine.cancel(pk) is CANCELED
    engine.start_worker()
    engine.await_status(engine.stage(), COMPLETED)
    assert engine.get(pk).status is CANCELED
    assert all(run.task_pk != pk for run in engine.runs())


@pytest.mark.parametrize(
    ("script", "limit_s", "message"),
    [
        ("steps:60", 2.0, " of 1200 delivered"),
        ("hang", 6.0, "the connection to STORESCP broke (a fault of the remote AE)"),
    ],
)
def test_cancel_of_a_running_task(
    engine: Engine, script: str, limit_s: float, message: str
) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    pk = running_task(engine, script).pk
    begin = SYSTEM_CLOCK.monotonic()
    assert engine.cancel(pk) is IN_PROCESS
    canceled = engine.await_status(pk, CANCELED)
    assert SYSTEM_CLOCK.monotonic() - begin < limit_s
    assert (canceled.outcome_message or "").endswith(message)
    assert len(ended_runs(engine, pk)) == 1


def test_celery_revoke_cancels_a_task_whose_hint_waits(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker("-c", "1")
    blocker = running_task(engine, "steps:60")
    pk = engine.stage()
    wait_until(lambda: engine.redis.command(f"LLEN {QUEUE}") == b":1\r\n", what="the hint")
    revoke = engine.celery("control", "revoke", f"{pk}.1")
    wait_until(lambda: not revoke.is_alive(), what="the end of celery control")
    engine.cancel(blocker.pk)
    engine.await_status(pk, CANCELED)
    assert ended_runs(engine, pk) == []


def test_celery_terminate_cancels_a_running_task(engine: Engine) -> None:
    engine.start_dispatcher()
    worker = engine.start_worker()
    task = running_task(engine, "steps:60")
    engine.celery("control", "terminate", "TERM", f"{task.pk}.{task.attempt}")
    canceled = engine.await_status(task.pk, CANCELED)
    assert " of 1200 delivered" in (canceled.outcome_message or "")
    assert worker.is_alive()


@pytest.mark.parametrize("script", ["steps:60", "hang"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_ends_releases_its_tasks(
    engine: Engine, script: str, number: signal.Signals
) -> None:
    engine.start_dispatcher()
    worker = engine.start_worker()
    task = running_task(engine, script)
    worker.send(number)
    worker.popen.wait(15)
    released = engine.get(task.pk)
    assert released.status is TaskStatus.SCHEDULED_FOR_RETRY
    assert released.failures == 0
    engine.start_worker()
    again = engine.await_status(task.pk, IN_PROCESS)
    assert again.attempt > task.attempt


def test_a_killed_worker_loses_its_tasks_to_another(engine: Engine) -> None:
    engine.start_dispatcher()
    first = engine.start_worker()
    task = running_task(engine, "steps:4")
    first.kill()
    engine.start_worker()
    done = engine.await_status(task.pk, COMPLETED)
    assert done.failures == 1
    assert done.attempt > task.attempt
    assert len(ended_runs(engine, task.pk)) == 1


def test_a_worker_that_was_away_cannot_overwrite_its_successor(engine: Engine) -> None:
    engine.start_dispatcher()
    sleeper = engine.start_worker()
    task = running_task(engine, "steps:1")
    sleeper.send(signal.SIGSTOP)
    engine.start_worker()
    done = engine.await_status(task.pk, COMPLETED)
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: "task.claim-lost" in sleeper.output(), what="the sleeper to notice")
    wait_until(lambda: len(ended_runs(engine, task.pk)) == 2, what="both runs to end")
    assert engine.get(task.pk) == done


def test_a_task_that_kills_its_worker_fails_in_the_end(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmRetryDelay": "PT0.1S"}})
    engine.start_dispatcher()
    pk = engine.stage("poison")
    for _ in range(3):  # none of them lives to renew its lease
        engine.start_worker(DICOMQ_LEASE_S="1", DICOMQ_HEARTBEAT_S="0.3").popen.wait(30)
    failed = engine.await_status(pk, FAILED)
    assert failed.failures == 3
    assert "worker lost" in (failed.error_message or "")


def test_broken_connections_to_postgresql_are_replaced(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker()
    task = running_task(engine, "steps:2")
    with engine.ledger.statement() as tx:
        tx.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    done = engine.await_status(task.pk, COMPLETED)
    assert done.failures == 0
    canceled = running_task(engine, "steps:60")
    engine.cancel(canceled.pk)
    engine.await_status(canceled.pk, CANCELED)
