"""Dispatchers as processes: signals, death at every step, and one pass by hand."""

import signal

import pytest

from archive.model.task import TaskStatus
from tests.fix_engine import Engine
from tests.fix_process import wait_until

COMPLETED = TaskStatus.COMPLETED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dispatcher_ends_with_status_0(engine: Engine, number: signal.Signals) -> None:
    dispatcher = engine.start_dispatcher()
    dispatcher.send(number)
    assert dispatcher.popen.wait(5) == 0
    assert "dispatcher.stopped" in dispatcher.output()


@pytest.mark.parametrize("checkpoint", ["dispatcher.marked", "dispatcher.published"])
def test_death_of_a_dispatcher_loses_and_doubles_nothing(engine: Engine, checkpoint: str) -> None:
    engine.start_worker()
    engine.stage_many(40)
    dying = engine.celery("dispatcher", DICOMQ_CHECKPOINT=f"{checkpoint}:KILL:3")
    wait_until(lambda: not dying.is_alive(), what="the death of the dispatcher")
    assert dying.popen.returncode == -signal.SIGKILL
    engine.start_dispatcher()
    assert engine.await_all_done() == {COMPLETED: 40}
    assert len(engine.runs()) == 40


@pytest.mark.parametrize(
    ("checkpoint", "runs", "failures"),
    [
        ("worker.claimed", 1, 1),
        ("worker.performed", 2, 1),
        ("worker.before-finish", 2, 1),
        ("worker.finished", 1, 0),
    ],
)
def test_death_of_a_worker_at_each_step(
    engine: Engine, checkpoint: str, runs: int, failures: int
) -> None:
    engine.start_dispatcher()
    dying = engine.start_worker(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL")
    pk = engine.stage()
    wait_until(lambda: not dying.is_alive(), what="the death of the worker")
    engine.start_worker()
    done = engine.await_status(pk, COMPLETED)
    assert done.failures == failures
    assert len(engine.runs()) == runs


def test_one_pass_by_hand(engine: Engine) -> None:
    engine.stage_many(3)
    engine.stage(due_in_s=3600)
    once = engine.celery("dispatcher", "--once")
    assert once.popen.wait(20) == 0
    assert "3 tasks handed over" in once.output()


def test_one_pass_without_redis_says_what_to_do(engine: Engine) -> None:
    engine.stage()
    engine.redis.kill()
    once = engine.celery("dispatcher", "--once")
    assert once.popen.wait(20) == 1
    assert "Error: the broker redis://" in once.output()
    assert "start Redis or correct REDIS_URL" in once.output()
    engine.redis.start()
