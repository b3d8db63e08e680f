"""Queries and retrieves without an identifier, or with an empty one, are answered at once."""

import struct

import pytest

from scp.dimse import CommandElement, decode_command
from scp.pdus import PduType, encode_command, encode_fragment
from tests.fix_scp import IMPLICIT, RawPeer, Site
from tests.fix_system import ARCHIVE

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
QUERY_RETRIEVE_LEVEL = 0x00080052
REQUESTS = {FIND: 0x0020, MOVE: 0x0021, GET: 0x0010}
EMPTY = {
    "no data set": b"",
    "one empty fragment": encode_fragment(1, b"", control=2),
    "two empty fragments": encode_fragment(1, b"", control=0) + encode_fragment(1, b"", control=2),
    "a group length alone": encode_fragment(1, b"\x08\0\0\0\x04\0\0\0\0\0\0\0", control=2),
}


def _request(model: str, *, has_data: bool) -> bytes:
    uid = model.encode() + b"\0" * (len(model) % 2)
    elements = [
        (0x0002, uid),
        (0x0100, struct.pack("<H", REQUESTS[model])),
        (0x0110, struct.pack("<H", 7)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1 if has_data else 0x0101)),
    ]
    if model == MOVE:
        elements.append((0x0600, b"STORESCP"))
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return encode_command(1, struct.pack("<HHLL", 0, 0, 4, len(body)) + body)


def _answer(peer: RawPeer) -> tuple[int, int, int]:
    """Return status, message and offending element of the next response."""
    kind, body = peer.receive()
    assert kind == PduType.P_DATA_TF, kind
    elements = decode_command(body[6:]).elements
    group, element = struct.unpack("<HH", elements.get(0x0901, bytes(4)))
    return (
        int.from_bytes(elements[CommandElement.STATUS], "little"),
        int.from_bytes(elements[CommandElement.MESSAGE_ID_BEING_RESPONDED_TO], "little"),
        group << 16 | element,
    )


@pytest.mark.parametrize("model", REQUESTS)
def test_an_empty_identifier_is_refused(scp: Site, model: str) -> None:
    with scp.peer() as peer:
        peer.associate({1: (model, [IMPLICIT])})
        for name, data in EMPTY.items():
            peer.send(_request(model, has_data=bool(data)) + data)
            assert _answer(peer) == (0xA900, 7, QUERY_RETRIEVE_LEVEL), name
        peer.release()
    assert "Traceback" not in scp.log()


@pytest.mark.parametrize("model", REQUESTS)
def test_an_identifier_that_is_announced_and_left_out_is_refused(site: Site, model: str) -> None:
    """As pynetdicom sends an empty one; a quarter of the idle time is waited."""
    site.modify(f"cn=dicom,{ARCHIVE}", dcmIdleTimeout="2000")
    site.start()
    with site.peer() as peer:
        peer.associate({1: (model, [IMPLICIT])})
        for _ in range(2):
            peer.send(_request(model, has_data=True))
            assert _answer(peer) == (0xA900, 7, QUERY_RETRIEVE_LEVEL)
        peer.release()
    assert "protocol-violated" not in site.log()
