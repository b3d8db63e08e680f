"""The DIMSE messages of a C-MOVE as bytes: request, cancel and responses (PS3.7 §9.3.4, §9.3.2.3).

Archives send a response for each of thousands of objects; read here, one takes some microseconds.
"""

import struct
from dataclasses import dataclass
from io import BytesIO

from pydicom.multival import MultiValue
from pynetdicom.dsutils import decode

from archive.model.retrieval import MAX_COMMENT_LENGTH, RetrieveResult, SubOperations
from workers.dimse import (
    LONGEST_PDU,
    NO_DATASET,
    P_DATA_TF,
    PDU_HEADER_LENGTH,
    InvalidMessageError,
    ResponseAssembler,
    encode_element,
    encode_ui,
    encode_us,
    read_text,
    read_us,
)

_C_MOVE_RQ = 0x0021
_C_MOVE_RSP = 0x8021
_C_CANCEL_RQ = 0x0FFF
_DATASET_FOLLOWS = 0x0001

_AFFECTED_SOP_CLASS = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_MOVE_DESTINATION = 0x0600
_PRIORITY = 0x0700
_DATASET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_REMAINING, _COMPLETED, _FAILED, _WARNING = 0x1020, 0x1021, 0x1022, 0x1023

_LONGEST_RESPONSE = 8 << 20  # 65535 failed UIDs of 65 bytes with their backslashes
_UNREADABLE = (
    ValueError,
    TypeError,
    NotImplementedError,
    LookupError,
    AttributeError,
    OSError,
    struct.error,
)
_HEADER = struct.Struct(">BxL")


@dataclass(frozen=True, slots=True)
class Pdu:
    """A received PDU (PS3.8 §9.3.1)."""

    kind: int
    body: bytes


class PduBuffer:
    """Cuts received bytes into PDUs."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        """Return how many bytes wait."""
        return len(self._bytes)

    def feed(self, piece: bytes) -> None:
        """Append what was received."""
        self._bytes += piece

    def next(self) -> Pdu | None:
        """Return the next PDU, None when it is not complete.

        Raises
        ------
        InvalidMessageError
            When it is longer than any that was offered.
        """
        if len(self._bytes) < PDU_HEADER_LENGTH:
            return None
        kind, length = _HEADER.unpack_from(self._bytes)
        if length > LONGEST_PDU:
            msg = f"a PDU of type {kind:02X} and length {length} instead of a response"
            raise InvalidMessageError(msg)
        end = PDU_HEADER_LENGTH + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[PDU_HEADER_LENGTH:end])
        del self._bytes[:end]
        return Pdu(kind, body)


def encode_move_request(
    message_id: int, sop_class_uid: str, destination_aet: str, priority: int
) -> bytes:
    """Return the command set of a C-MOVE-RQ, which an identifier follows (PS3.7 §9.3.4.1)."""
    destination = destination_aet.encode("ascii", "replace")
    return _command(
        (_AFFECTED_SOP_CLASS, encode_ui(sop_class_uid)),
        (_COMMAND_FIELD, encode_us(_C_MOVE_RQ)),
        (_MESSAGE_ID, encode_us(message_id)),
        (_MOVE_DESTINATION, destination + b" " * (len(destination) % 2)),
        (_PRIORITY, encode_us(priority)),
        (_DATASET_TYPE, encode_us(_DATASET_FOLLOWS)),
    )


def encode_cancel(message_id: int) -> bytes:
    """Return the command set of a C-CANCEL-RQ (PS3.7 §9.3.2.3)."""
    return _command(
        (_COMMAND_FIELD, encode_us(_C_CANCEL_RQ)),
        (_MESSAGE_ID_RESPONDED_TO, encode_us(message_id)),
        (_DATASET_TYPE, encode_us(NO_DATASET)),
    )


def _command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(encode_element(tag, value) for tag, value in elements)
    return encode_element(0x0000, struct.pack("<L", len(body))) + body


class MoveResponses:
    """Makes results of the PDUs that answer one request; does no input.

    Parameters
    ----------
    implicit
        Whether the context's transfer syntax is Implicit VR Little Endian.
    """

    def __init__(self, context_id: int, message_id: int, *, implicit: bool) -> None:
        self._context_id = context_id
        self._message_id = message_id
        self._implicit = implicit
        self._assembler = ResponseAssembler(context_id, _LONGEST_RESPONSE)

    def feed(self, pdu: Pdu) -> RetrieveResult | None:
        """Take a PDU; return the response that it completes.

        Raises
        ------
        InvalidMessageError
            When it is no part of a response to the request.
        """
        if pdu.kind != P_DATA_TF:
            msg = f"a PDU of type {pdu.kind:02X} instead of a response"
            raise InvalidMessageError(msg)
        command = self._assembler.feed(pdu.body)
        if command is None:
            return None
        data_set = bytes(self._assembler.data_set)
        self._assembler = ResponseAssembler(self._context_id, _LONGEST_RESPONSE)
        return self._result(command, data_set)

    def _result(self, command: dict[int, bytes], data_set: bytes) -> RetrieveResult:
        kind = read_us(command, _COMMAND_FIELD)
        if kind != _C_MOVE_RSP:
            msg = f"a message of command field {kind:04X} instead of a C-MOVE response"
            raise InvalidMessageError(msg)
        responded_to = read_us(command, _MESSAGE_ID_RESPONDED_TO)
        if responded_to != self._message_id:
            msg = f"the response to message {responded_to} instead of {self._message_id}"
            raise InvalidMessageError(msg)
        status = read_us(command, _STATUS)
        tags = (_REMAINING, _COMPLETED, _FAILED, _WARNING)
        counts = SubOperations(*(_count(command, tag) for tag in tags))
        uids = failed_uids(data_set, implicit=self._implicit) if data_set else ()
        words = read_text(command, _ERROR_COMMENT)[:MAX_COMMENT_LENGTH]
        return RetrieveResult(status, counts, uids, words)


def _count(command: dict[int, bytes], tag: int) -> int:
    """Return a counter, 0 when it is absent or empty."""
    return read_us(command, tag) if command.get(tag) else 0


def failed_uids(identifier: bytes, *, implicit: bool) -> tuple[str, ...]:
    """Return the Failed SOP Instance UID List (0008,0058) of a response; none if unreadable."""
    try:
        dataset = decode(BytesIO(identifier), implicit, True)  # noqa: FBT003
        value = dataset.get("FailedSOPInstanceUIDList")
    except _UNREADABLE:
        return ()  # the counters say how many failed all the same
    if not value:
        return ()
    values = value if isinstance(value, MultiValue) else [value]
    return tuple(str(each) for each in values)
