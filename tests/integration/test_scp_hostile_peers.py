"""Peers that break the protocol, stop, or send what is not an object: none harms the next one."""

import struct

import pytest

from archive.storage.incoming import BUFFERED_BYTES
from scp.pdus import PduType, encode_command, encode_fragment
from tests.fix_process import wait_until
from tests.fix_scp import (
    EXPLICIT,
    SECONDARY_CAPTURE,
    RawPeer,
    Site,
    element,
    small_dataset,
    store_command,
)
from tests.fix_system import ARCHIVE
from tests.fix_violations import PIECE, SOP, VIOLATIONS, assert_aborted

LONG = BUFFERED_BYTES // 16000 + 1
"""Fragments of 16 000 bytes that do not stay in memory."""


def assert_works(site: Site) -> None:
    """Store an object, release, and find no file besides it."""
    with site.peer() as peer:
        peer.associate()
        assert peer.store(SOP, small_dataset(SOP)).status == 0
        peer.release()
    wait_until(lambda: len(site.files()) == 1, what="only the stored file to remain")
    assert site.count("instance") == 1


def _begun(peer: RawPeer) -> RawPeer:
    peer.associate()
    peer.begin_store(SOP)
    return peer


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("pieces", [0, 2])
def test_violation_inside_a_data_set_aborts(scp: Site, name: str, pieces: int) -> None:
    with scp.peer() as peer:
        _begun(peer).send(PIECE * pieces)
        peer.send(VIOLATIONS[name])
        if name != "release inside":
            assert_aborted(peer)
    assert_works(scp)


@pytest.mark.parametrize(
    "name", ["unknown PDU type", "oversized PDU", "empty P-DATA-TF", "command inside the data set"]
)
def test_violation_before_association(scp: Site, name: str) -> None:
    with scp.peer() as peer:
        peer.send(VIOLATIONS[name])
        assert_aborted(peer)
    assert_works(scp)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PIECE, id="data set before a command"),
        pytest.param(encode_command(1, b"\x01\x02\x03"), id="command that is none"),
        pytest.param(encode_fragment(1, b"\0" * 60000, control=1) * 2, id="endless command"),
        pytest.param(
            encode_command(1, store_command(1, "1.2", "1.3")[:-4]), id="command cut inside a value"
        ),
        pytest.param(
            encode_command(5, struct.pack("<HHLHHHLH", 0, 0x100, 2, 0x7777, 0, 0x800, 2, 0x101)),
            id="unknown command field",
        ),
    ],
)
def test_violation_between_messages(scp: Site, data: bytes) -> None:
    with scp.peer() as peer:
        peer.associate()
        peer.send(data)
        assert_aborted(peer)
    assert_works(scp)


@pytest.mark.parametrize("ending", ["abort", "close", "reset"])
def test_end_inside_an_object_leaves_nothing(scp: Site, ending: str) -> None:
    with scp.peer() as peer:
        _begun(peer).send(PIECE + encode_fragment(1, bytes(16000), control=0) * LONG)
        wait_until(lambda: len(scp.files()) == 1, what="the temporary file")
        if ending == "abort":
            peer.send(struct.pack(">BxLL", PduType.A_ABORT, 4, 0))
        elif ending == "reset":
            linger = struct.pack("ii", 1, 0)
            peer.sock.setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: close sends RST
    wait_until(lambda: not scp.files(), what="the temporary file to go")
    assert "scp.object-abandoned" in scp.log()
    assert_works(scp)


@pytest.mark.parametrize("stage", ["connected", "associated", "header", "inside", "between"])
def test_silence_ends_after_the_configured_time(site: Site, stage: str) -> None:
    site.modify(f"cn=dicom,{ARCHIVE}", dcmIdleTimeout="700", dcmAARQTimeout="700")
    site.start()
    with site.peer() as peer:
        if stage == "connected":
            peer.send(b"\x01")
        else:
            peer.associate()
        if stage in {"inside", "between"}:
            peer.begin_store(SOP)
            peer.send(PIECE)
        if stage == "header":
            peer.send(b"\x04\x00\x00")
        if stage == "between":
            peer.send(PIECE[:100])
        assert_aborted(peer)
    assert_works(site)


def test_dripping_bytes_do_not_extend_the_time(site: Site) -> None:
    site.modify(f"cn=dicom,{ARCHIVE}", dcmIdleTimeout="1000")
    site.start()
    with site.peer() as peer:
        _begun(peer)
        peer.sock.settimeout(0.1)
        ended = False
        for byte in PIECE:
            try:
                peer.send(bytes([byte]))
                ended = peer.sock.recv(1) in {b"", b"\x07"}
            except TimeoutError:
                continue
            except OSError:
                ended = True
            if ended:
                break
        assert ended
    assert_works(site)


