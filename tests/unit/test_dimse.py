import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode

from scp.dimse import (
    StoreAnswer,
    StoreRequest,
    decode_command,
    encode_store_response,
    store_request,
)
from scp.messages import Assembly, Step
from scp.pdus import Fragment, ProtocolError

# C-STORE-RQ, message 7, CT image 1.2.3, medium priority, with data set, moved by MOVER (message 9).
STORE_RQ = bytes.fromhex(
    "0000 0000 04000000 72000000"
    "0000 0200 1a000000 312e322e3834302e31303030382e352e312e342e312e312e3200"
    "0000 0001 02000000 0100"
    "0000 1001 02000000 0700"
    "0000 0007 02000000 0000"
    "0000 0008 02000000 0000"
    "0000 0010 06000000 312e322e3300"
    "0000 3010 06000000 4d4f56455220"
    "0000 3110 02000000 0900"
)


def test_golden_request() -> None:
    command = decode_command(STORE_RQ)
    assert command.has_data_set
    assert store_request(command, 5) == StoreRequest(
        context_id=5,
        message_id=7,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        move_originator_aet="MOVER",
        move_originator_message_id=9,
    )


def test_response_is_what_pynetdicom_reads() -> None:
    request = store_request(decode_command(STORE_RQ), 5)
    encoded = encode_store_response(request, StoreAnswer(0xA700, "full\\disk\n" + "x" * 80))
    command = decode(BytesIO(encoded), True, True)
    assert command.CommandGroupLength == len(encoded) - 12
    assert (command.CommandField, command.Status) == (0x8001, 0xA700)
    assert command.MessageIDBeingRespondedTo == 7
    assert command.CommandDataSetType == 0x0101
    assert command.AffectedSOPInstanceUID == "1.2.3"
    assert command.ErrorComment == "full/disk " + "x" * 54


def test_request_of_pynetdicom() -> None:
    primitive = C_STORE()
    primitive.MessageID = 65535
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    primitive.AffectedSOPInstanceUID = "1.2.3.4"
    primitive.Priority = 2
    primitive.DataSet = BytesIO(b"abcd")
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive)
    pdvs = [
        (cid, pdv)
        for each in message.encode_msg(3, 16382)
        for cid, pdv in each.presentation_data_value_list
    ]
    assembly = Assembly()
    steps = [
        assembly.take(Fragment(cid, bool(pdv[0] & 1), bool(pdv[0] & 2), memoryview(pdv)[1:]))
        for cid, pdv in pdvs
    ]
    assert steps == [Step.COMMAND, Step.DATA]
    assert assembly.command is not None
    assert store_request(assembly.command, 3).message_id == 65535


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("0000 0000 04", id="cut head"),
        pytest.param("0000 0000 08000000 00000000", id="cut value"),
        pytest.param("0800 1600 02000000 3120", id="not a command element"),
        pytest.param("0000 0001 02000000 0100", id="no data set type"),
        pytest.param("0000 0001 04000000 01000000 0000 0008 02000000 0101", id="long US"),
        pytest.param("", id="nothing"),
    ],
)
def test_impossible_commands(encoded: str) -> None:
    with pytest.raises(ProtocolError):
        decode_command(bytes.fromhex(encoded))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_command_or_a_protocol_error(encoded: bytes) -> None:
    try:
        command = decode_command(encoded)
    except ProtocolError:
        return
    assert command.elements


def _fragment(context_id: int, kind: str, data: bytes = b"") -> Fragment:
    """Kinds: c and C a piece and the last piece of a command, d and D of a data set."""
    return Fragment(context_id, kind in "cC", kind in "CD", memoryview(data))


ECHO = struct.pack("<HHLHHHLH", 0, 0x100, 2, 0x30, 0, 0x800, 2, 0x101)


def test_orders_of_fragments() -> None:
    half = len(STORE_RQ) // 2
    for pieces, wanted in [
        ([_fragment(1, "C", ECHO)], [Step.COMMAND]),
        ([_fragment(1, "C", STORE_RQ), _fragment(1, "D")], [Step.COMMAND, Step.DATA]),
        (
            [
                _fragment(1, "c", STORE_RQ[:half]),
                _fragment(1, "C", STORE_RQ[half:]),
                _fragment(1, "d", b"x"),
                _fragment(1, "D", b"y"),
                _fragment(3, "C", ECHO),
            ],
            [Step.COMMAND_PART, Step.COMMAND, Step.DATA_PART, Step.DATA, Step.COMMAND],
        ),
    ]:
        assembly = Assembly()
        assert [assembly.take(piece) for piece in pieces] == wanted
        assert assembly.is_idle


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([_fragment(1, "d")], id="data first"),
        pytest.param([_fragment(1, "C", STORE_RQ), _fragment(1, "C", ECHO)], id="command inside"),
        pytest.param([_fragment(1, "C", STORE_RQ), _fragment(3, "d")], id="other context"),
        pytest.param(
            [_fragment(1, "c", STORE_RQ[:9]), _fragment(1, "d")], id="data inside command"
        ),
        pytest.param([_fragment(1, "C", ECHO), _fragment(1, "D")], id="data after a message"),
        pytest.param([_fragment(1, "c", bytes(16000))] * 2, id="endless command"),
    ],
)
def test_impossible_orders(pieces: list[Fragment]) -> None:
    assembly = Assembly()
    for piece in pieces[:-1]:
        assembly.take(piece)
    with pytest.raises(ProtocolError):
        assembly.take(pieces[-1])
