"""PostgreSQL stopped and started again under dispatcher and workers."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine, new_engine
from tests.fix_process import Spawn, wait_until
from tests.fix_redis import RedisServer

COMPLETED = TaskStatus.COMPLETED


@pytest.fixture
def own_engine(
    own_postgres: Any,  # noqa: ANN401 - it has no types
    own_redis: RedisServer,
    spawn: Spawn,
    tmp_path: Path,
) -> Iterator[Engine]:
    """Engine on a PostgreSQL that the test may stop."""
    url = f"postgresql://postgres@/postgres?host={own_postgres.get_postmaster_info().socket_dir}"
    with closing(Ledger(url)) as ledger:
        ledger.migrate()
        yield new_engine(ledger, url, own_redis, spawn=spawn, directory=tmp_path)


def let_pass(seconds: float) -> None:
    end = SYSTEM_CLOCK.monotonic() + seconds
    wait_until(lambda: SYSTEM_CLOCK.monotonic() >= end)


def test_restart_in_the_middle(own_engine: Engine, own_postgres: Any) -> None:  # noqa: ANN401
    own_engine.configure({QUEUE: {"dcmMaxTasksParallel": "16"}})
    processes = [own_engine.start_dispatcher(), own_engine.start_worker()]
    own_engine.stage_many(150, "steps:0.1")
    wait_until(lambda: len(own_engine.runs()) > 20, what="the first runs")
    own_postgres.stop()
    let_pass(1)
    own_postgres.start()
    assert own_engine.await_all_done() == {COMPLETED: 150}
    assert all(process.is_alive() for process in processes)


def test_a_result_outlasts_a_restart(own_engine: Engine, own_postgres: Any) -> None:  # noqa: ANN401
    own_engine.start_dispatcher()
    own_engine.start_worker(DICOMQ_LEASE_S="20")
    pk = own_engine.stage("steps:1")
    own_engine.await_status(pk, TaskStatus.IN_PROCESS)
    own_postgres.stop()
    wait_until(lambda: own_engine.runs()[0].ended, what="the end of the task")
    let_pass(1)
    own_postgres.start()
    done = own_engine.await_status(pk, COMPLETED)
    assert (done.attempt, done.failures) == (1, 0)


def test_start_before_postgresql(own_engine: Engine, own_postgres: Any) -> None:  # noqa: ANN401
    pk = own_engine.stage()
    own_postgres.stop()
    dispatcher = own_engine.start_dispatcher()
    worker = own_engine.start_worker()
    wait_until(lambda: "PostgreSQL cannot be reached" in dispatcher.output())
    own_postgres.start()
    done = own_engine.await_status(pk, COMPLETED)
    assert (done.attempt, done.failures, len(own_engine.runs())) == (1, 0, 1)
    assert all(process.is_alive() for process in (dispatcher, worker))
