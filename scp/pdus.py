"""Protocol data units of the upper layer, as far as the fast path needs them (PS3.8 §9.3).

Pure: bytes in, values out. What a peer announces is checked before anything is reserved for it.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from archive.errors import PeerError

HEADER_LENGTH: Final = 6
PDV_HEADER_LENGTH: Final = 6
HEADERS_LENGTH: Final = HEADER_LENGTH + PDV_HEADER_LENGTH
LENGTH_TOLERANCE: Final = 1024
"""Bytes by which a P-DATA-TF PDU may exceed what was offered: some count the headers, some not."""

MAX_ASSOCIATE_LENGTH: Final = 1 << 20
_CONTROL_LENGTH: Final = 4
_TLS_HANDSHAKE: Final = 0x16

_HEADER = struct.Struct(">BBL")
_PDV_HEADER = struct.Struct(">LBB")
_HEADERS = struct.Struct(">BxLLBB")
_COMMAND: Final = 0x01
_LAST: Final = 0x02


class PduType(IntEnum):
    """Types of protocol data units (PS3.8 §9.3.1)."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


_P_DATA_TF: Final = PduType.P_DATA_TF


class ProtocolError(PeerError):
    """The peer broke the upper layer protocol; the association is aborted (PS3.8 §9.2.3, AA-8)."""

    retryable = False


class Fragment(NamedTuple):
    """A presentation data value: a piece of a command or of a data set (PS3.8 §9.3.5.1).

    Attributes
    ----------
    data
        The piece, valid until the next PDU is read.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def parse_header(header: bytes | memoryview, max_length: int) -> tuple[PduType, int]:
    """Return type and length of the PDU that starts with the six bytes `header`.

    Parameters
    ----------
    max_length
        Maximum length offered to the peer for P-DATA-TF, bytes.

    Raises
    ------
    ProtocolError
        When the type is unknown or the length is not possible for it.
    """
    number, _, length = _HEADER.unpack(header)
    if number == _P_DATA_TF and length <= max_length + LENGTH_TOLERANCE:
        return _P_DATA_TF, length
    try:
        pdu_type = PduType(number)
    except ValueError:
        msg = f"unknown PDU type {number:02X}"
        if number == _TLS_HANDSHAKE:
            msg = (
                "it speaks TLS on a port without: give the connection dicomTLSCipherSuite, or have "
                "the peer call the port with TLS"
            )
        raise ProtocolError(msg) from None
    limit = longest(pdu_type, max_length)
    if length > limit:
        msg = f"{pdu_type.name} PDU of {length} bytes, at most {limit} are taken"
        raise ProtocolError(msg)
    return pdu_type, length


def longest(pdu_type: PduType, max_length: int) -> int:
    """Return the greatest length that is taken from a peer for a PDU of this type, bytes."""
    if pdu_type is PduType.P_DATA_TF:
        return max_length + LENGTH_TOLERANCE
    if pdu_type in {PduType.A_ASSOCIATE_RQ, PduType.A_ASSOCIATE_AC}:
        return MAX_ASSOCIATE_LENGTH
    return _CONTROL_LENGTH


def iter_fragments(body: memoryview) -> Iterator[Fragment]:
    """Yield the fragments of a P-DATA-TF PDU's body.

    Raises
    ------
    ProtocolError
        When a fragment's length does not fit the PDU, or the PDU has none.
    """
    position = 0
    total = len(body)
    if total == 0:
        msg = "P-DATA-TF PDU without a presentation data value"
        raise ProtocolError(msg)
    while position < total:
        if total - position < PDV_HEADER_LENGTH:
            msg = f"{total - position} stray bytes at the end of a P-DATA-TF PDU"
            raise ProtocolError(msg)
        length, context_id, control = _PDV_HEADER.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > total:  # noqa: PLR2004 - context ID and control header
            msg = f"presentation data value of {length} bytes in a PDU of {total} bytes"
            raise ProtocolError(msg)
        yield Fragment(
            context_id,
            control & _COMMAND != 0,
            control & _LAST != 0,
            body[position + PDV_HEADER_LENGTH : end],
        )
        position = end


def whole_piece(buffer: memoryview, start: int, context_id: int) -> int:
    """Return the length of the PDU at `start` if it is just a further piece of a data set.

    That is one fragment on the presentation context, not the last one. 0 for any other PDU, or
    when less than its headers is there.
    """
    if len(buffer) - start < HEADERS_LENGTH:
        return 0
    number, length, inner, context, control = _HEADERS.unpack_from(buffer, start)
    is_piece = number == _P_DATA_TF and control == 0 and context == context_id
    return length if is_piece and length == inner + 4 and inner >= 2 else 0  # noqa: PLR2004 - context ID and control header


def encode_command(context_id: int, command: bytes) -> bytes:
    """Return a P-DATA-TF PDU with one whole encoded command set."""
    return encode_fragment(context_id, command, control=_COMMAND | _LAST)


def encode_fragment(context_id: int, data: bytes | memoryview, *, control: int) -> bytes:
    """Return a P-DATA-TF PDU with one presentation data value."""
    length = len(data) + 2
    head = _HEADER.pack(PduType.P_DATA_TF, 0, length + 4)
    return b"".join((head, _PDV_HEADER.pack(length, context_id, control), data))
