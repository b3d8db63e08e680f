"""The few DIMSE messages and PDUs that the sending loop writes and reads itself: bytes only.

Command sets are Implicit VR Little Endian (PS3.7 §6.3.1), elements in ascending order. A PDU is
P-DATA-TF with one PDV (PS3.8 §9.3.5): several PDVs in one PDU are allowed, yet some peers fail
at them, and separate PDUs cost nothing when they travel in the same segment.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from archive.errors import PeerError

P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_ABORT = 0x07
PDU_HEADER_LENGTH = 6
PDV_OVERHEAD = 6
"""PDV item length, context ID and message control header, counted in the PDU's length."""

_COMMAND = 0x01
_LAST = 0x02
_C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
_MEDIUM_PRIORITY = 0x0000
_DATASET_FOLLOWS = 0x0001
NO_DATASET = 0x0101

_AFFECTED_SOP_CLASS = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATASET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE = 0x1000
_MOVE_ORIGINATOR_AET = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


class InvalidMessageError(PeerError):
    """The peer sent something that is not the response it owes (PS3.7 §9.3.1.2)."""


@dataclass(frozen=True, slots=True)
class StoreResponse:
    """What a C-STORE-RSP says (PS3.7 §9.3.1.2)."""

    status: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One presentation data value (PS3.8 §9.3.5.1, Annex E)."""

    context_id: int
    is_command: bool
    is_last: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class MoveOriginator:
    """Which C-MOVE a C-STORE is a sub-operation of (PS3.7 §9.1.1.1).

    Attributes
    ----------
    priority
        Priority (0000,0700) of that C-MOVE, which its sub-operations take over.
    """

    aet: str
    message_id: int
    priority: int = _MEDIUM_PRIORITY


def encode_store_request(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    originator: MoveOriginator | None = None,
) -> bytes:
    """Return the command set of a C-STORE-RQ, of medium priority by itself (PS3.7 §9.3.1.1)."""
    priority = originator.priority if originator else _MEDIUM_PRIORITY
    body = b"".join(
        (
            encode_element(_AFFECTED_SOP_CLASS, encode_ui(sop_class_uid)),
            encode_element(_COMMAND_FIELD, encode_us(_C_STORE_RQ)),
            encode_element(_MESSAGE_ID, encode_us(message_id)),
            encode_element(_PRIORITY, encode_us(priority)),
            encode_element(_DATASET_TYPE, encode_us(_DATASET_FOLLOWS)),
            encode_element(_AFFECTED_SOP_INSTANCE, encode_ui(sop_instance_uid)),
            *_originator_elements(originator),
        )
    )
    return encode_element(0x0000, struct.pack("<L", len(body))) + body


def _originator_elements(originator: MoveOriginator | None) -> tuple[bytes, ...]:
    if originator is None:
        return ()
    aet = originator.aet.encode("ascii")
    return (
        encode_element(_MOVE_ORIGINATOR_AET, aet + b" " if len(aet) % 2 else aet),
        encode_element(_MOVE_ORIGINATOR_MESSAGE_ID, encode_us(originator.message_id)),
    )


def pdu_header(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """Return what precedes a fragment of `length` bytes: PDU header and PDV header."""
    control = (_COMMAND if is_command else 0) | (_LAST if is_last else 0)
    return struct.pack(
        ">BBLLBB", P_DATA_TF, 0, length + PDV_OVERHEAD, length + 2, context_id, control
    )


def command_pdus(context_id: int, command: bytes, fragment_length: int) -> Iterator[bytes]:
    """Yield headers and fragments of a command set, alternating."""
    for start in range(0, len(command), fragment_length):
        fragment = command[start : start + fragment_length]
        is_last = start + fragment_length >= len(command)
        yield pdu_header(context_id, len(fragment), is_command=True, is_last=is_last)
        yield fragment


def data_pdus(context_id: int, encoded: bytes, fragment_length: int) -> Iterator[bytes]:
    """Yield headers and fragments of a short data set, alternating."""
    for start in range(0, len(encoded), fragment_length):
        fragment = encoded[start : start + fragment_length]
        is_last = start + fragment_length >= len(encoded)
        yield pdu_header(context_id, len(fragment), is_command=False, is_last=is_last)
        yield fragment


def fragment_length(peer_max: int, own_max: int) -> int:
    """Return the longest even fragment that both limits allow (PS3.8 §D.1, Annex E).

    Parameters
    ----------
    peer_max, own_max
        Longest PDU in bytes, 0 for no limit.

    Raises
    ------
    InvalidMessageError
        When the peer's limit leaves no room for a fragment.
    """
    limits = [limit for limit in (peer_max, own_max, LONGEST_PDU) if limit]
    length = (min(limits) - PDV_OVERHEAD) & ~1
    if length < 2:  # noqa: PLR2004  one byte would be an odd fragment
        msg = f"the peer's maximum PDU length of {peer_max} bytes leaves no room for data"
        raise InvalidMessageError(msg)
    return length


LONGEST_PDU = 1 << 20
_LONGEST_RESPONSE = 1 << 20


def parse_fragments(body: bytes) -> Iterator[Fragment]:
    """Yield the PDVs of a P-DATA-TF.

    Raises
    ------
    InvalidMessageError
        When the lengths of the items do not add up to the PDU's.
    """
    position = 0
    while position < len(body):
        if len(body) - position < PDV_OVERHEAD:
            msg = "a PDV item of the response is cut short"
            raise InvalidMessageError(msg)
        length, context_id, control = struct.unpack_from(">LBB", body, position)
        start, end = position + PDV_OVERHEAD, position + 4 + length
        if end > len(body) or end < start:
            msg = f"a PDV item of the response has a wrong length of {length} bytes"
            raise InvalidMessageError(msg)
        yield Fragment(context_id, bool(control & _COMMAND), bool(control & _LAST), body[start:end])
        position = end


def parse_command(command: bytes) -> dict[int, bytes]:
    """Return the element values of a command set by element number (group 0000).

    Raises
    ------
    InvalidMessageError
        When it is not Implicit VR Little Endian of group 0000.
    """
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(command):
        if len(command) - position < _ELEMENT_HEADER.size:
            msg = "the command set of the response is cut short"
            raise InvalidMessageError(msg)
        group, element, length = _ELEMENT_HEADER.unpack_from(command, position)
        position += _ELEMENT_HEADER.size
        if group != 0 or position + length > len(command):
            msg = f"the command set of the response is damaged at element {element:04X}"
            raise InvalidMessageError(msg)
        elements[element] = command[position : position + length]
        position += length
    return elements


_ELEMENT_HEADER = struct.Struct("<HHL")


class ResponseAssembler:
    """Puts the P-DATA-TF PDUs of one response together; does no input.

    Attributes
    ----------
    data_set
        What followed the command set, which no C-STORE-RSP should have.
    """

    def __init__(self, context_id: int, limit_bytes: int = _LONGEST_RESPONSE) -> None:
        self.data_set = bytearray()
        self._context_id = context_id
        self._limit_bytes = limit_bytes
        self._encoded = bytearray()
        self._command: dict[int, bytes] | None = None
        self._received = 0

    def feed(self, body: bytes) -> dict[int, bytes] | None:
        """Take the body of a P-DATA-TF; return the command set once the message is complete.

        Raises
        ------
        InvalidMessageError
            When the PDU does not continue one message in the expected context.
        """
        self._received += len(body)
        if self._received > self._limit_bytes:
            msg = f"the response is longer than {self._limit_bytes >> 20} MiB"
            raise InvalidMessageError(msg)
        complete = False
        for fragment in parse_fragments(body):
            if complete or fragment.context_id != self._context_id:
                msg = f"unexpected data in presentation context {fragment.context_id}"
                raise InvalidMessageError(msg)
            complete = self._take(fragment)
        return self._command if complete else None

    def _take(self, fragment: Fragment) -> bool:
        """Take one fragment; return whether it ends the message."""
        if fragment.is_command != (self._command is None):
            msg = "command and data set of the response are out of order"
            raise InvalidMessageError(msg)
        if self._command is not None:
            self.data_set += fragment.value
            return fragment.is_last
        self._encoded += fragment.value
        if not fragment.is_last:
            return False
        self._command = parse_command(bytes(self._encoded))
        return read_us(self._command, _DATASET_TYPE, default=NO_DATASET) == NO_DATASET


def read_store_response(
    command: dict[int, bytes], message_id: int, sop_instance_uid: str
) -> StoreResponse:
    """Return the response to a C-STORE-RQ.

    Raises
    ------
    InvalidMessageError
        When it is no C-STORE-RSP, belongs to another message or names another SOP instance.
    """
    kind = read_us(command, _COMMAND_FIELD)
    if kind != _C_STORE_RSP:
        msg = f"expected a C-STORE response, received a message of command field {kind:04X}"
        raise InvalidMessageError(msg)
    responded_to = read_us(command, _MESSAGE_ID_RESPONDED_TO)
    if responded_to != message_id:
        msg = f"expected the response to message {message_id}, received that to {responded_to}"
        raise InvalidMessageError(msg)
    named = read_text(command, _AFFECTED_SOP_INSTANCE)
    if named and named != sop_instance_uid:
        msg = f"the response to {sop_instance_uid} names another SOP instance, {named[:80]!r}"
        raise InvalidMessageError(msg)
    return StoreResponse(read_us(command, _STATUS), read_text(command, _ERROR_COMMENT)[:64])


def read_us(command: dict[int, bytes], element: int, default: int | None = None) -> int:
    """Return the value of an element of VR US.

    Parameters
    ----------
    default
        Value of an absent element; None: it must be there.

    Raises
    ------
    InvalidMessageError
        When it is absent, or no number.
    """
    value = command.get(element)
    if value is not None and len(value) == 2:  # noqa: PLR2004  VR US
        return int.from_bytes(value, "little")
    if value is None and default is not None:
        return default
    msg = f"the response has no valid element (0000,{element:04X})"
    raise InvalidMessageError(msg)


def read_text(command: dict[int, bytes], element: int) -> str:
    """Return the text of an element without padding; empty when it is absent."""
    return command.get(element, b"").decode("ascii", "replace").strip("\0 ")


def encode_element(element: int, value: bytes) -> bytes:
    """Return an element of a command set."""
    return _ELEMENT_HEADER.pack(0, element, len(value)) + value


def encode_us(value: int) -> bytes:
    """Return a value of VR US."""
    return value.to_bytes(2, "little")


def encode_ui(uid: str) -> bytes:
    """Return a value of VR UI."""
    encoded = uid.encode("ascii")
    return encoded + b"\0" if len(encoded) % 2 else encoded
