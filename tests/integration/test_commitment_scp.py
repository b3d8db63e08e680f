"""Commitment asked of this archive: checks of the request, verification, and the report."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.tag import Tag
from pynetdicom import AE

from archive.configuration.descriptors import VerificationPolicy
from archive.errors import PeerUnreachableError
from archive.ledger import tasks, verifications
from archive.ledger.verifications import Verification
from archive.model.commitment import (
    WELL_KNOWN_INSTANCE,
    FailureReason,
    Report,
    ReportedInstance,
    SopReference,
    report_dataset,
    request_dataset,
)
from archive.model.commitment_terms import CommitmentTerms
from archive.model.identifiers import new_uid
from archive.model.task import Failure, Outcome, Task, TaskKind, TaskStatus
from tests.fix_commitment import CommitmentBench
from tests.fix_export import DEVICE, ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import generate_studies
from tests.fix_peer import CommitmentScp, CommitmentScu, StoreScp, send_report
from tests.fix_process import free_port
from tests.fix_scp import Site
from tests.fix_system import DEVICES, port_change
from workers.commitment_report import ReportProcessor, RoleRefusedError

SC = "1.2.840.10008.5.1.4.1.1.7"
COMMITMENT = "1.2.840.10008.1.20.1"
StartScu = Callable[..., CommitmentScu]


@pytest.fixture
def stored(
    bench: ExportBench, tmp_path: Path
) -> tuple[ExportBench, list[SopReference], list[Path]]:
    """A bench with three objects, their references and where their files lie."""
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=3)
    paths = [bench.path_of(bench.store(path)) for path in study.files.values()]
    return bench, [SopReference(SC, uid) for uid in study.files], paths


Stored = tuple[ExportBench, list[SopReference], list[Path]]


def verify(bench: ExportBench, references: Sequence[SopReference], uid: str = "1.2.3") -> Outcome:
    """Verify and report to MODALITY, as the worker does."""
    with bench.ledger.transaction() as tx:
        verifications.stage_verification(
            tx,
            Verification(uid, tuple(references)),
            device_name=DEVICE,
            queue_name="StgCmtSCP",
            local_aet="DCM4CHEE",
            remote_aet="MODALITY",
        )
    return ReportProcessor().perform(_claimed(bench), bench.context())


def _claimed(bench: ExportBench) -> Task:
    with bench.ledger.transaction() as tx:
        hints = tasks.dispatch(tx, DEVICE, "StgCmtSCP", 1000)
    with bench.ledger.transaction() as tx:
        task = tasks.claim(tx, hints[-1], worker="test", lease_s=60)
    assert task is not None
    assert task.kind is TaskKind.STGCMT_SCP
    return task


def reasons(peer: CommitmentScu) -> list[int | None]:
    return [each.failure_reason for each in peer.wait_for(1)[-1][1].instances]


def test_all_committed(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu()
    bench.add(remote_ae("MODALITY", peer.port))
    outcome = verify(bench, references, "1.2.3.4")
    assert outcome.status is TaskStatus.COMPLETED
    ((event_type, report),) = peer.reports
    assert event_type == 1
    assert report.transaction_uid == "1.2.3.4"
    assert [each.sop_instance_uid for each in report.instances] == [
        each.sop_instance_uid for each in references
    ]
    assert {each.retrieve_aet for each in report.instances} == {"DCM4CHEE"}


def test_each_failure_has_its_reason(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, paths = stored
    peer = commitment_scu()
    bench.add(remote_ae("MODALITY", peer.port))
    paths[0].unlink()
    wrong_class = SopReference("1.2.840.10008.5.1.4.1.1.2", references[1].sop_instance_uid)
    asked = [references[0], wrong_class, references[2], SopReference(SC, "1.2.3.4.5")]
    outcome = verify(bench, asked)
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert peer.reports[0][0] == 2
    found = {each.sop_instance_uid: each.failure_reason for each in peer.reports[0][1].instances}
    assert [found[each.sop_instance_uid] for each in asked] == [0x0110, 0x0119, None, 0x0112]


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0\0")


def _other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "noticed_from"),
    [(Path.unlink, 1), (_longer, 2), (_other_bytes, 4)],
)
@pytest.mark.parametrize("policy", VerificationPolicy)
def test_policies(
    stored: Stored,
    commitment_scu: StartScu,
    policy: VerificationPolicy,
    harm: Callable[[Path], None],
    noticed_from: int,
) -> None:
    bench, references, paths = stored
    peer = commitment_scu()
    bench.add(remote_ae("MODALITY", peer.port), local_ae(storage_verification_policy=policy))
    harm(paths[0])
    verify(bench, references[:1])
    level = list(VerificationPolicy).index(policy)
    noticed = level >= noticed_from
    assert reasons(peer) == [FailureReason.PROCESSING_FAILURE if noticed else None]


def test_purged_here_and_kept_elsewhere(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu()
    bench.add(remote_ae("MODALITY", peer.port))
    with bench.ledger.statement() as tx:
        tx.execute("DELETE FROM location")
        tx.execute("UPDATE instance SET external_retrieve_aet = 'VNA' WHERE pk = 1")
    verify(bench, references)
    assert reasons(peer) == [None, 0x0110, 0x0110]
    assert peer.reports[0][1].instances[0].retrieve_aet == "VNA"


def test_proxy_commits_only_what_is_committed_downstream(
    commitment_bench: CommitmentBench,
    commitment_scu: StartScu,
    commitment_scp: Callable[..., CommitmentScp],
    store_scp: Callable[..., StoreScp],
    stored: Stored,
) -> None:
    bench, references, _ = stored
    peer, downstream, destination = commitment_scu(), commitment_scp(), store_scp()
    bench.add(
        remote_ae("MODALITY", peer.port),
        remote_ae("STGCMTSCP", downstream.port),
        remote_ae("STORESCP", destination.port),
        local_ae(commitment_terms=CommitmentTerms(("EXP",))),
        exporter(
            storage_commitment_scp="STGCMTSCP", properties=(("StgCmtSameAssociation", "PT0S"),)
        ),
    )
    verify(bench, references)
    assert reasons(peer) == [0x0110] * 3
    commitment_bench.export("1.2.826.0.1.9.1")
    commitment_bench.ask()
    commitment_bench.report(downstream.received[0].report([None, 0x0112, None]))
    verify(bench, references)
    report = peer.reports[-1][1]
    found = {each.sop_instance_uid: each.failure_reason for each in report.instances}
    assert [found[each.sop_instance_uid] for each in references] == [None, 0x0110, None]


def test_only_copies_on_certain_storages_count(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu()
    bench.add(
        remote_ae("MODALITY", peer.port), local_ae(storage_verification_storage_ids=("nearline",))
    )
    verify(bench, references[:1])
    assert reasons(peer) == [0x0110]
    bench.add(local_ae(storage_verification_storage_ids=("nearline", "fs1")))
    verify(bench, references[:1])
    assert peer.reports[-1][1].failures == 0


def test_rejected_instances_are_not_committed(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu()
    bench.add(remote_ae("MODALITY", peer.port))
    with bench.ledger.statement() as tx:
        tx.execute(
            "UPDATE instance SET rejected_series_fk = series_fk, series_fk = NULL WHERE pk = 1"
        )
    verify(bench, references)
    assert sorted(map(str, reasons(peer))) == [str(0x0112), "None", "None"]


def test_unreachable_requester_is_tried_again(stored: Stored) -> None:
    bench, references, _ = stored
    bench.add(remote_ae("MODALITY", free_port()))
    with pytest.raises(PeerUnreachableError) as caught:
        verify(bench, references)
    assert caught.value.retryable


def test_response_to_the_report_is_checked(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu(status=lambda _event: 0x0110)
    bench.add(remote_ae("MODALITY", peer.port))
    outcome = verify(bench, references)
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert "0110" in outcome.message


def test_role_not_taken(stored: Stored, commitment_scu: StartScu) -> None:
    bench, references, _ = stored
    peer = commitment_scu(role=False)
    bench.add(remote_ae("MODALITY", peer.port))
    with pytest.raises(RoleRefusedError, match="dcmRoleSelectionNegotiationLenient"):
        verify(bench, references)
    bench.add(local_ae(role_selection_negotiation_lenient=True))
    assert verify(bench, references).status is TaskStatus.COMPLETED


# --- the listening side


@pytest.fixture
def reachable(site: Site) -> Site:
    """A running SCP whose directory knows where STORESCP listens."""
    site.configure(port_change(f"cn=dicom,dicomDeviceName=storescp,{DEVICES}", free_port()))
    site.start()
    return site


def _without(keyword: str) -> Dataset:
    dataset = request_dataset(new_uid(), [SopReference(SC, "1.2.3")])
    delattr(dataset, keyword)
    return dataset


def _without_instance() -> Dataset:
    dataset = request_dataset(new_uid(), [SopReference(SC, "1.2.3")])
    del dataset.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    return dataset


@pytest.mark.parametrize(
    ("sender", "how", "status"),
    [
        ("STORESCP", {}, 0x0000),
        ("STORESCP", {"action_type": 2}, 0x0123),
        ("STORESCP", {"dataset": _without("TransactionUID")}, 0x0115),
        ("STORESCP", {"dataset": _without("ReferencedSOPSequence")}, 0x0115),
        ("STORESCP", {"dataset": _without_instance()}, 0x0115),
        ("NOBODY", {}, 0x0110),
        ("STORESCU", {}, 0x0110),
    ],
    ids=["good", "action", "transaction", "sequence", "instance", "unknown AE", "no port"],
)
def test_checks_of_the_request(
    reachable: Site, sender: str, how: dict[str, Any], status: int
) -> None:
    scu = CommitmentScu(sender)
    answered = scu.ask(reachable.port, [SopReference(SC, "1.2.3")], new_uid(), **how)
    assert answered == status
    assert reachable.count("stgcmt_scp_task") == (1 if status == 0 else 0)


@pytest.mark.parametrize("role", [True, False], ids=["role selection", "no role selection"])
def test_reports_are_taken_on_new_associations(scp: Site, role: bool) -> None:
    report = Report("1.2.3.4", (ReportedInstance(SC, "1.2.3"),))
    assert send_report(scp.port, report_dataset(report), role=role) == 0x0000
    assert "unknown transaction" in scp.log()


def test_what_cannot_be_recorded_is_answered_so(reachable: Site) -> None:
    report = report_dataset(Report("1.2.3.4", (ReportedInstance(SC, "1.2.3"),)))
    with reachable.ledger.statement() as tx:
        tx.execute("ALTER TABLE commitment RENAME TO gone")
    assert send_report(reachable.port, report) == 0x0110
    with reachable.ledger.statement() as tx:
        tx.execute("ALTER TABLE gone RENAME TO commitment")
        tx.execute("ALTER TABLE stgcmt_scp_task RENAME TO gone")
    scu = CommitmentScu("STORESCP")
    assert scu.ask(reachable.port, [SopReference(SC, "1.2.3")], "1.2.3.5") == 0x0110
    with reachable.ledger.statement() as tx:
        tx.execute("ALTER TABLE gone RENAME TO stgcmt_scp_task")
    assert send_report(reachable.port, report) == 0x0000
    assert scu.ask(reachable.port, [SopReference(SC, "1.2.3")], "1.2.3.5") == 0x0000
    assert reachable.count("task") == 1


def test_report_without_transaction_is_refused(scp: Site) -> None:
    assert send_report(scp.port, _without("TransactionUID")) == 0x0115


def test_many_requests_at_once(reachable: Site) -> None:
    answers: list[int | None] = []

    def ask() -> None:
        scu = CommitmentScu("STORESCP")
        answers.append(scu.ask(reachable.port, [SopReference(SC, "1.2.3")], new_uid()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 8
    assert reachable.count("stgcmt_scp_task") == 8


def test_other_operations_are_not_recognized(scp: Site) -> None:
    ae = AE("STORESCP")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(COMMITMENT)
    association = ae.associate("127.0.0.1", scp.port, ae_title="DCM4CHEE")
    status, _ = association.send_n_get([Tag(0x00081195)], COMMITMENT, WELL_KNOWN_INSTANCE)
    assert status.Status == 0x0211
    status, _ = association.send_n_set(_without("TransactionUID"), COMMITMENT, WELL_KNOWN_INSTANCE)
    assert status.Status == 0x0211
    assert association.is_established
    association.release()
