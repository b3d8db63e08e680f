"""Destinations that refuse, abort, hang, lie or die: bounded in time, typed, nothing lost."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.model.task import Failure, TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import bundled, generate_studies, secondary_capture, write
from tests.fix_peer import StoreScp
from tests.fix_raw_peer import RawConnection, RawPeer, p_data, pdu, store_response
from workers.processor import StopReason

CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
StartRawPeer = Callable[..., RawPeer]
StartStoreScp = Callable[..., StoreScp]


@pytest.mark.parametrize(
    ("option", "failure", "words"),
    [
        ("--refuse", Failure.PERMANENT, "rejected the association of DCM4CHEE permanently"),
        ("--abort-during", Failure.TRANSIENT, "aborted the association"),
        ("--abort-after", Failure.TRANSIENT, "aborted the association"),
        ("--sleep-during 30", Failure.TRANSIENT, "sent no response"),
    ],
)
def test_dcmtk_peer_that_fails(
    bench: ExportBench, dcmtk: Dcmtk, option: str, failure: Failure, words: str
) -> None:
    peer = dcmtk.storescp(*option.split())
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    started = SYSTEM_CLOCK.monotonic()
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert SYSTEM_CLOCK.monotonic() - started < 10
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, failure)
    assert words in outcome.message
    assert not bench.held(CT_STUDY)


def test_release_that_is_not_answered_changes_no_result(bench: ExportBench, dcmtk: Dcmtk) -> None:
    peer = dcmtk.storescp("--sleep-after", "30")
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    started = SYSTEM_CLOCK.monotonic()
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert SYSTEM_CLOCK.monotonic() - started < 10
    assert outcome.status is TaskStatus.COMPLETED


def test_one_poisonous_object_does_not_hold_up_the_others(
    bench: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    (study,) = generate_studies(tmp_path, studies=1, instances=6)
    poison = list(study.files)[2].encode()

    def script(connection: RawConnection) -> None:
        connection.accept()
        message_id = 0
        while True:
            bodies = connection.read_message()
            if poison in bodies[0]:
                connection.sock.sendall(pdu(7, bytes([0, 0, 0, 0])))
                return
            message_id += 1
            connection.sock.sendall(store_response(message_id))

    peer = raw_peer(script)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.TRANSIENT)
    assert "completed:5 failed:1" in outcome.message
    assert "after 2 answered C-STOREs" in outcome.message
    assert peer.connections == 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (RawConnection.hold, "did not answer the association request within 1 s"),
        (lambda connection: connection.sock.close(), "during association negotiation"),
        (
            lambda connection: connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "during association negotiation",
        ),
    ],
)
def test_peer_that_does_not_negotiate(
    bench: ExportBench,
    raw_peer: StartRawPeer,
    script: Callable[[RawConnection], None],
    words: str,
) -> None:
    peer = raw_peer(script)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    started = SYSTEM_CLOCK.monotonic()
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert SYSTEM_CLOCK.monotonic() - started < 10
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert words in outcome.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (store_response(7), "received that to 7"),
        (store_response(1, sop_instance_uid="1.2.3"), "names another SOP instance"),
        (store_response(1, command_field=0x8030), "command field 8030"),
        (store_response(1, context_id=9), "presentation context 9"),
        (pdu(4, b"\0\0\0"), "cut short"),
        (pdu(4, b"\xff\xff\xff\xff\x01\x03"), "wrong length"),
        (p_data(b"\1\0\2\0\xff\xff\xff\xff"), "damaged"),
        (pdu(5, b"\0\0\0\0"), "closed the connection"),
        (pdu(3, b"\0\1\1\1"), "PDU of type 03"),
        (b"\x04\0\xff\xff\xff\xff", "length 4294967295"),
        (b"garbage that is no PDU at all", "PDU of type 67"),
        (store_response(1)[:20], "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_peer_that_answers_nonsense(
    bench: ExportBench, raw_peer: StartRawPeer, answer: bytes, words: str
) -> None:
    def script(connection: RawConnection) -> None:
        connection.accept()
        connection.read_message()
        connection.sock.sendall(answer)

    peer = raw_peer(script)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert words in outcome.message


@pytest.mark.parametrize("hold_after_accept", [False, True])
def test_peer_that_stops_reading_is_left_after_the_time_limit(
    bench: ExportBench, raw_peer: StartRawPeer, tmp_path: Path, hold_after_accept: bool
) -> None:
    done = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.accept()
        if hold_after_accept:
            connection.read_message()
        done.wait(20)

    peer = raw_peer(script)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    large = secondary_capture("1.2.3", 1, 1, size=4000)
    bench.store(write(large, tmp_path / "large.dcm"))
    started = SYSTEM_CLOCK.monotonic()
    outcome = bench.perform(bench.export_task("1.2.3"))
    elapsed = SYSTEM_CLOCK.monotonic() - started
    done.set()
    assert elapsed < 8
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert "response within" in outcome.message or "took no data" in outcome.message


def test_abort_breaks_a_hanging_c_store_at_once(bench: ExportBench, raw_peer: StartRawPeer) -> None:
    hanging = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.accept()
        connection.read_message()
        hanging.set()
        connection.hold()

    def stop() -> None:
        hanging.wait(20)
        bench.stop_signal.stop(StopReason.CANCELED)
        bench.stop_signal.abort()

    peer = raw_peer(script)
    patient = local_ae(connections=(remote_ae("X", 1).connections[0],))
    bench.add(patient, exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    stopper = threading.Thread(target=stop)
    stopper.start()
    started = SYSTEM_CLOCK.monotonic()
    outcome = bench.perform(bench.export_task(CT_STUDY))
    stopper.join()
    assert SYSTEM_CLOCK.monotonic() - started < 8
    assert outcome.failure is Failure.TRANSIENT
    assert "cut off on request" in outcome.message


def test_one_bad_object_among_good_ones_over_several_associations(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    peer = store_scp(status=lambda event: 0x0122 if event.message_id == 2 else 0)
    bench.add(local_ae(multiple_store_associations=("3",)), exporter())
    bench.add(remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=30)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert "0122 refused: SOP class not supported" in outcome.message
    assert len(bench.held(study.study_instance_uid)) == len(peer.received)


def test_dead_destination_is_recorded_once_for_hundreds_of_objects(
    bench: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    peer = raw_peer(lambda connection: connection.sock.close())
    bench.add(local_ae(multiple_store_associations=("4",)), exporter())
    bench.add(remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=50)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert "completed:0 remaining:50" in outcome.message
    assert peer.connections == 1
