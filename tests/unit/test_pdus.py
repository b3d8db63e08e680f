import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.pdus import (
    LENGTH_TOLERANCE,
    MAX_ASSOCIATE_LENGTH,
    PduType,
    ProtocolError,
    encode_fragment,
    iter_fragments,
    parse_header,
    whole_piece,
)

# Header of a P-DATA-TF PDU of 16 bytes: type 04, reserved, length 00000010.
P_DATA_16 = bytes.fromhex("0400 00000010")
# Body: PDV of 12 bytes on context 3, last piece (02) of a data set, ten bytes of it.
PDV_BODY = bytes.fromhex("0000000c 03 02 00010203040506070809")


def test_golden_pdu() -> None:
    assert parse_header(P_DATA_16, 4096) == (PduType.P_DATA_TF, 16)
    (fragment,) = iter_fragments(memoryview(PDV_BODY))
    assert (fragment.context_id, fragment.is_command, fragment.is_last) == (3, False, True)
    assert bytes(fragment.data) == bytes(range(10))
    assert encode_fragment(3, bytes(range(10)), control=2) == P_DATA_16 + PDV_BODY


@pytest.mark.parametrize(
    ("kind", "length", "fits"),
    [
        (PduType.P_DATA_TF, 4096, True),
        (PduType.P_DATA_TF, 4096 + LENGTH_TOLERANCE, True),
        (PduType.P_DATA_TF, 4096 + LENGTH_TOLERANCE + 1, False),
        (PduType.P_DATA_TF, 0xFFFFFFFF, False),
        (PduType.A_ASSOCIATE_RQ, MAX_ASSOCIATE_LENGTH, True),
        (PduType.A_ASSOCIATE_RQ, MAX_ASSOCIATE_LENGTH + 1, False),
        (PduType.A_RELEASE_RQ, 4, True),
        (PduType.A_RELEASE_RQ, 5, False),
        (PduType.A_ABORT, 1 << 20, False),
        (0x00, 4, False),
        (0x08, 4, False),
        (0x47, 4, False),
    ],
)
def test_lengths(kind: int, length: int, fits: bool) -> None:
    header = struct.pack(">BxL", kind, length)
    if fits:
        assert parse_header(header, 4096) == (kind, length)
    else:
        with pytest.raises(ProtocolError):
            parse_header(header, 4096)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="empty"),
        pytest.param("000000", id="cut header"),
        pytest.param("00000001 01", id="no room for control header"),
        pytest.param("00000000 01 02", id="length zero"),
        pytest.param("00000003 01 02", id="one byte short"),
        pytest.param("ffffffff 01 02 aa", id="lying"),
        pytest.param("00000003 01 02 aa 00", id="stray byte"),
    ],
)
def test_impossible_bodies(body: str) -> None:
    with pytest.raises(ProtocolError):
        list(iter_fragments(memoryview(bytes.fromhex(body))))


fragments = st.lists(
    st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=40)),
    min_size=1,
    max_size=6,
)


@given(fragments)
def test_round_trip(parts: list[tuple[int, int, bytes]]) -> None:
    body = b"".join(encode_fragment(cid, data, control=c)[6:] for cid, c, data in parts)
    found = [
        (each.context_id, each.is_command | each.is_last << 1, bytes(each.data))
        for each in iter_fragments(memoryview(body))
    ]
    assert found == parts


@given(st.binary(max_size=200))
def test_any_bytes_are_fragments_or_a_protocol_error(body: bytes) -> None:
    try:
        total = sum(len(each.data) + 6 for each in iter_fragments(memoryview(body)))
    except ProtocolError:
        return
    assert total == len(body)


PIECE = encode_fragment(3, bytes(10), control=0)


@given(st.data())
def test_a_whole_piece_is_what_the_general_way_finds(data: st.DataObject) -> None:
    """Changed bytes are never taken for something that they are not."""
    pdu = bytearray(PIECE)
    for position in data.draw(st.sets(st.integers(0, 11), max_size=3)):
        pdu[position] = data.draw(st.integers(0, 255))
    length = whole_piece(memoryview(pdu), 0, 3)
    if length:
        assert (pdu[0], length) == (PduType.P_DATA_TF, int.from_bytes(pdu[2:6], "big"))
    if length == 16:
        (fragment,) = iter_fragments(memoryview(pdu)[6:])
        assert (*fragment[:3], bytes(fragment.data)) == (3, False, False, bytes(10))


@pytest.mark.parametrize("control", [1, 2, 3])
def test_the_end_of_a_data_set_and_commands_are_no_whole_pieces(control: int) -> None:
    assert whole_piece(memoryview(b"xx" + PIECE), 2, 3) == 16
    assert whole_piece(memoryview(PIECE), 0, 5) == 0
    assert whole_piece(memoryview(PIECE[:11]), 0, 3) == 0
    assert whole_piece(memoryview(encode_fragment(3, bytes(10), control=control)), 0, 3) == 0
    two = PIECE[6:] + PIECE[6:]
    body = b"\x04\x00" + len(two).to_bytes(4, "big") + two
    assert whole_piece(memoryview(body), 0, 3) == 0, "two fragments"
