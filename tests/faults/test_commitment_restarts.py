"""Every kind of process killed between an N-ACTION and its N-EVENT-REPORT, in both roles."""

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from archive.errors import LedgerError
from archive.ledger import commitments, gates
from archive.ledger.connection import Ledger
from archive.ledger.gates import Gate
from archive.model.commitment import SopReference, report_dataset
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import CommitmentScp, CommitmentScu, StoreScp, echo, send_report
from tests.fix_process import start_process, wait_until
from tests.fix_system import ARCHIVE, DEVICES, System, device_ldif, port_change

SC = "1.2.840.10008.5.1.4.1.1.7"
DEVICE = "dcm4chee-arc"
SCP_QUEUE = Gate(DEVICE, "StgCmtSCP")


@pytest.fixture
def ledger_url(own_postgres: Any) -> str:  # noqa: ANN401 - it has no types
    """The ledger lies on a PostgreSQL that the test kills."""
    url = f"postgresql://postgres@/postgres?host={own_postgres.get_postmaster_info().socket_dir}"
    with closing(Ledger(url)) as ledger:
        ledger.migrate()
    return url


class Scene:
    """One request that we sent and one that we took, neither reported yet."""

    def __init__(self, system: System, postgres: Any, study: Study) -> None:  # noqa: ANN401
        self.system = system
        self.postgres = postgres
        self.study = study

    def pause_reports(self) -> None:
        """Have what is asked of us wait."""
        with self.system.ledger.transaction() as tx:
            gates.pause_queue(tx, SCP_QUEUE, actor="test", reason="test")

    def resume_reports(self) -> None:
        """Have it done."""
        with self.system.ledger.transaction() as tx:
            gates.resume_queue(tx, SCP_QUEUE)

    def kill(self, victim: str) -> None:
        """Kill a process and start it anew."""
        if victim == "redis":
            self.system.redis.kill()
            self.system.redis.start()
        elif victim == "postgres":
            kill_all(psutil.Process(self.postgres.get_postmaster_info().pid))
            self.postgres.start()
            wait_until(self._answers, what="PostgreSQL to answer")
        else:
            for name in [each for each in self.system.processes if each.startswith(victim)]:
                self.system.kill(name, signal.SIGKILL)
                self.system.restart(name)
            wait_until(lambda: echo(self.system.port), what="a C-ECHO of DCM4CHEE")

    def _answers(self) -> bool:
        try:
            return bool(self.system.tasks())
        except LedgerError:
            return False


def kill_all(postmaster: psutil.Process) -> None:
    """Kill PostgreSQL and wait until nothing of it is left."""
    family = [*postmaster.children(recursive=True), postmaster]
    postmaster.kill()
    for each in family:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


@pytest.fixture
def scene(system: System, own_postgres: Any, tmp_path: Path) -> Scene:  # noqa: ANN401
    """A running system with a worker for commitment."""
    system.start("commit")
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=4)
    return Scene(system, own_postgres, study)


@pytest.mark.parametrize("victim", ["scp", "dispatcher", "commit", "postgres", "redis"])
def test_nothing_is_lost_between_request_and_report(
    scene: Scene,
    victim: str,
    store_scp: Callable[..., StoreScp],
    commitment_scp: Callable[..., CommitmentScp],
    commitment_scu: Callable[..., CommitmentScu],
) -> None:
    system, study = scene.system, scene.study
    destination, keeper, modality = store_scp(), commitment_scp(), commitment_scu("QRSCP")
    system.configure(
        device_ldif(keeper.title, keeper.port),
        port_change(f"cn=dicom,dicomDeviceName=dcmqrscp,{DEVICES}", modality.port),
    )
    system.export_to(destination.port, more=[f"dcmStgCmtSCP: {keeper.title}"])
    system.store_all(study.files)
    (request,) = keeper.wait_for(1)
    scene.pause_reports()
    references = [SopReference(SC, uid) for uid in study.files]
    assert modality.ask(system.port, references, "1.2.3.4") == 0x0000

    scene.kill(victim)

    scene.resume_reports()
    assert send_report(system.port, report_dataset(request.report())) == 0x0000
    ((event_type, report),) = modality.wait_for(1)
    assert (event_type, report.transaction_uid, report.failures) == (1, "1.2.3.4", 0)
    assert len(report.instances) == 4
    system.wait_until_idle()
    with system.ledger.statement() as tx:
        (done,) = commitments.of_study(tx, study.study_instance_uid)
    assert (done.transaction_uid, done.status) == (request.transaction_uid, "COMPLETED")
    assert (done.num_committed, done.accepted_time is not None) == (4, True)
    assert {task.status for task in system.tasks()} == {"COMPLETED"}


@pytest.mark.parametrize(
    ("step", "requests"), [("commitment.opened", 1), ("commitment.answered", 2)]
)
def test_worker_killed_before_and_after_the_request(
    system: System,
    step: str,
    requests: int,
    store_scp: Callable[..., StoreScp],
    commitment_scp: Callable[..., CommitmentScp],
    tmp_path: Path,
) -> None:
    destination, keeper = store_scp(), commitment_scp()
    queue = f"dn: dcmQueueName=StgCmtSCU,{ARCHIVE}\nchangetype: modify\nreplace: dcmRetryDelay\n"
    system.configure(device_ldif(keeper.title, keeper.port), f"{queue}dcmRetryDelay: PT0.1S\n")
    command, _ = system._commands()["commit"]  # noqa: SLF001 - started with a variable of its own
    environment = {**system.environment, "DICOMQ_CHECKPOINT": f"{step}:KILL"}
    dying = start_process(command, log=tmp_path / "dying.log", env=environment)
    system.export_to(destination.port, more=[f"dcmStgCmtSCP: {keeper.title}"])
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=2)
    system.store_all(study.files)
    wait_until(lambda: not dying.is_alive(), deadline_s=60, what="the worker's end")
    system.start("commit")
    received = keeper.wait_for(requests)
    system.wait_until_idle()
    assert len({each.transaction_uid for each in received}) == len(keeper.received) == requests
    for each in received:
        assert send_report(system.port, report_dataset(each.report())) == 0x0000
    with system.ledger.statement() as tx:
        found = commitments.of_study(tx, study.study_instance_uid)
    by_uid = {each.transaction_uid: each.status for each in found}
    assert {by_uid[each.transaction_uid] for each in received} == {"COMPLETED"}
    assert found[-1].accepted_time is not None
    assert {task.status for task in system.tasks()} == {"COMPLETED"}