@pytest.mark.parametrize(
    ("dataset", "status", "words"),
    [
        pytest.param(small_dataset(SOP, study=None), 0xA900, "Study Instance UID", id="no study"),
        pytest.param(
            small_dataset(SOP, series=None), 0xA900, "Series Instance UID", id="no series"
        ),
        pytest.param(small_dataset(SOP, study="1.2/../3"), 0xA900, "is not a UID", id="bad study"),
        pytest.param(small_dataset(SOP, study="../../etc"), 0xA900, "is not a UID", id="path"),
        pytest.param(
            small_dataset(SOP, study="1" * 80), 0xA900, "Study Instance UID", id="long study"
        ),
        pytest.param(small_dataset("1.2.9"), 0xA900, "SOP Instance UID", id="another object"),
        pytest.param(small_dataset(SOP, sop_class="1.2.9"), 0xA900, "SOP Class UID", id="class"),
        pytest.param(b"", 0xA900, "SOP Class UID", id="nothing"),
        pytest.param(b"\0" * 4096, 0xC499, "not a data set", id="zeros"),
        pytest.param(b"GIF89a" * 100, 0xC499, "not a data set", id="not DICOM"),
        pytest.param(small_dataset(SOP)[:-9], 0xC499, "not a data set", id="truncated pixel data"),
        pytest.param(small_dataset(SOP)[:60], 0xC499, "not a data set", id="truncated header"),
        pytest.param(
            small_dataset(SOP, pixels=0) + struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OB", 1 << 30),
            0xC499,
            "not a data set",
            id="lying pixel data",
        ),
        pytest.param(
            element(0x00080005, "CS", "ISO_IR 100") + struct.pack("<HH2s2xL", 8, 9, b"SQ", 1 << 31),
            0xC499,
            "not a data set",
            id="lying sequence",
        ),
        pytest.param(
            struct.pack("<HH2s2xL", 8, 9, b"SQ", 0xFFFFFFFF)
            + struct.pack("<HHLHH2s2xL", 0xFFFE, 0xE000, 0xFFFFFFFF, 8, 9, b"SQ", 0xFFFFFFFF) * 999,
            0xC499,
            "not a data set",
            id="bottomless sequence",
        ),
    ],
)
def test_what_is_not_an_object_is_refused(
    scp: Site, dataset: bytes, status: int, words: str
) -> None:
    with scp.peer() as peer:
        peer.associate()
        reply = peer.store(SOP, dataset)
        assert reply.status == status
        assert words in reply.comment
        assert len(reply.comment) <= 64
        assert scp.files() == []
        assert peer.store(SOP, small_dataset(SOP)).status == 0  # the association goes on
        peer.release()
    assert_works(scp)


@pytest.mark.parametrize(
    ("sop_uid", "sop_class", "status"),
    [
        ("not a uid", None, 0x0117),
        ("../../../tmp/x", None, 0x0117),
        ("", None, 0x0117),
        ("1." * 40 + "1", None, 0x0117),
        (SOP, "1.2.840.10008.5.1.4.1.1.4", 0x0122),
    ],
)
def test_unusable_request(scp: Site, sop_uid: str, sop_class: str | None, status: int) -> None:
    with scp.peer() as peer:
        peer.associate()
        peer.begin_store(sop_uid, sop_class=sop_class)
        peer.send(encode_fragment(1, small_dataset(SOP), control=2))
        assert peer.reply().status == status
        peer.release()
    assert_works(scp)


def test_request_without_data_set_is_answered(scp: Site) -> None:
    with scp.peer() as peer:
        peer.associate()
        peer.send(encode_command(1, store_command(5, SECONDARY_CAPTURE, SOP, has_data=False)))
        reply = peer.reply()
        assert (reply.status, reply.message_id) == (0xA900, 5)
        peer.release()
    assert_works(scp)


def test_probes_cost_no_thread(scp: Site) -> None:
    threads = scp.thread_count() + 1  # that of the lane
    for _ in range(200):
        scp.peer().sock.close()
    assert_works(scp)
    wait_until(lambda: scp.thread_count() <= threads, what="no thread to remain")
    assert scp.log().count("Traceback") == 0


def test_peer_that_asks_for_too_many_contexts_of_nothing(scp: Site) -> None:
    contexts = {2 * i + 1: (f"1.2.3.{i}", [EXPLICIT] * 30) for i in range(128)}
    with scp.peer() as peer:
        results = peer.associate(contexts)
        assert {result for result, _ in results.values()} == {3}
        peer.release()
    assert_works(scp)
