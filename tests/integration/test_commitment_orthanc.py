"""Storage commitment with a real archive, in both roles, through whole running processes."""

import signal
from collections.abc import Callable
from pathlib import Path

from archive.ledger import commitments
from archive.ledger.commitments import CommitmentSummary
from archive.model.commitment import Report, ReportedInstance, report_dataset
from tests.fix_objects import generate_studies
from tests.fix_orthanc import Orthanc
from tests.fix_peer import CommitmentScp, StoreScp, send_report
from tests.fix_system import System, device_ldif

SC = "1.2.840.10008.5.1.4.1.1.7"
StartOrthanc = Callable[[int], Orthanc]


def requests(system: System, study: str) -> list[CommitmentSummary]:
    with system.ledger.statement() as tx:
        return commitments.of_study(tx, study)


def wait_for_status(system: System, study: str, status: str) -> CommitmentSummary:
    system.wait_until(
        lambda: any(each.status == status for each in requests(system, study)),
        what=f"the commitment to become {status}",
    )
    return requests(system, study)[-1]


def test_orthanc_commits_to_what_was_exported(
    system: System, orthanc: StartOrthanc, tmp_path: Path
) -> None:
    peer = orthanc(system.port)
    system.start("commit")
    system.export_to(peer.port, title="QRSCP", exporter="ORTHANC", more=["dcmStgCmtSCP: QRSCP"])
    (study,) = generate_studies(tmp_path / "objects", studies=1, series=2, instances=3)
    system.store_all(study.files)
    wait_for_status(system, study.study_instance_uid, "COMPLETED")
    system.wait_until_idle()
    done = wait_for_status(system, study.study_instance_uid, "COMPLETED")
    assert (done.num_instances, done.num_committed, done.reports) == (6, 6, 1)
    assert done.accepted_time is not None
    with system.ledger.statement() as tx:
        rows = tx.execute("SELECT DISTINCT external_retrieve_aet FROM instance").fetchall()
    assert rows == [("QRSCP",)]


def test_orthanc_asks_and_gets_the_report(
    system: System, orthanc: StartOrthanc, tmp_path: Path
) -> None:
    peer = orthanc(system.port)
    system.start("commit")
    system.place_peer("QRSCP", peer.port)
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=2)
    system.store_all(study.files)
    references = [(SC, uid) for uid in study.files]
    answer = peer.commitment(peer.request_commitment(references))
    assert answer["Status"] == "Success"
    assert {each["SOPInstanceUID"] for each in answer["Success"]} == set(study.files)
    answer = peer.commitment(peer.request_commitment([*references, (SC, "1.2.3.4")]))
    assert answer["Status"] == "Failure"
    (failure,) = answer["Failures"]
    assert (failure["SOPInstanceUID"], failure["FailureReason"]) == ("1.2.3.4", 0x0112)


def test_restarts_between_request_and_report_lose_nothing(
    system: System,
    store_scp: Callable[..., StoreScp],
    commitment_scp: Callable[..., CommitmentScp],
    tmp_path: Path,
) -> None:
    destination, commits = store_scp(), commitment_scp()
    system.configure(device_ldif(commits.title, commits.port))
    system.change_queue("StgCmtSCU", "dcmRetryDelay: PT0.2S")
    system.start("commit")
    system.export_to(destination.port, more=[f"dcmStgCmtSCP: {commits.title}"])
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=4)
    system.store_all(study.files)
    (request,) = commits.wait_for(1)
    for name in tuple(system.processes):
        system.kill(name, signal.SIGKILL)
    system.start(*system.processes)
    report = Report(
        request.transaction_uid,
        tuple(
            ReportedInstance(each.sop_class_uid, each.sop_instance_uid)
            for each in request.references
        ),
    )
    assert send_report(system.port, report_dataset(report)) == 0x0000
    system.wait_until_idle()
    done = requests(system, study.study_instance_uid)
    first = next(each for each in done if each.transaction_uid == request.transaction_uid)
    assert (first.status, first.num_committed) == ("COMPLETED", 4)
