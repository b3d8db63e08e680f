"""Requests for commitment, their reports in every order, and the ladder when they do not come."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from pynetdicom.association import Association
from pynetdicom.events import Event

from archive.errors import AssociationAbortedError, PeerError
from archive.ledger import commitments, measures
from archive.model.commitment import (
    FailureReason,
    Report,
    read_report,
    read_request,
    report_dataset,
)
from archive.model.identifiers import new_uid
from archive.model.task import Failure, TaskKind, TaskStatus
from tests.fix_commitment import CommitmentBench
from tests.fix_export import exporter, remote_ae
from tests.fix_objects import generate_studies
from tests.fix_peer import CommitmentScp, ReceivedRequest, StoreScp, report_on
from tests.fix_process import wait_until

StartScp = Callable[..., CommitmentScp]
StartStoreScp = Callable[..., StoreScp]


@pytest.fixture
def archive(
    commitment_bench: CommitmentBench,
    store_scp: StartStoreScp,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[CommitmentBench, str, StoreScp]:
    """A bench with a study of four objects, its UID, and the destination of exporter EXP."""
    destination = store_scp()
    bench = commitment_bench.bench
    bench.add(remote_ae("STORESCP", destination.port))
    (study,) = generate_studies(
        tmp_path_factory.mktemp("objects"), studies=1, series=2, instances=2
    )
    for path in study.files.values():
        bench.store(path)
    return commitment_bench, study.study_instance_uid, destination


Archive = tuple[CommitmentBench, str, StoreScp]


def configure(
    archive: Archive, peer: CommitmentScp, *properties: tuple[str, str], **more: tuple[str, ...]
) -> None:
    bench = archive[0].bench
    known = {"StgCmtSameAssociation": "PT0S", **dict(properties)}
    bench.add(
        exporter(
            "STORESCP",
            storage_commitment_scp=peer.title,
            properties=tuple(known.items()),
            **more,
        ),
        remote_ae(peer.title, peer.port),
    )


def asked(
    archive: Archive, start: StartScp, *properties: tuple[str, str], **more: tuple[str, ...]
) -> tuple[CommitmentBench, str, CommitmentScp]:
    """Export the study and ask a new SCP for its commitment."""
    bench, study, _ = archive
    peer = start()
    configure(archive, peer, *properties, **more)
    bench.export(study)
    bench.ask()
    return bench, study, peer


def test_asks_for_exactly_what_was_delivered(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, destination = archive
    peer = commitment_scp()
    configure(archive, peer)
    destination._status = lambda event: (  # noqa: SLF001 - the fixture's own switch
        0xC000 if str(event.request.AffectedSOPInstanceUID).endswith(".2.2") else 0
    )
    assert bench.export(study).status is TaskStatus.WARNING
    assert bench.waiting() == []
    destination._status = lambda _event: 0  # noqa: SLF001
    assert bench.export(study).status is TaskStatus.COMPLETED
    assert bench.waiting() == [("STGCMT_SCU", "STGCMTSCP")]
    outcome = bench.ask()
    assert outcome.status is TaskStatus.COMPLETED
    (request,) = peer.received
    assert request.calling_aet == "DCM4CHEE"
    assert not request.role_proposed
    held = {each.sop_instance_uid for each in bench.bench.held(study)}
    assert {each.sop_instance_uid for each in request.references} == held
    assert len(held) == 4
    (found,) = bench.commitments(study)
    assert (found.status, found.transaction_uid) == ("PENDING", request.transaction_uid)


def test_good_report_completes_and_records_where_it_is(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, _, peer = asked(archive, commitment_scp)
    recorded = bench.report(peer.received[0].report())
    assert recorded is not None
    assert (recorded.status, recorded.num_committed, recorded.late) == ("COMPLETED", 4, False)
    with bench.bench.ledger.statement() as tx:
        rows = tx.execute("SELECT DISTINCT external_retrieve_aet FROM instance").fetchall()
    assert rows == [("STGCMTSCP",)]
    assert bench.look() == 0


@pytest.mark.parametrize(
    ("exporters", "item", "root", "recorded"),
    [
        (("VNA", "OTHER"), "ITEM", "ROOT", "VNA"),
        ((), "ITEM", "ROOT", "ITEM"),
        ((), None, "ROOT", "ROOT"),
        ((), None, None, "STGCMTSCP"),
    ],
    ids=["exporter", "item", "whole report", "commitment SCP"],
)
def test_where_committed_instances_can_be_retrieved(
    archive: Archive,
    commitment_scp: StartScp,
    exporters: tuple[str, ...],
    item: str | None,
    root: str | None,
    recorded: str,
) -> None:
    bench, _, peer = asked(archive, commitment_scp, retrieve_aets=exporters)
    dataset = report_dataset(peer.received[0].report())
    if root:
        dataset.RetrieveAETitle = root
    for each in dataset.ReferencedSOPSequence:
        if item:
            each.RetrieveAETitle = item
    bench.report(read_report(dataset))
    with bench.bench.ledger.statement() as tx:
        rows = tx.execute("SELECT DISTINCT external_retrieve_aet FROM instance").fetchall()
    assert rows == [(recorded,)]


def test_export_of_a_series_asks_for_that_series(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = archive
    peer = commitment_scp()
    configure(archive, peer)
    bench.export(study, series_instance_uid=f"{study}.2")
    bench.ask()
    uids = [each.sop_instance_uid for each in peer.received[0].references]
    assert uids == [f"{study}.2.1", f"{study}.2.2"]


def test_report_on_an_object_that_was_replaced_does_not_count_for_the_new_one(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    with bench.bench.ledger.statement() as tx:
        tx.execute("UPDATE instance SET version = version + 1 WHERE pk = 1")
    recorded = bench.report(peer.received[0].report())
    assert recorded is not None
    assert recorded.status == "COMPLETED"
    with bench.bench.ledger.statement() as tx:
        rows = tx.execute("SELECT external_retrieve_aet FROM instance ORDER BY pk").fetchall()
    assert rows == [(None,), *[("STGCMTSCP",)] * 3]
    bench.by_hand(study, held_by=None)
    bench.ask()
    assert len(peer.received[1].references) == 4


def test_what_the_scp_said_last_holds(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, peer = asked(archive, commitment_scp)
    destination = archive[2]
    bench.report(peer.received[0].report())
    bench.by_hand(study)
    bench.ask()
    lost = [FailureReason.NO_SUCH_OBJECT_INSTANCE, None, None, None]
    bench.report(peer.received[1].report(lost))
    assert bench.look() == 1
    bench.run(TaskKind.EXPORT, "Export")
    missing = peer.received[1].references[0].sop_instance_uid
    assert destination.received_uids()[4:] == [missing]
    bench.ask()
    assert [each.sop_instance_uid for each in peer.received[2].references] == [missing]
    bench.report(peer.received[2].report())
    assert [each.status for each in bench.commitments(study)] == [
        "COMPLETED",
        "WARNING",
        "COMPLETED",
    ]
    assert bench.look() == 0


def test_what_is_rejected_meanwhile_is_not_followed_up(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    with bench.bench.ledger.statement() as tx:
        tx.execute("UPDATE instance SET rejected_series_fk = series_fk, series_fk = NULL")
    assert bench.look() == 1
    assert bench.waiting() == []
    assert [each.status for each in bench.commitments(study)] == ["COMPLETED"]


def test_report_on_the_same_association(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, _ = archive
    statuses: list[int | None] = []

    def report(association: Association, request: ReceivedRequest) -> None:
        statuses.append(report_on(association, request.report()))

    peer = commitment_scp(then=report)
    configure(archive, peer, ("StgCmtSameAssociation", "PT20S"))
    bench.export(study)
    bench.ask()
    wait_until(lambda: statuses, what="the response to the report")
    assert statuses == [0x0000]
    assert bench.commitments(study)[0].status == "COMPLETED"


def test_report_before_the_response_to_the_request(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = archive
    statuses: list[int | None] = []

    def report_first(event: Event) -> int:
        uid, references = read_request(event.action_information)
        request = ReceivedRequest(uid, references, "", role_proposed=False)
        statuses.append(report_on(event.assoc, request.report()))
        return 0

    configure(archive, commitment_scp(status=report_first))
    bench.export(study)
    assert bench.ask().status is TaskStatus.COMPLETED
    assert statuses == [0x0000]
    (found,) = bench.commitments(study)
    assert (found.status, found.deadline) == ("COMPLETED", None)


def test_reports_twice(archive: Archive, commitment_scp: StartScp) -> None:
    bench, _, peer = asked(archive, commitment_scp)
    report = peer.received[0].report()
    bench.report(report)
    again = bench.report(report)
    assert again is not None
    assert (again.late, again.newly_committed, again.status) == (True, 0, "COMPLETED")


def test_unknown_transaction(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, _ = archive
    configure(archive, commitment_scp())
    bench.export(study)
    bench.ask()
    assert bench.report(Report(new_uid(), ())) is None
    assert bench.commitments(study)[0].status == "PENDING"


def test_partial_report_keeps_the_request_open(archive: Archive, commitment_scp: StartScp) -> None:
    bench, _, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    whole = peer.received[0].report()
    recorded = bench.report(Report(whole.transaction_uid, whole.instances[:3]))
    assert recorded is not None
    assert (recorded.status, recorded.num_committed) == ("PENDING", 3)
    assert bench.look() == 1
    bench.ask()
    second = peer.received[1]
    assert second.transaction_uid != whole.transaction_uid
    assert [each.sop_instance_uid for each in second.references] == [
        whole.instances[3].sop_instance_uid
    ]


def test_never_reported_goes_up_the_whole_ladder(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    destination = archive[2]
    assert bench.look() == 1
    assert bench.waiting() == [("STGCMT_SCU", "STGCMTSCP")]
    bench.ask()
    assert bench.look() == 1
    assert bench.waiting() == [("EXPORT", "STORESCP")]
    bench.run(TaskKind.EXPORT, "Export")
    assert len(destination.received) == 8
    bench.ask()
    assert bench.look() == 1
    outcome = bench.ask()
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.PERMANENT)
    assert "not reported: 4" in outcome.message
    assert bench.status_of(TaskKind.STGCMT_SCU) is TaskStatus.FAILED
    assert bench.look() == 0
    requests = peer.received
    assert len({each.transaction_uid for each in requests}) == len(requests) == 3
    assert [each.rung for each in bench.commitments(study)] == [1, 2, 3]
    assert overdue(bench) == [("STGCMTSCP", 0, 0.0, 3)]
    with bench.bench.ledger.statement() as tx:
        assert commitments.gauges(tx, "dcm4chee-arc").given_up == 1


def overdue(bench: CommitmentBench) -> list[tuple[str, int, float, int]]:
    """Return what the metrics tell of open and overdue requests."""
    with bench.bench.ledger.statement() as tx:
        found = measures.open_commitments(tx, "dcm4chee-arc")
    return [(each.remote_aet, each.count, each.oldest_s, each.overdue) for each in found]


def test_what_metrics_tell_of_a_request(archive: Archive, commitment_scp: StartScp) -> None:
    bench, _, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    ((title, waiting, age_s, late),) = overdue(bench)
    assert (title, waiting, late) == ("STGCMTSCP", 1, 0)
    assert 0 < age_s < 600
    bench.look()
    assert overdue(bench) == [("STGCMTSCP", 0, 0.0, 1)]
    bench.report(peer.received[0].report())
    assert overdue(bench) == []


def test_late_report_still_counts(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    bench.look()
    bench.ask()
    recorded = bench.report(peer.received[0].report())
    assert recorded is not None
    assert (recorded.late, recorded.status) == (True, "COMPLETED")
    assert bench.look() == 1
    assert bench.waiting() == []
    assert [each.status for each in bench.commitments(study)] == ["COMPLETED", "COMPLETED"]


@pytest.mark.parametrize(
    ("reason", "next_kind"),
    [
        (FailureReason.PROCESSING_FAILURE, "STGCMT_SCU"),
        (FailureReason.NO_SUCH_OBJECT_INSTANCE, "EXPORT"),
        (FailureReason.RESOURCE_LIMITATION, "STGCMT_SCU"),
        (FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED, "STGCMT_SCU"),
        (FailureReason.CLASS_INSTANCE_CONFLICT, "STGCMT_SCU"),
        (FailureReason.DUPLICATE_TRANSACTION_UID, "STGCMT_SCU"),
    ],
)
def test_all_failed_is_a_result(
    archive: Archive, commitment_scp: StartScp, reason: FailureReason, next_kind: str
) -> None:
    bench, _, peer = asked(archive, commitment_scp, ("StgCmtDeadline", "PT0S"))
    recorded = bench.report(peer.received[0].report([reason] * 4))
    assert recorded is not None
    assert (recorded.status, recorded.num_failed) == ("FAILED", 4)
    assert bench.look() == 1
    assert [kind for kind, _ in bench.waiting()] == [next_kind]
    hopeless = {
        FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED,
        FailureReason.CLASS_INSTANCE_CONFLICT,
    }
    if reason in hopeless:
        assert bench.ask().status is TaskStatus.FAILED
        assert len(peer.received) == 1


def test_only_what_is_missing_there_is_sent_again(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, _, peer = asked(archive, commitment_scp)
    destination = archive[2]
    reasons = [None, FailureReason.NO_SUCH_OBJECT_INSTANCE, None, None]
    recorded = bench.report(peer.received[0].report(reasons))
    assert recorded is not None
    assert recorded.status == "WARNING"
    assert bench.look() == 1
    bench.run(TaskKind.EXPORT, "Export")
    missing = peer.received[0].references[1].sop_instance_uid
    assert destination.received_uids()[4:] == [missing]
    bench.ask()
    assert [each.sop_instance_uid for each in peer.received[1].references] == [missing]
    bench.report(peer.received[1].report())
    assert bench.look() == 0


def test_large_studies_are_split(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, _ = archive
    peer = commitment_scp()
    configure(archive, peer, ("StgCmtMaxInstances", "3"))
    bench.export(study)
    outcome = bench.ask()
    assert "requested:4 transactions:2" in outcome.message
    assert [len(each.references) for each in peer.received] == [3, 1]


@pytest.mark.parametrize(
    ("code", "failure"),
    [(0x0110, Failure.TRANSIENT), (0x0213, Failure.TRANSIENT), (0x0124, Failure.PERMANENT)],
)
def test_refused_request_is_forgotten(
    archive: Archive, commitment_scp: StartScp, code: int, failure: Failure
) -> None:
    bench, study, _ = archive
    configure(archive, commitment_scp(status=lambda _event: code))
    bench.export(study)
    outcome = bench.ask()
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, failure)
    assert f"{code:04X}" in outcome.message
    assert bench.commitments(study) == []


def test_abort_after_the_request_leaves_it_open_for_its_report(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = archive

    def abort(event: object) -> int:
        event.assoc.abort()  # type: ignore[attr-defined]
        return 0

    peer = commitment_scp(status=abort)
    configure(archive, peer)
    bench.export(study)
    with pytest.raises(PeerError) as raised:
        bench.ask()
    assert isinstance(raised.value, AssociationAbortedError)
    (found,) = bench.commitments(study)
    assert (found.accepted_time, found.deadline) == (None, None)
    recorded = bench.report(peer.received[0].report())
    assert recorded is not None
    assert recorded.status == "COMPLETED"
    bench.by_hand(study)
    bench.ask_again(PeerError)
    bench.ask_again(PeerError)
    assert [each.status for each in bench.commitments(study)] == ["COMPLETED", "FAILED", "PENDING"]


def test_notification_waits_for_the_commitment_of_everything(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = archive
    peer = commitment_scp()
    properties = (("IANAfter", "commitment"), ("StgCmtMaxInstances", "2"))
    configure(archive, peer, *properties, ian_destinations=("IAN1", "IAN2"))
    bench.export(study)
    assert bench.waiting() == [("STGCMT_SCU", "STGCMTSCP")]
    bench.ask()
    bench.report(peer.received[0].report())
    assert bench.waiting() == []
    recorded = bench.report(peer.received[1].report())
    assert recorded is not None
    assert recorded.staged == 2
    assert bench.waiting() == [("IAN", "IAN1"), ("IAN", "IAN2")]
    bench.report(peer.received[1].report())
    assert bench.waiting() == [("IAN", "IAN1"), ("IAN", "IAN2")]


def test_by_hand_asks_for_what_is_held(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, peer = asked(archive, commitment_scp)
    bench.by_hand(study)
    bench.ask()
    assert peer.received[0].references == peer.received[1].references
    bench.by_hand(study, held_by=None)
    bench.ask()
    assert len(peer.received) == 3


def test_purge_keeps_the_evidence(archive: Archive, commitment_scp: StartScp) -> None:
    bench, study, peer = asked(archive, commitment_scp)
    bench.report(peer.received[0].report())
    ledger = bench.bench.ledger
    with ledger.transaction() as tx:
        assert commitments.purge(tx, "dcm4chee-arc", older_than_s=0) == 0
    bench.by_hand(study)
    bench.ask()
    bench.report(peer.received[1].report())
    with ledger.transaction() as tx:
        assert commitments.purge(tx, "dcm4chee-arc", older_than_s=0) == 1
    assert len(bench.commitments(study)) == 1


def test_reports_that_complete_a_study_together_notify_once(
    archive: Archive, commitment_scp: StartScp
) -> None:
    bench, study, _ = archive
    peer = commitment_scp()
    properties = (("IANAfter", "commitment"), ("StgCmtMaxInstances", "1"))
    configure(archive, peer, *properties, ian_destinations=("IAN1",))
    bench.export(study)
    bench.ask()
    with ThreadPoolExecutor(4) as pool:
        recorded = list(pool.map(bench.report, [each.report() for each in peer.received]))
    assert sum(each.staged for each in recorded if each) == 1
    assert bench.waiting() == [("IAN", "IAN1")]
