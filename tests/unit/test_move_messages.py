"""Messages of a C-MOVE as bytes, made and read."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom.dimse_messages import C_CANCEL_RQ, C_MOVE_RQ, C_MOVE_RSP
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import decode, encode

from archive.model.retrieval import RetrieveResult, SubOperations
from workers.dimse import InvalidMessageError, command_pdus, data_pdus
from workers.move_messages import (
    MoveResponses,
    PduBuffer,
    encode_cancel,
    encode_move_request,
)

MODEL = "1.2.840.10008.5.1.4.1.2.2.2"
UIDS = ("1.2.3", "1.2.4")


def encoded_response(*, status: int = 0xFF00, message_id: int = 7, more: int = 2) -> bytes:
    """Return a response as pynetdicom sends it."""
    response = C_MOVE()
    response.MessageIDBeingRespondedTo = message_id
    response.AffectedSOPClassUID = MODEL
    response.Status = status
    response.NumberOfCompletedSuboperations = more
    response.NumberOfFailedSuboperations = len(UIDS)
    response.ErrorComment = "out of tapes"  # type: ignore[assignment] # typed None
    failed = Dataset()
    failed.FailedSOPInstanceUIDList = list(UIDS)
    response.Identifier = BytesIO(encode(failed, True, True) or b"")
    message = C_MOVE_RSP()
    message.primitive_to_message(response)
    return b"".join(
        b"\x04\0" + (len(body) + 4).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
        for primitive in message.encode_msg(1, 64)
        for context_id, value in primitive.presentation_data_value_list
        for body in (bytes([context_id]) + value,)
    )


def read(encoded: bytes) -> list[RetrieveResult]:
    """Return the responses in what was received."""
    buffer, responses = PduBuffer(), MoveResponses(1, 7, implicit=True)
    buffer.feed(encoded)
    results = []
    while (pdu := buffer.next()) is not None:
        result = responses.feed(pdu)
        results += [result] if result else []
    return results


@given(st.lists(st.integers(1, 200)))
def test_responses_come_in_any_pieces(cuts: list[int]) -> None:
    encoded = encoded_response() + encoded_response(status=0xB000, more=3)
    buffer, responses = PduBuffer(), MoveResponses(1, 7, implicit=True)
    found: list[RetrieveResult] = []
    for size in (*cuts, len(encoded)):
        buffer.feed(encoded[:size])
        encoded = encoded[size:]
        while (pdu := buffer.next()) is not None:
            result = responses.feed(pdu)
            found += [result] if result else []
    assert found == [
        RetrieveResult(0xFF00, SubOperations(0, 2, 2, 0), UIDS, "out of tapes"),
        RetrieveResult(0xB000, SubOperations(0, 3, 2, 0), UIDS, "out of tapes"),
    ]
    assert not len(buffer)


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (encoded_response(message_id=8), "response to message 8 instead of 7"),
        (b"".join(command_pdus(1, encode_cancel(7), 100)), "command field 0FFF"),
        (b"\x42\0\0\0\0\x01\0", "PDU of type 42"),
        (b"\x04\0\xff\0\0\0", "length"),
        (b"\x04\0\0\0\0\x02\0\0", "cut short"),
    ],
)
def test_what_is_no_response(encoded: bytes, words: str) -> None:
    with pytest.raises(InvalidMessageError, match=words):
        read(encoded)


def test_a_list_that_cannot_be_read_is_left_out() -> None:
    command = encoded_response()
    damaged = command.replace(b"\x08\0\x58\0", b"\xff\xff\xff\xff")
    (result,) = read(damaged)
    assert result.failed_sop_instance_uids == ()
    assert result.counts.failed == len(UIDS)


def test_requests_are_what_pynetdicom_reads() -> None:
    encoded = encode_move_request(9, MODEL, "ODD", 2)
    request = C_MOVE_RQ()
    request.command_set = decode(BytesIO(encoded), True, True)
    command = request.command_set
    assert (command.MessageID, command.Priority, command.MoveDestination) == (9, 2, "ODD")
    assert (command.AffectedSOPClassUID, command.CommandField) == (MODEL, 0x0021)
    cancel = C_CANCEL_RQ()
    cancel.command_set = decode(BytesIO(encode_cancel(9)), True, True)
    assert cancel.command_set.CommandField == 0x0FFF
    assert cancel.command_set.MessageIDBeingRespondedTo == 9
    assert cancel.command_set.CommandDataSetType == 0x0101


def test_a_long_identifier_is_split() -> None:
    pieces = list(data_pdus(3, b"x" * 250, 100))
    assert [len(each) for each in pieces[1::2]] == [100, 100, 50]
    assert [each[11] for each in pieces[::2]] == [0, 0, 2]
