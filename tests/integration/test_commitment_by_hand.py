"""Commitment and notifications without an export, from the command line and as a service."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger import commitments
from archive.model.task import TaskStatus
from tests.fix_commitment import CommitmentBench
from tests.fix_export import exporter, remote_ae
from tests.fix_objects import Study, generate_studies
from tests.fix_orthanc import Orthanc
from tests.fix_peer import CommitmentScp, IanScp, StoreScp
from tests.fix_system import System
from workers.ordering import Entity, Only, Order, Orders

CELERY = str(Path(sys.executable).parent / "celery")


def celery(system: System, line: str) -> str:
    """Give a command as people do and return what it printed."""
    done = subprocess.run(
        [CELERY, "-A", "workers", *line.split()],
        env={**os.environ, **system.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def service(system: System) -> Orders:
    """Return what REST and Flower order with."""
    source = open_source(Settings.from_environment(system.environment))
    return Orders(system.ledger, source, actor="me")


def lose(peer: Orthanc) -> None:
    """Have Orthanc lose one of its instances."""
    lost = peer.get("/instances")[0]
    url = f"http://127.0.0.1:{peer.http_port}/instances/{lost}"
    request = urllib.request.Request(url, method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback


def test_orthanc_is_asked_again_and_gets_what_it_lost(
    system: System, orthanc: Callable[[int], Orthanc], tmp_path: Path
) -> None:
    peer = orthanc(system.port)
    system.start("commit")
    system.export_to(peer.port, title="QRSCP", exporter="ORTHANC", more=["dcmStgCmtSCP: QRSCP"])
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=3)
    uid = study.study_instance_uid
    system.store_all(study.files)

    def requests() -> list[tuple[str, int]]:
        with system.ledger.statement() as tx:
            return [(each.status, each.num_committed) for each in commitments.of_study(tx, uid)]

    system.wait_until(lambda: requests() == [("COMPLETED", 3)], what="the commitment")
    lose(peer)
    assert "1 task scheduled" in celery(system, f"studies export {uid} -e ORTHANC --only-stgcmt")
    system.wait_until(
        lambda: requests() == [("COMPLETED", 3), ("WARNING", 2), ("COMPLETED", 1)],
        what="what was lost to be committed",
    )
    assert len(peer.get("/instances")) == 3
    service(system).place(Order("ORTHANC", only=Only.COMMITMENT), [Entity(uid)])
    system.wait_until(lambda: requests()[3:] == [("COMPLETED", 3)], what="the commitment again")
    system.wait_until_idle()
    assert len(system.tasks("EXPORT")) == 2


@pytest.fixture
def announced(
    system: System,
    store_scp: Callable[..., StoreScp],
    ian_scp: Callable[..., IanScp],
    tmp_path: Path,
) -> tuple[System, Study, IanScp]:
    """A study of two series of two objects, exported and announced."""
    destination, receiver = store_scp(), ian_scp()
    system.export_to(destination.port, ian_port=receiver.port)
    (study,) = generate_studies(tmp_path / "objects", studies=1, series=2, instances=2)
    system.store_all(study.files)
    receiver.wait_for(1)
    system.wait_until_idle()
    return system, study, receiver


def told(receiver: IanScp, count: int) -> set[str]:
    """Return what the latest of so many notifications names."""
    dataset = receiver.wait_for(count)[count - 1].dataset
    return {
        str(sop.ReferencedSOPInstanceUID)
        for series in dataset.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }


def test_notifications_on_demand_for_study_series_and_instance(
    announced: tuple[System, Study, IanScp],
) -> None:
    system, study, receiver = announced
    uid, uids = study.study_instance_uid, set(study.files)
    line = f"studies export {uid} -e STORESCP --only-ian"
    celery(system, line)
    assert told(receiver, 2) == uids
    celery(system, f"{line} --series {uid}.2")
    assert told(receiver, 3) == {f"{uid}.2.1", f"{uid}.2.2"}
    celery(system, f"{line} --series {uid}.2 --instance {uid}.2.1")
    assert told(receiver, 4) == {f"{uid}.2.1"}
    service(system).place(Order("STORESCP", only=Only.IAN), [Entity(uid, f"{uid}.1")])
    assert told(receiver, 5) == {f"{uid}.1.1", f"{uid}.1.2"}
    assert len(system.tasks("EXPORT")) == 1


def test_nothing_delivered_is_nothing_to_ask_for(
    commitment_bench: CommitmentBench,
    commitment_scp: Callable[..., CommitmentScp],
    tmp_path: Path,
) -> None:
    peer, bench = commitment_scp(), commitment_bench.bench
    bench.add(exporter(storage_commitment_scp=peer.title), remote_ae(peer.title, peer.port))
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    for path in study.files.values():
        bench.store(path)
    commitment_bench.by_hand(study.study_instance_uid)
    outcome = commitment_bench.ask()
    assert outcome.status is TaskStatus.COMPLETED
    assert "exporter EXP has delivered nothing of it" in outcome.message
    assert peer.received == []
