"""Each kind of process ended by each signal at each named step of its work."""

import signal

import pytest

from archive.ledger import commitments, tasks
from archive.model.commitment import Report, ReportedInstance, SopReference, report_dataset
from archive.model.task import CommitmentDetails, NewTask, TaskKind, TaskStatus
from tests.fix_engine import Engine, overlap
from tests.fix_peer import CommitmentScu, send_report
from tests.fix_process import RunningProcess, free_port, wait_until
from tests.fix_scp import SECONDARY_CAPTURE, Site, small_dataset
from tests.fix_system import DEVICES, port_change

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


@pytest.fixture
def reporting(site: Site) -> Site:
    """A site whose directory says where STORESCP takes reports."""
    site.configure(port_change(f"cn=dicom,dicomDeviceName=storescp,{DEVICES}", free_port()))
    return site


def test_scp_killed_before_it_answers_a_request_for_commitment(reporting: Site) -> None:
    dying = reporting.start(DICOMQ_CHECKPOINT="scp.commitment-requested:KILL")
    scu, references = CommitmentScu("STORESCP"), [SopReference(SECONDARY_CAPTURE, SOP)]
    assert scu.ask(reporting.port, references, "1.2.3") is None
    await_end(dying, "KILL")
    reporting.start()
    assert scu.ask(reporting.port, references, "1.2.4") == 0x0000
    with reporting.ledger.statement() as tx:
        rows = tx.execute("SELECT transaction_uid FROM stgcmt_scp_task ORDER BY task_fk").fetchall()
    assert rows == [("1.2.3",), ("1.2.4",)]  # both are reported, the requester may ignore one


def test_scp_killed_before_it_answers_a_report(site: Site) -> None:
    dying = site.start(DICOMQ_CHECKPOINT="scp.commitment-reported:KILL")
    with site.peer() as peer:
        peer.associate()
        assert peer.store(SOP, small_dataset(SOP)).status == 0
        peer.release()
    new = NewTask(
        *(TaskKind.STGCMT_SCU, "StgCmtSCU", "dcm4chee-arc", "DCM4CHEE", "STGCMTSCP", "1.2.3.4"),
        commitment=CommitmentDetails(),
    )
    with site.ledger.transaction() as tx:
        task = tasks.get(tx, tasks.stage(tx, new, actor="test"))
        instances = commitments.to_request(tx, task)
        commitments.open_request(tx, task, "1.2.9", instances=instances, rung=1, retrieve_aet=None)
    report = report_dataset(Report("1.2.9", (ReportedInstance(SECONDARY_CAPTURE, SOP),)))
    assert send_report(site.port, report) is None
    await_end(dying, "KILL")
    site.start()
    assert send_report(site.port, report) == 0x0000
    with site.ledger.statement() as tx:
        (found,) = commitments.of_study(tx, "1.2.3.4")
    assert (found.status, found.num_committed, found.reports) == ("COMPLETED", 1, 2)
