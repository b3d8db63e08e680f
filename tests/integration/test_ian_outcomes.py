"""Notification tasks against real IAN SCPs."""

import threading
from collections.abc import Callable

import pytest
from pynetdicom.events import Event

from archive.clock import SYSTEM_CLOCK
from archive.errors import (
    AssociationAbortedError,
    ConfigurationError,
    NoAcceptedContextError,
    PeerError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from archive.model.task import Failure, IanDetails, TaskStatus
from tests.fix_export import ANY_CLASS, ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import bundled
from tests.fix_peer import IanScp, StoreScp
from tests.fix_process import free_port
from tests.fix_raw_peer import RawConnection, RawPeer

CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
HELD = IanDetails(("STORESCP",), "ONLINE", held_by_exporter="EXP")
ALL = IanDetails(("DCM4CHEE",), "NEARLINE")
StartIanScp = Callable[..., IanScp]
StartRawPeer = Callable[..., RawPeer]


@pytest.fixture
def exported(bench: ExportBench, store_scp: Callable[..., StoreScp]) -> ExportBench:
    """A bench with one CT exported to STORESCP."""
    peer = store_scp()
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    assert bench.perform(bench.export_task(CT_STUDY)).status is TaskStatus.COMPLETED
    return bench


def test_announces_what_the_destination_holds(exported: ExportBench, ian_scp: StartIanScp) -> None:
    peer = ian_scp()
    exported.add(remote_ae("IANSCP", peer.port))
    outcome = exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert outcome.status is TaskStatus.COMPLETED
    (received,) = peer.received
    assert received.calling_aet == "DCM4CHEE"
    assert received.transfer_syntax_uid in ANY_CLASS.transfer_syntaxes
    dataset = received.dataset
    assert [element.keyword for element in dataset] == [
        "ReferencedPerformedProcedureStepSequence",
        "ReferencedSeriesSequence",
        "StudyInstanceUID",
    ]
    item = dataset.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert (item.RetrieveAETitle, item.InstanceAvailability) == ("STORESCP", "ONLINE")


def test_nothing_delivered_is_nothing_to_announce(bench: ExportBench, ian_scp: StartIanScp) -> None:
    peer = ian_scp()
    bench.add(remote_ae("IANSCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    outcome = bench.perform(bench.ian_task(CT_STUDY, HELD))
    assert outcome.status is TaskStatus.COMPLETED
    assert "nothing to announce" in outcome.message
    assert not peer.received


def test_without_exporter_the_whole_study_is_announced(
    bench: ExportBench, ian_scp: StartIanScp
) -> None:
    peer = ian_scp()
    bench.add(remote_ae("IANSCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    assert bench.perform(bench.ian_task(CT_STUDY, ALL)).status is TaskStatus.COMPLETED
    item = peer.received[0].dataset.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert (item.RetrieveAETitle, item.InstanceAvailability) == ("DCM4CHEE", "NEARLINE")


def test_repetition_carries_the_same_notification_and_duplicate_means_arrived(
    exported: ExportBench, ian_scp: StartIanScp
) -> None:
    peer = ian_scp()
    exported.add(remote_ae("IANSCP", peer.port))
    task = exported.ian_task(CT_STUDY, HELD)
    exported.perform(task)
    again = exported.perform(task)
    assert again.status is TaskStatus.COMPLETED
    assert "accepted before" in again.message
    first, second = peer.received
    assert first.sop_instance_uid == second.sop_instance_uid
    assert first.dataset == second.dataset
    assert [each.status for each in peer.received] == [0x0000, 0x0111]


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        (0x0110, TaskStatus.FAILED, Failure.TRANSIENT),
        (0x0213, TaskStatus.FAILED, Failure.TRANSIENT),
        (0x0124, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0116, TaskStatus.WARNING, Failure.PERMANENT),
    ],
)
def test_status_of_the_peer(
    exported: ExportBench, ian_scp: StartIanScp, code: int, status: TaskStatus, failure: Failure
) -> None:
    peer = ian_scp(status=lambda _event: code)
    exported.add(remote_ae("IANSCP", peer.port))
    outcome = exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert (outcome.status, outcome.failure) == (status, failure)
    assert f"{code:04X} " in outcome.message


def test_implicit_vr_without_local_capability(exported: ExportBench, ian_scp: StartIanScp) -> None:
    peer = ian_scp()
    exported.add(local_ae(transfer_capabilities=()), remote_ae("IANSCP", peer.port))
    exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert peer.received[0].transfer_syntax_uid == "1.2.840.10008.1.2"


def test_peer_that_knows_no_notifications(
    exported: ExportBench, store_scp: Callable[..., StoreScp]
) -> None:
    peer = store_scp("IANSCP")
    exported.add(remote_ae("IANSCP", peer.port))
    with pytest.raises(NoAcceptedContextError) as caught:
        exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert not caught.value.retryable


def _accept_and(rest: Callable[[RawConnection], None]) -> Callable[[RawConnection], None]:
    def script(connection: RawConnection) -> None:
        connection.accept()
        connection.read_pdu()
        rest(connection)

    return script


def _half_a_pdu(connection: RawConnection) -> None:
    connection.sock.sendall(b"\4\0\0\0\xff\xff")
    connection.hold()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (RawConnection.hold, PeerTimeoutError),
        (_accept_and(RawConnection.hold), PeerTimeoutError),
        (_accept_and(lambda connection: connection.sock.close()), AssociationAbortedError),
        (_accept_and(lambda connection: connection.sock.sendall(b"\0" * 9)), PeerError),
        (_accept_and(_half_a_pdu), PeerError),
    ],
)
def test_peer_that_does_not_answer(
    exported: ExportBench,
    raw_peer: StartRawPeer,
    script: Callable[[RawConnection], None],
    error: type[PeerError],
) -> None:
    peer = raw_peer(script)
    exported.add(remote_ae("IANSCP", peer.port))
    started = SYSTEM_CLOCK.monotonic()
    with pytest.raises(error) as caught:
        exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert caught.value.retryable
    assert SYSTEM_CLOCK.monotonic() - started < 8


def test_abort_breaks_a_waiting_n_create(exported: ExportBench, ian_scp: StartIanScp) -> None:
    asked, done = threading.Event(), threading.Event()

    def status(_event: Event) -> int:
        asked.set()
        done.wait(20)
        return 0

    def stop() -> None:
        asked.wait(20)
        exported.stop_signal.abort()

    peer = ian_scp(status=status)
    patient = local_ae(connections=(remote_ae("X", 1).connections[0],))
    exported.add(patient, remote_ae("IANSCP", peer.port))
    stopper = threading.Thread(target=stop)
    stopper.start()
    started = SYSTEM_CLOCK.monotonic()
    with pytest.raises(AssociationAbortedError, match="cut off on request"):
        exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert SYSTEM_CLOCK.monotonic() - started < 8
    done.set()
    stopper.join()


def test_nobody_listens_and_nobody_configured(exported: ExportBench) -> None:
    with pytest.raises(ConfigurationError, match="dicomAETitle=IANSCP") as caught:
        exported.perform(exported.ian_task(CT_STUDY, HELD))
    assert caught.value.retryable
    exported.add(remote_ae("IANSCP", free_port()))
    with pytest.raises(PeerUnreachableError, match="connection refused"):
        exported.perform(exported.ian_task(CT_STUDY, ALL))
