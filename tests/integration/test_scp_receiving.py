"""The seam to pynetdicom against its public behaviour: fails when an upgrade breaks it."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import psutil
import pytest
from pydicom import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket, RequestHandler

from archive.clock import SYSTEM_CLOCK
from scp.pdus import encode_command, encode_fragment
from tests.fix_objects import secondary_capture
from tests.fix_process import wait_until
from tests.fix_scp import (
    EXPLICIT,
    SECONDARY_CAPTURE,
    VERIFICATION,
    Contexts,
    RawPeer,
    Site,
    small_dataset,
    store_command,
)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (DULServiceProvider, "_is_transport_event"),
        (DULServiceProvider, "_read_pdu_data"),
        (DULServiceProvider, "_process_recv_primitive"),
        (DULServiceProvider, "_decode_pdu"),
        (DULServiceProvider, "kill_dul"),
        (DULServiceProvider, "stop_dul"),
        (DULServiceProvider, "run_reactor"),
        (DULServiceProvider, "idle_timer_expired"),
        (RequestHandler, "_create_association"),
        (AssociationSocket, "recv"),
    ],
)
def test_what_is_overridden_exists(owner: type, name: str) -> None:
    assert inspect.isfunction(inspect.getattr_static(owner, name))


def test_the_reactor_waits_at_the_checkpoint() -> None:
    source = inspect.getsource(Association._run_reactor)  # noqa: SLF001 - it is what is relied on
    assert "_reactor_checkpoint.wait()" in source


def requestor() -> AE:
    ae = AE("PYNETDICOM")
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(SecondaryCaptureImageStorage, ImplicitVRLittleEndian)
    return ae


def test_echo_and_store_take_turns_on_one_association(scp: Site) -> None:
    assoc = requestor().associate("127.0.0.1", scp.port, ae_title="DCM4CHEE")
    assert assoc.is_established
    for number in range(20):
        assert assoc.send_c_echo().Status == 0
        dataset = secondary_capture("1.2.3", 1, number)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert assoc.send_c_store(dataset).Status == 0
    assoc.release()
    assert assoc.is_released
    assert scp.count("instance") == len(scp.files()) == 20


def test_contexts_of_one_class_keep_their_own_transfer_syntax(scp: Site) -> None:
    contexts: Contexts = {
        1: (SECONDARY_CAPTURE, [str(JPEG2000Lossless)]),
        3: (SECONDARY_CAPTURE, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
        5: (SECONDARY_CAPTURE, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
        7: (SECONDARY_CAPTURE, ["1.2.3.4"]),
        9: ("1.2.3.4", [ExplicitVRLittleEndian]),
    }
    with scp.peer() as peer:
        results = peer.associate(contexts)
        peer.release()
    assert [results[each][0] for each in contexts] == [0, 0, 0, 4, 3]
    assert [results[each][1] for each in (1, 3, 5)] == [
        JPEG2000Lossless,
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
    ]


def test_messages_sent_without_waiting(scp: Site) -> None:
    """Objects and an echo in one segment, as a requestor with a window of operations would."""
    uids = [f"1.2.3.4.1.{number}" for number in range(5)]
    burst = b""
    for number, uid in enumerate(uids):
        burst += encode_command(1, store_command(number, SECONDARY_CAPTURE, uid))
        burst += encode_fragment(1, small_dataset(uid), control=2)
    with scp.peer() as peer:
        peer.associate()
        peer.send(burst)
        assert [(each.status, each.message_id) for each in (peer.reply() for _ in uids)] == [
            (0, number) for number in range(5)
        ]
        peer.release()


def test_several_fragments_in_one_pdu(scp: Site) -> None:
    dataset = small_dataset("1.2.3.9")
    command = encode_command(1, store_command(1, SECONDARY_CAPTURE, "1.2.3.9"))
    pdus = [command, encode_fragment(1, dataset[:99], control=0)]
    pdus.append(encode_fragment(1, dataset[99:], control=2))
    body = b"".join(each[6:] for each in pdus)
    with scp.peer() as peer:
        peer.associate()
        peer.send(b"\x04\x00" + len(body).to_bytes(4, "big") + body)
        assert peer.reply().status == 0
        peer.release()


@pytest.mark.parametrize("cut", [1, 5, 6, 7, 11, 12, 13, 50])
def test_pdus_cut_anywhere(scp: Site, cut: int) -> None:
    stream = encode_command(1, store_command(1, SECONDARY_CAPTURE, "1.2.3.9"))
    stream += encode_fragment(1, small_dataset("1.2.3.9"), control=2)
    positions = [0, *range(cut, min(len(stream), cut * 12), cut), len(stream)]
    with scp.peer() as peer:
        peer.associate()
        for start, end in pairwise(positions):
            peer.send(stream[start:end])
            SYSTEM_CLOCK.sleep(0.002)  # separate segments
        assert peer.reply().status == 0
        peer.release()


def test_idle_associations_use_no_processor(scp: Site) -> None:
    contexts = {1: (VERIFICATION, [EXPLICIT])}
    peers = [RawPeer(scp.port) for _ in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda peer: peer.associate(contexts), peers))
    process = psutil.Process(scp.processes[0].pid)
    assert process.cpu_percent(interval=None) == 0.0
    assert process.cpu_percent(interval=1.5) < 5.0
    for peer in peers:
        peer.release()
        peer.sock.close()
    wait_until(lambda: process.num_threads() < 20, what="the threads to end")
