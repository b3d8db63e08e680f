"""Hints that wait in Redis are taken several at a time, never more than a worker has slots for."""

import re

from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine
from tests.fix_process import wait_until
from tests.fix_redis import RedisServer

MANY = 60


def calls(redis: RedisServer, command: str) -> int:
    """Return how often Redis was given a command."""
    found = re.search(
        rf"cmdstat_{command}:calls=(\d+)", redis.command("INFO commandstats").decode()
    )
    return int(found[1]) if found else 0


def waiting(redis: RedisServer, queue: str) -> int:
    """Return how many hints wait."""
    return int(redis.command(f"LLEN {queue}").strip(b":\r\n"))


def test_hints_are_taken_several_at_a_time(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": str(MANY)}})
    engine.start_dispatcher()
    engine.stage_many(MANY)
    wait_until(lambda: waiting(engine.redis, QUEUE) == MANY, what="hints in Redis")
    engine.start_worker("-c", "16")
    assert engine.await_all_done() == {TaskStatus.COMPLETED: MANY}
    assert 0 < calls(engine.redis, "rpop") < MANY / 2
    runs = engine.runs()
    assert len(runs) == len({run.task_pk for run in runs}) == MANY


def test_a_full_worker_leaves_hints_to_others(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "10"}})
    engine.start_dispatcher()
    engine.stage_many(10, "hang")
    wait_until(lambda: waiting(engine.redis, QUEUE) == 10, what="hints in Redis")
    first = engine.start_worker("-c", "3")
    wait_until(lambda: len(engine.runs()) == 3, what="a full worker")
    assert waiting(engine.redis, QUEUE) == 7
    second = engine.start_worker("-c", "7")
    wait_until(lambda: len(engine.runs()) == 10, what="a second full worker")
    pids = [run.pid for run in engine.runs()]
    assert (pids.count(first.pid), pids.count(second.pid)) == (3, 7)


def test_one_full_queue_does_not_keep_another_waiting(engine: Engine) -> None:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": str(MANY)}, "Other": {}})
    engine.start_dispatcher()
    engine.stage_many(MANY, "steps:0.2")
    other = engine.stage(queue="Other")
    wait_until(lambda: waiting(engine.redis, QUEUE) == MANY, what="hints in Redis")
    engine.start_worker("-c", "4")
    engine.await_status(other, TaskStatus.COMPLETED)
    finished = sum(run.ended is not None for run in engine.runs())
    assert finished < MANY / 2
