"""Command sets of C-STORE (PS3.7 §9.3.1), always Implicit VR Little Endian (PS3.7 §6.3.1)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from scp.pdus import ProtocolError

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
NO_DATA_SET: Final = 0x0101
MAX_COMMAND_LENGTH: Final = 16384
MAX_COMMENT_LENGTH: Final = 64

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")


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


@dataclass(frozen=True, slots=True)
class Command:
    """A decoded command set, as far as it says which message it is."""

    command_field: int
    has_data_set: bool
    elements: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class StoreRequest:
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
    position = 0
    while position < len(encoded):
        if len(encoded) - position < _ELEMENT.size:
            msg = "command set ends inside an element"
            raise ProtocolError(msg)
        group, element, length = _ELEMENT.unpack_from(encoded, position)
        position += _ELEMENT.size
        if group != 0 or length > len(encoded) - position:
            msg = f"command set holds ({group:04X},{element:04X}) with {length} bytes"
            raise ProtocolError(msg)
        elements[element] = encoded[position : position + length]
        position += length
    return Command(
        command_field=_number(elements, CommandElement.COMMAND_FIELD),
        has_data_set=_number(elements, CommandElement.COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
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
    originator_id = elements.get(CommandElement.MOVE_ORIGINATOR_MESSAGE_ID)
    return StoreRequest(
        context_id=context_id,
        message_id=_number(elements, CommandElement.MESSAGE_ID),
        sop_class_uid=_text(elements, CommandElement.AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=_text(elements, CommandElement.AFFECTED_SOP_INSTANCE_UID),
        move_originator_aet=_text(elements, CommandElement.MOVE_ORIGINATOR_AET) or None,
        move_originator_message_id=(
            _number(elements, CommandElement.MOVE_ORIGINATOR_MESSAGE_ID) if originator_id else None
        ),
    )


def encode_store_response(request: StoreRequest, answer: StoreAnswer) -> bytes:
    """Return the command set of the C-STORE-RSP to `request` (PS3.7 §9.3.1.2)."""
    parts = [
        _element(CommandElement.AFFECTED_SOP_CLASS_UID, _uid(request.sop_class_uid)),
        _element(CommandElement.COMMAND_FIELD, _US.pack(C_STORE_RSP)),
        _element(CommandElement.MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        _element(CommandElement.COMMAND_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        _element(CommandElement.STATUS, _US.pack(answer.status)),
    ]
    if answer.comment:
        parts.append(_element(CommandElement.ERROR_COMMENT, _comment(answer.comment)))
    parts.append(_element(CommandElement.AFFECTED_SOP_INSTANCE_UID, _uid(request.sop_instance_uid)))
    body = b"".join(parts)
    return _element(CommandElement.GROUP_LENGTH, struct.pack("<L", len(body))) + body


def _number(elements: dict[int, bytes], element: CommandElement) -> int:
    value = elements.get(element)
    if value is None or len(value) != _US.size:
        msg = f"command set without a usable (0000,{element:04X}) {element.name}"
        raise ProtocolError(msg)
    number: int = _US.unpack(value)[0]
    return number


def _text(elements: dict[int, bytes], element: CommandElement) -> str:
    return elements.get(element, b"").decode("ascii", "replace").strip("\0 ")


def _element(element: CommandElement, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" if len(value) % 2 else value


def _comment(comment: str) -> bytes:
    """Return an Error Comment as LO: at most 64 characters of the default repertoire."""
    value = comment.replace("\\", "/").encode("ascii", "replace")[:MAX_COMMENT_LENGTH]
    printable = bytes(byte if 0x20 <= byte < 0x7F else 0x20 for byte in value)  # noqa: PLR2004
    return printable + b" " if len(printable) % 2 else printable
