"""The network between two processes cut, or silent, in the middle of work: each pair in turn."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine, new_engine, overlap
from tests.fix_process import Spawn, wait_until
from tests.fix_proxy import Proxy, to_port, to_unix
from tests.fix_redis import RedisServer

TASKS = 30
# What a process says once it has noticed that a server is gone.
NOTICED = {
    ("dispatcher", "postgres"): "dispatcher.halted",
    ("dispatcher", "redis"): "dispatcher.halted",
    ("worker", "postgres"): "ledger.unavailable",
    ("worker", "redis"): "worker.without-broker",
}


@dataclass
class Linked:
    """An engine whose processes reach each server through a link of their own."""

    engine: Engine
    connect: Callable[[str], Proxy]

    def start(self, kind: str) -> dict[str, Proxy]:
        """Start a process and return its links by server."""
        links = {server: self.connect(server) for server in ("postgres", "redis")}
        start = {"dispatcher": self.engine.start_dispatcher, "worker": self.engine.start_worker}
        start[kind](
            DATABASE_URL=f"postgresql://postgres@127.0.0.1:{links['postgres'].port}/postgres",
            REDIS_URL=f"redis://127.0.0.1:{links['redis'].port}/0",
        )
        return links


@pytest.fixture
def linked(
    own_postgres: Any,  # noqa: ANN401 - it has no types
    own_redis: RedisServer,
    spawn: Spawn,
    tmp_path: Path,
) -> Iterator[Linked]:
    """Engine without processes."""
    directory = own_postgres.get_postmaster_info().socket_dir
    targets = {
        "postgres": to_unix(f"{directory}/.s.PGSQL.5432"),
        "redis": to_port(own_redis.port),
    }
    url = f"postgresql://postgres@/postgres?host={directory}"
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(url)))
        ledger.migrate()

        def connect(server: str) -> Proxy:
            link = Proxy(targets[server])
            stack.callback(link.close)
            return link

        engine = new_engine(ledger, url, own_redis, spawn=spawn, directory=tmp_path)
        engine.configure({QUEUE: {"dcmMaxTasksParallel": "8", "dcmMaxRetries": "20"}})
        yield Linked(engine, connect)
        for process in engine.processes:  # before their links: else they wait for the servers
            process.stop()


@pytest.mark.parametrize("how", ["cut", "freeze"])
@pytest.mark.parametrize(("kind", "server"), NOTICED)
def test_work_goes_on_when_the_link_is_mended(
    linked: Linked, kind: str, server: str, how: str
) -> None:
    """Every task is completed once, and no two attempts of one run at the same time."""
    engine = linked.engine
    links = {each: linked.start(each) for each in ("dispatcher", "worker")}
    process = engine.processes[-1 if kind == "worker" else 0]
    engine.stage_many(TASKS, "steps:0.4")
    wait_until(lambda: len(engine.runs()) >= 3, what="some tasks to run")
    link = links[kind][server]
    getattr(link, how)()
    if how == "cut":
        wait_until(lambda: NOTICED[kind, server] in process.output(), what="it to be noticed")
    else:
        wait_until(lambda: _is_at_rest(engine), what="the work to come to a stop", deadline_s=60)
    link.mend()
    assert engine.await_all_done(deadline_s=100) == {TaskStatus.COMPLETED: TASKS}
    runs = engine.runs()
    assert all(
        overlap([run for run in runs if run.task_pk == pk]) == 1
        for pk in Counter(run.task_pk for run in runs)
    )
    with engine.ledger.statement() as tx:
        rows = tx.execute("SELECT count(*) FROM task_history WHERE to_status = 'COMPLETED'")
        assert rows.fetchone() == (TASKS,)


def _is_at_rest(engine: Engine) -> bool:
    """Tell whether nothing runs, or everything that could run is done."""
    return all(run.ended is not None for run in engine.runs())
