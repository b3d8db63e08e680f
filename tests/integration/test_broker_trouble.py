"""Redis flushed, killed, away: nothing is lost, nothing runs twice, nothing piles up."""

import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine, overlap
from tests.fix_process import RunningProcess, start_process, wait_until
from tests.fix_redis import redis_binary

COMPLETED = TaskStatus.COMPLETED


def await_completed(engine: Engine, count: int) -> None:
    wait_until(lambda: engine.counts().get(COMPLETED, 0) > count, what=f"{count} completed tasks")


def let_pass(seconds: float) -> None:
    end = SYSTEM_CLOCK.monotonic() + seconds
    wait_until(lambda: SYSTEM_CLOCK.monotonic() >= end)


def hints(engine: Engine) -> int:
    return int(engine.redis.command(f"LLEN {QUEUE}").strip(b":\r\n"))


def start(engine: Engine) -> list[RunningProcess]:
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "16"}})
    return [engine.start_dispatcher(), engine.start_worker(), engine.start_worker()]


def test_flush_in_the_middle(engine: Engine) -> None:
    processes = start(engine)
    engine.stage_many(300, "steps:0.05")
    for share in (30, 100, 200):
        await_completed(engine, share)
        engine.redis.flush()
    assert engine.await_all_done() == {COMPLETED: 300}
    assert len(engine.runs()) == 300
    assert all(process.is_alive() for process in processes)


@pytest.mark.parametrize("pause_s", [0.0, 3.0])
def test_kill_and_restart_in_the_middle(engine: Engine, pause_s: float) -> None:
    processes = start(engine)
    engine.stage_many(300, "steps:0.05")
    for share in (30, 150):
        await_completed(engine, share)
        engine.redis.kill()
        let_pass(pause_s)
        engine.redis.start()
    assert engine.await_all_done() == {COMPLETED: 300}
    assert len(engine.runs()) == 300
    assert all(process.is_alive() for process in processes)


def test_a_running_task_survives_the_absence_of_redis(engine: Engine) -> None:
    start(engine)
    pk = engine.stage("steps:2")
    engine.await_status(pk, TaskStatus.IN_PROCESS)
    engine.redis.kill()
    assert engine.await_status(pk, COMPLETED).attempt == 1


def test_workers_go_on_without_redis(engine: Engine) -> None:
    start(engine)
    engine.stage_many(200, "steps:0.1")
    await_completed(engine, 20)
    engine.redis.kill()
    assert engine.await_all_done() == {COMPLETED: 200}
    assert overlap(engine.runs()) <= 16
    late = engine.stage("steps:60")
    task = engine.await_status(late, TaskStatus.IN_PROCESS)
    engine.redis.start()
    engine.await_status(engine.stage(), COMPLETED)
    assert engine.get(late) == task
    assert len(engine.runs()) == 202


def test_a_worker_without_redis_ends_on_term(engine: Engine) -> None:
    processes = start(engine)
    engine.redis.kill()
    pk = engine.stage("hang")
    engine.await_status(pk, TaskStatus.IN_PROCESS)
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        process.popen.wait(15)
    assert engine.get(pk).status is TaskStatus.SCHEDULED_FOR_RETRY
    assert engine.get(pk).failures == 0


def test_start_without_redis(engine: Engine) -> None:
    engine.redis.kill()
    dispatcher = engine.start_dispatcher()
    worker = engine.celery("worker", "-n", "early@test")
    engine.processes.append(worker)
    pks = engine.stage_many(5)
    wait_until(lambda: "start Redis or correct REDIS_URL" in dispatcher.output())
    wait_until(lambda: "Cannot connect to redis" in worker.output())
    assert dispatcher.output().count("dispatcher.halted") == 1
    engine.redis.start()
    for pk in pks:
        engine.await_status(pk, COMPLETED)


def test_hints_do_not_pile_up_while_no_worker_runs(engine: Engine) -> None:
    dispatcher = engine.start_dispatcher()
    engine.stage_many(50)
    wait_until(lambda: hints(engine) == 4, what="the queue to be full")
    let_pass(4)
    assert hints(engine) == 4
    engine.redis.flush()
    wait_until(lambda: hints(engine) == 4, what="the hints to be given again")
    assert "dispatcher.recalled" in dispatcher.output()
    engine.start_worker()
    assert engine.await_all_done() == {COMPLETED: 50}


def test_stale_hints_are_dropped(engine: Engine) -> None:
    engine.start_dispatcher()
    engine.stage_many(4)
    for kept in ("first", "second"):
        wait_until(lambda: hints(engine) == 4, what="the hints")
        engine.redis.command(f"RENAME {QUEUE} {kept}")
    wait_until(lambda: hints(engine) == 4, what="the hints to be given again")
    for kept in ("first", "second"):
        for _ in range(4):
            engine.redis.command(f"LMOVE {kept} {QUEUE} LEFT RIGHT")
    assert hints(engine) == 12
    engine.start_worker()
    assert engine.await_all_done() == {COMPLETED: 4}
    wait_until(lambda: hints(engine) == 0, what="the stale hints to be dropped")
    assert len(engine.runs()) == 4


@pytest.fixture
def socket_redis(tmp_path: Path) -> Iterator[str]:
    """URL of a Redis that listens on a Unix socket only, as the embedded one does."""
    binary = redis_binary()
    if binary is None:
        pytest.skip("no redis-server")
    path = tmp_path / "redis.sock"
    server = start_process(
        [binary, "--port", "0", "--unixsocket", path, "--save", "", "--dir", tmp_path],
        log=tmp_path / "socket-redis.log",
        ready=path.exists,
    )
    yield f"unix://{path}?db=0"
    with suppress(ProcessLookupError):
        server.stop()


def test_redis_over_a_unix_socket(engine: Engine, socket_redis: str) -> None:
    engine.start_dispatcher(REDIS_URL=socket_redis)
    engine.start_worker(REDIS_URL=socket_redis)
    pk = engine.stage()
    assert engine.await_status(pk, COMPLETED).attempt == 1
    assert [run.task_pk for run in engine.runs()] == [pk]
    assert engine.redis.command("DBSIZE") == b":0\r\n"  # nobody used the one on a port
