"""Command sets of C-STORE (PS3.7 §9.3.1), always Implicit VR Little Endian (PS3.7 §6.3.1)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from scp.pdus import ProtocolError

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
NO_DATA_SET: Final = 0x0101
MAX_COMMAND_LENGTH: Final = 16384
MAX_COMMENT_LENGTH: Final = 64

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_UL = struct.Struct("<L")


class CommandElement(IntEnum):
    """Elements of group 0000 that are read or written here (PS3.7 §E.1)."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    MOVE_ORIGINATOR_AET = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


# As plain numbers: on Python 3.11 a member of an enumeration takes longer to get than to use.
(
    _GROUP_LENGTH,
    _AFFECTED_SOP_CLASS_UID,
    _COMMAND_FIELD,
    _MESSAGE_ID,
    _MESSAGE_ID_BEING_RESPONDED_TO,
    _COMMAND_DATA_SET_TYPE,
    _STATUS,
    _ERROR_COMMENT,
    _AFFECTED_SOP_INSTANCE_UID,
    _MOVE_ORIGINATOR_AET,
    _MOVE_ORIGINATOR_MESSAGE_ID,
) = map(int, CommandElement)

_US_ELEMENT: Final = struct.Struct("<HHLH")
_OF_A_RESPONSE: Final = _US_ELEMENT.pack(0, _COMMAND_FIELD, _US.size, C_STORE_RSP)
_WITHOUT_DATA_SET: Final = _US_ELEMENT.pack(0, _COMMAND_DATA_SET_TYPE, _US.size, NO_DATA_SET)


class Command(NamedTuple):
    """A decoded command set, as far as it says which message it is."""

    command_field: int
    has_data_set: bool
    elements: dict[int, bytes]


class StoreRequest(NamedTuple):
    """A C-STORE-RQ (PS3.7 §9.3.1.1).

    Attributes
    ----------
    sop_class_uid, sop_instance_uid
        Affected SOP Class and Instance UID without padding, not checked yet.
    """

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    move_originator_aet: str | None = None
    move_originator_message_id: int | None = None


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """Status of a C-STORE-RSP and why, for the sender's log (0000,0902)."""

    status: int
    comment: str = ""


def decode_command(encoded: bytes) -> Command:
    """Return the command set in `encoded`.

    Raises
    ------
    ProtocolError
        When it is not a command set or lacks what every one has.
    """
    elements: dict[int, bytes] = {}
    position, end = 0, len(encoded)
    while position < end:
        start = position + _ELEMENT.size
        if start > end:
            msg = "command set ends inside an element"
            raise ProtocolError(msg)
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position = start + length
        if group != 0 or position > end:
            msg = f"command set holds ({group:04X},{element:04X}) with {length} bytes"
            raise ProtocolError(msg)
        elements[element] = encoded[start:position]
    return Command(
        command_field=_number(elements, _COMMAND_FIELD),
        has_data_set=_number(elements, _COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
        elements=elements,
    )


def store_request(command: Command, context_id: int) -> StoreRequest:
    """Return the C-STORE-RQ that `command` is.

    Raises
    ------
    ProtocolError
        When it lacks the Message ID, without which it cannot be answered.
    """
    elements = command.elements
    originator_id = elements.get(_MOVE_ORIGINATOR_MESSAGE_ID)
    return StoreRequest(
        context_id=context_id,
        message_id=_number(elements, _MESSAGE_ID),
        sop_class_uid=_text(elements, _AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=_text(elements, _AFFECTED_SOP_INSTANCE_UID),
        move_originator_aet=_text(elements, _MOVE_ORIGINATOR_AET) or None,
        move_originator_message_id=(
            _number(elements, _MOVE_ORIGINATOR_MESSAGE_ID) if originator_id else None
        ),
    )


def encode_store_response(request: StoreRequest, answer: StoreAnswer) -> bytes:
    """Return the command set of the C-STORE-RSP to `request` (PS3.7 §9.3.1.2)."""
    body = b"".join(
        (
            _element(_AFFECTED_SOP_CLASS_UID, _uid(request.sop_class_uid)),
            _OF_A_RESPONSE,
            _US_ELEMENT.pack(0, _MESSAGE_ID_BEING_RESPONDED_TO, _US.size, request.message_id),
            _WITHOUT_DATA_SET,
            _US_ELEMENT.pack(0, _STATUS, _US.size, answer.status),
            _element(_ERROR_COMMENT, _comment(answer.comment)) if answer.comment else b"",
            _element(_AFFECTED_SOP_INSTANCE_UID, _uid(request.sop_instance_uid)),
        )
    )
    return _element(_GROUP_LENGTH, _UL.pack(len(body))) + body


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element)
    if value is None or len(value) != _US.size:
        msg = f"command set without a usable (0000,{element:04X}) {CommandElement(element).name}"
        raise ProtocolError(msg)
    number: int = _US.unpack(value)[0]
    return number


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").strip("\0 ")


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" if len(value) % 2 else value


def _comment(comment: str) -> bytes:
    """Return an Error Comment as LO: at most 64 characters of the default repertoire."""
    value = comment.replace("\\", "/").encode("ascii", "replace")[:MAX_COMMENT_LENGTH]
    printable = bytes(byte if 0x20 <= byte < 0x7F else 0x20 for byte in value)  # noqa: PLR2004
    return printable + b" " if len(printable) % 2 else printable
