"""Limits of parallel tasks, and queues that come and go with the configuration."""

import pytest

from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine, overlap
from tests.fix_process import wait_until

COMPLETED = TaskStatus.COMPLETED


def test_the_limit_holds_across_workers(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "3"}})
    engine.start_dispatcher()
    engine.start_dispatcher()
    engine.start_worker()
    engine.start_worker()
    engine.stage_many(30, "steps:0.1")
    assert engine.await_all_done() == {COMPLETED: 30}
    runs = engine.runs()
    assert overlap(runs) == 3
    assert len(runs) == 30
    assert len({run.pid for run in runs}) == 2


def test_a_changed_limit_holds_from_then_on(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "1"}})
    engine.start_dispatcher()
    engine.start_worker()
    blocker = engine.stage("steps:60")
    engine.await_status(blocker, TaskStatus.IN_PROCESS)
    waiting = engine.stage()
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "2"}})
    engine.await_status(waiting, COMPLETED)
    assert engine.get(blocker).status is TaskStatus.IN_PROCESS


def test_one_blocked_queue_does_not_hold_up_another(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "2"}, "Other": {}})
    engine.start_dispatcher()
    engine.start_worker("-c", "4")
    engine.stage_many(20, "hang")
    wait_until(lambda: len(engine.runs()) == 2, what="the queue to be full")
    other = engine.await_status(engine.stage(queue="Other"), COMPLETED, deadline_s=5)
    assert engine.counts() == {TaskStatus.IN_PROCESS: 2, TaskStatus.SCHEDULED: 18, COMPLETED: 1}
    assert [run.task_pk for run in engine.runs() if run.ended is not None] == [other.pk]


@pytest.mark.parametrize("name", ["Nearline Storage Export", "Bildarchiv Süd ✓"])
def test_a_queue_that_appears_is_served(engine: Engine, name: str) -> None:
    engine.start_dispatcher()
    engine.start_worker("--kind", "export,notify")
    engine.configure({QUEUE: {}, name: {}})
    first = engine.await_status(engine.stage(queue=name), COMPLETED)
    engine.redis.flush()
    second = engine.await_status(engine.stage(queue=name), COMPLETED)
    assert [run.task_pk for run in engine.runs()] == [first.pk, second.pk]
    assert [each.failures for each in (first, second)] == [0, 0]


def test_a_queue_that_disappears_is_served_until_it_is_empty(engine: Engine) -> None:
    engine.configure({QUEUE: {}, "Retired": {}})
    engine.start_dispatcher()
    worker = engine.start_worker()
    pks = engine.stage_many(3, queue="Retired", due_in_s=4)
    engine.configure({QUEUE: {}})
    for pk in pks:
        engine.await_status(pk, COMPLETED)
    wait_until(lambda: "canceled=Retired" in worker.output(), what="the queue's end")
    assert sorted(run.task_pk for run in engine.runs()) == pks
    before, _, after = worker.output().partition("canceled=Retired")
    assert (before.count("task.finished"), after.count("task.finished")) == (3, 0)


def test_a_pool_serves_its_kinds_only(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.start_worker("--kind", "notify", "--kind", "commit")
    export, notification = engine.stage(), engine.stage(queue="IANSCU")
    engine.await_status(notification, COMPLETED)
    engine.await_status(engine.stage(queue="StgCmtSCP"), COMPLETED)
    assert engine.get(export).status is TaskStatus.SCHEDULED
    engine.start_worker("--kind", "export")
    engine.await_status(export, COMPLETED)


def test_an_unknown_kind_is_refused(engine: Engine) -> None:
    worker = engine.celery("worker", "--kind", "exports")
    assert worker.popen.wait(20) == 2
    assert "'exports' is not a kind of worker pool; use export, notify" in worker.output()


def test_another_pool_than_threads_is_refused(engine: Engine) -> None:
    worker = engine.celery("worker", "-P", "solo")
    assert worker.popen.wait(20) == 1
    assert "start them with -P threads" in worker.output()
