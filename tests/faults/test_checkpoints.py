"""Each kind of process ended by each signal at each named step of its work."""

import signal

import pytest

from archive.ledger import tasks
from archive.model.task import TaskStatus
from tests.fix_engine import Engine, overlap
from tests.fix_process import RunningProcess, wait_until
from tests.fix_scp import Site, small_dataset

COMPLETED = TaskStatus.COMPLETED
SIGNALS = ["KILL", "TERM", "INT"]
SOP = "1.2.3.4.1.7"


def await_end(process: RunningProcess, name: str, *, interrupted: int = 0) -> None:
    wait_until(lambda: not process.is_alive(), what=f"the end by SIG{name}")
    statuses = {"KILL": -signal.SIGKILL, "TERM": 0, "INT": interrupted}
    assert process.popen.returncode == statuses[name], process.output()


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("step", ["dispatcher.marked", "dispatcher.published"])
def test_dispatcher(engine: Engine, step: str, name: str) -> None:
    engine.start_worker()
    engine.stage_many(40)
    await_end(engine.celery("dispatcher", DICOMQ_CHECKPOINT=f"{step}:{name}:3"), name)
    engine.start_dispatcher()
    assert engine.await_all_done() == {COMPLETED: 40}
    assert len(engine.runs()) == 40


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(
    "step", ["worker.claimed", "worker.performed", "worker.before-finish", "worker.finished"]
)
def test_worker(engine: Engine, step: str, name: str) -> None:
    engine.start_dispatcher()
    dying = engine.start_worker(DICOMQ_CHECKPOINT=f"{step}:{name}")
    pk = engine.stage()
    await_end(dying, name, interrupted=1)  # Celery's status for it
    engine.start_worker()
    done = engine.await_status(pk, COMPLETED)
    assert done.failures <= (name == "KILL")
    assert overlap(engine.runs()) <= 1
    with engine.ledger.statement() as tx:
        statuses = [each.to_status for each in tasks.history(tx, pk)]
    assert statuses.count(COMPLETED) == 1
    assert statuses[-1] is COMPLETED


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(
    "step", ["scp.object-received", "scp.file-durable", "scp.committed", "scp.before-response"]
)
def test_scp(site: Site, step: str, name: str) -> None:
    dying = site.start(DICOMQ_CHECKPOINT=f"{step}:{name}")
    accepted = False
    with site.peer() as peer:
        peer.associate()
        try:
            accepted = peer.store(SOP, small_dataset(SOP)).status == 0
        except ConnectionError:
            assert name == "KILL"
    await_end(dying, name)
    site.start()
    if accepted:
        assert site.count("instance") == 1
    with site.peer() as peer:
        peer.associate()
        assert peer.store(SOP, small_dataset(SOP)).status == 0
        peer.release()
    assert site.count("instance") == 1
    wait_until(lambda: len(site.files()) == 1, what="files and rows to agree")
