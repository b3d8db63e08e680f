"""The DIMSE messages and PDUs of the sending loop, byte by byte."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from tests.fix_raw_peer import p_data, store_response
from workers import dimse
from workers.dimse import InvalidMessageError, ResponseAssembler, StoreResponse

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_store_request_as_golden_bytes() -> None:
    # (0000,0000) UL 88, (0000,0002) CT Image Storage, (0000,0100) 1, (0000,0110) 258,
    # (0000,0700) medium, (0000,0800) data set present, (0000,1000) 1.2.3
    assert dimse.encode_store_request(258, CT, "1.2.3") == bytes.fromhex(
        "00000000 04000000 58000000"
        "00000200 1a000000 312e322e3834302e31303030382e352e312e342e312e312e3200"
        "00000001 02000000 0100"
        "00001001 02000000 0201"
        "00000007 02000000 0000"
        "00000008 02000000 0100"
        "00000010 06000000 312e322e3300"
    )


@given(st.integers(1, 0xFFFF), st.integers(1, 127).map(lambda n: 2 * n + 1), st.integers(2, 300))
def test_pynetdicom_reads_what_is_written(message_id: int, context_id: int, size: int) -> None:
    size &= ~1
    command = dimse.encode_store_request(message_id, CT, "1.2.840.1")
    pieces = list(dimse.command_pdus(context_id, command, size))
    message = C_STORE_RQ()
    encoded = b""
    for header, fragment in zip(pieces[::2], pieces[1::2], strict=True):
        pdu = P_DATA_TF()
        pdu.decode(header + fragment)
        (item,) = pdu.presentation_data_value_items
        assert item.context_id == context_id
        encoded += (item.presentation_data_value or b"")[1:]
    assert encoded == command
    message.command_set = decode(BytesIO(encoded), True, True)
    primitive = message.message_to_primitive()
    assert isinstance(primitive, C_STORE)
    assert (primitive.MessageID, primitive.AffectedSOPClassUID) == (message_id, CT)
    assert (primitive.Priority, primitive.AffectedSOPInstanceUID) == (0, "1.2.840.1")


@pytest.mark.parametrize(
    ("peer", "own", "length"),
    [
        (16384, 16378, 16372),
        (16384, 0, 16378),
        (0, 0, (1 << 20) - 6),
        (0, 4096, 4090),
        (131, 0, 124),
        (8, 0, 2),
        (1 << 31, 0, (1 << 20) - 6),
    ],
)
def test_fragment_length(peer: int, own: int, length: int) -> None:
    assert dimse.fragment_length(peer, own) == length


@pytest.mark.parametrize("peer", [1, 6, 7])
def test_no_room_for_a_fragment(peer: int) -> None:
    with pytest.raises(InvalidMessageError, match="leaves no room"):
        dimse.fragment_length(peer, 16384)


@given(st.integers(0, 0xFFFF), st.integers(1, 0xFFFF), st.integers(1, 40))
def test_response_arrives_in_any_number_of_fragments(
    status: int, message_id: int, size: int
) -> None:
    whole = store_response(message_id, status, sop_instance_uid="1.2.3")[12:]
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    assembler = ResponseAssembler(1)
    for piece in pieces[:-1]:
        assert assembler.feed(p_data(piece, control=1)[6:]) is None
    command = assembler.feed(p_data(pieces[-1], control=3)[6:])
    assert command is not None
    assert dimse.read_store_response(command, message_id, "1.2.3") == StoreResponse(status)


def test_pynetdicoms_response_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo = 5
    primitive.AffectedSOPClassUID = CT
    primitive.AffectedSOPInstanceUID = "1.2.3"
    primitive.Status = 0xA700
    primitive.ErrorComment = "disk full"  # type: ignore[assignment]
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    assembler = ResponseAssembler(3)
    command: dict[int, bytes] | None = None
    for data in message.encode_msg(3, 60):
        pdu = P_DATA_TF()
        pdu.from_primitive(data)
        command = assembler.feed(pdu.encode()[6:])
    assert command is not None
    response = dimse.read_store_response(command, 5, "1.2.3")
    assert response == StoreResponse(0xA700, "disk full")


def test_a_data_set_in_the_response_is_dropped() -> None:
    command = store_response(1)[12:].replace(
        b"\x01\x01\x00\x00\x00\x09", b"\x00\x01\x00\x00\x00\x09"
    )
    assembler = ResponseAssembler(1)
    assert assembler.feed(p_data(command)[6:]) is None
    assert assembler.feed(p_data(b"abcd", control=0)[6:]) is None
    assert assembler.feed(p_data(b"abcd", control=2)[6:]) is not None


def test_endless_response_is_cut() -> None:
    assembler = ResponseAssembler(1)
    piece = p_data(b"x" * 65536, control=1)[6:]
    for _ in range(15):
        assert assembler.feed(piece) is None
    with pytest.raises(InvalidMessageError, match="longer than 1 MiB"):
        assembler.feed(piece)


@given(st.binary(max_size=200))
def test_garbage_is_a_typed_error_or_incomplete(body: bytes) -> None:
    assembler = ResponseAssembler(1)
    try:
        command = assembler.feed(body)
        if command is not None:
            dimse.read_store_response(command, 1, "1.2.3")
    except InvalidMessageError as error:
        assert str(error)  # noqa: PT017
