"""Data sets of storage commitment as bytes, for requests and reports of many thousand instances.

pydicom takes a third of a millisecond and several kilobytes for each item of a sequence, which
for ten thousand of them is longer than peers wait for a response. What is written and read here
are two flat sequences in little endian; anything else is left to pydicom. Pure.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from archive.model.commitment import Report, SopReference, event_head

_Default = TypeVar("_Default")

IMPLICIT_VR_LE: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LE: Final = "1.2.840.10008.1.2.1"

_RETRIEVE_AE_TITLE: Final = 0x00080054
_REFERENCED_SOP_CLASS_UID: Final = 0x00081150
_REFERENCED_SOP_INSTANCE_UID: Final = 0x00081155
_TRANSACTION_UID: Final = 0x00081195
_FAILURE_REASON: Final = 0x00081197
_FAILED_SOP_SEQUENCE: Final = 0x00081198
_REFERENCED_SOP_SEQUENCE: Final = 0x00081199
_TAGS: Final = {
    "RetrieveAETitle": _RETRIEVE_AE_TITLE,
    "ReferencedSOPClassUID": _REFERENCED_SOP_CLASS_UID,
    "ReferencedSOPInstanceUID": _REFERENCED_SOP_INSTANCE_UID,
    "TransactionUID": _TRANSACTION_UID,
    "FailureReason": _FAILURE_REASON,
    "FailedSOPSequence": _FAILED_SOP_SEQUENCE,
    "ReferencedSOPSequence": _REFERENCED_SOP_SEQUENCE,
}
_SEQUENCES: Final = frozenset({_FAILED_SOP_SEQUENCE, _REFERENCED_SOP_SEQUENCE})
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_IMPLICIT: Final = struct.Struct("<HHL")
_EXPLICIT: Final = struct.Struct("<HH2sH")
_LONG: Final = struct.Struct("<L")

_Field = tuple[int, bytes, bytes]


class UnusualEncodingError(ValueError):
    """The bytes are not as simple as this module expects; a general decoder has to read them."""


def encoded_request(
    transaction_uid: str, references: Sequence[SopReference], transfer_syntax_uid: str
) -> Dataset:
    """Return the Action Information of a request, its sequence encoded already.

    Parameters
    ----------
    transfer_syntax_uid
        Implicit or Explicit VR Little Endian, in which alone the data set can be sent.
    """
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    items = (_reference(each.sop_class_uid, each.sop_instance_uid) for each in references)
    return _with_sequences(dataset, {_REFERENCED_SOP_SEQUENCE: items}, transfer_syntax_uid)


def encoded_report(report: Report, transfer_syntax_uid: str) -> Dataset:
    """Return the Event Information of a report, its sequences encoded already."""
    dataset, common = event_head(report)
    committed = [each for each in report.instances if each.failure_reason is None]
    failed = [each for each in report.instances if each.failure_reason is not None]
    sequences: dict[int, Iterable[list[_Field]]] = {}
    if failed:
        sequences[_FAILED_SOP_SEQUENCE] = (
            [
                *_reference(each.sop_class_uid, each.sop_instance_uid),
                (_FAILURE_REASON, b"US", (each.failure_reason or 0).to_bytes(2, "little")),
            ]
            for each in failed
        )
    if committed:
        sequences[_REFERENCED_SOP_SEQUENCE] = (
            [
                *_title(each.retrieve_aet if each.retrieve_aet != common else None),
                *_reference(each.sop_class_uid, each.sop_instance_uid),
            ]
            for each in committed
        )
    return _with_sequences(dataset, sequences, transfer_syntax_uid)


def can_encode(transfer_syntax_uid: str) -> bool:
    """Tell whether data sets can be encoded in a transfer syntax."""
    return transfer_syntax_uid in {IMPLICIT_VR_LE, EXPLICIT_VR_LE}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> list[_Field]:
    return [
        (_REFERENCED_SOP_CLASS_UID, b"UI", _padded(sop_class_uid, b"\0")),
        (_REFERENCED_SOP_INSTANCE_UID, b"UI", _padded(sop_instance_uid, b"\0")),
    ]


def _title(title: str | None) -> list[_Field]:
    return [(_RETRIEVE_AE_TITLE, b"AE", _padded(title, b" "))] if title else []


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value


def _with_sequences(
    dataset: Dataset, sequences: dict[int, Iterable[list[_Field]]], transfer_syntax_uid: str
) -> Dataset:
    is_implicit = transfer_syntax_uid == IMPLICIT_VR_LE
    for tag, items in sequences.items():
        value = b"".join(_item(fields, is_implicit=is_implicit) for fields in items)
        dataset[Tag(tag)] = RawDataElement(
            Tag(tag), "SQ", len(value), value, 0, is_implicit, is_little_endian=True
        )
    dataset.set_original_encoding(is_implicit, True, "iso8859")  # noqa: FBT003 - pydicom's own
    return dataset


def _item(fields: list[_Field], *, is_implicit: bool) -> bytes:
    body = b"".join(_element(*field, is_implicit=is_implicit) for field in fields)
    return _IMPLICIT.pack(_ITEM >> 16, _ITEM & 0xFFFF, len(body)) + body


def _element(tag: int, vr: bytes, value: bytes, *, is_implicit: bool) -> bytes:
    group, element = tag >> 16, tag & 0xFFFF
    if is_implicit:
        return _IMPLICIT.pack(group, element, len(value)) + value
    return _EXPLICIT.pack(group, element, vr, len(value)) + value


class Elements:
    """Elements of a data set or item that can be asked for by keyword, as of a `Dataset`."""

    __slots__ = ("_values",)

    def __init__(self, values: "dict[int, bytes | list[Elements]]") -> None:
        self._values = values

    def get(self, name: str, default: _Default) -> Any | _Default:  # noqa: ANN401 - as Dataset.get
        """Return a value: text, a number, a list of items, or `default`."""
        value = self._values.get(_TAGS[name])
        if value is None:
            return default
        if isinstance(value, list):
            return value
        if name == "FailureReason":
            return int.from_bytes(value[:2], "little")
        return value.decode("ascii", "replace").strip("\0 ")


def decode_elements(data: bytes, transfer_syntax_uid: str) -> Elements:
    """Return the elements of an Action or Event Information.

    Raises
    ------
    UnusualEncodingError
        When the transfer syntax or the way of encoding is not one of the usual ones.
    """
    if not can_encode(transfer_syntax_uid):
        msg = f"transfer syntax {transfer_syntax_uid}"
        raise UnusualEncodingError(msg)
    try:
        reader = _Reader(data, is_implicit=transfer_syntax_uid == IMPLICIT_VR_LE)
        return Elements(dict(reader.elements(0, len(data))))
    except struct.error as error:
        msg = "the data set ends inside an element"
        raise UnusualEncodingError(msg) from error


class _Reader:
    """Reads elements one after the other; remembers where it is."""

    def __init__(self, data: bytes, *, is_implicit: bool) -> None:
        self._data = data
        self._is_implicit = is_implicit
        self._position = 0

    def elements(self, start: int, end: int) -> "Iterator[tuple[int, bytes | list[Elements]]]":
        """Yield tag and value up to `end` or, where that is unknown (-1), to the item's end."""
        self._position = start
        while end < 0 or self._position < end:
            tag, length = self._head()
            if tag == _ITEM_END and end < 0:
                return
            if tag in _SEQUENCES:
                yield tag, list(self._items(length))
                continue
            stop = self._position + length
            if length == _UNDEFINED or stop > len(self._data) or tag >> 16 == _ITEM >> 16:
                msg = f"element {tag:08X} of {length} bytes"
                raise UnusualEncodingError(msg)
            value = self._data[self._position : stop]
            self._position = stop
            yield tag, value

    def _items(self, length: int) -> Iterator[Elements]:
        end = -1 if length == _UNDEFINED else self._position + length
        while end < 0 or self._position < end:
            tag, item_length = self._delimiter()
            if tag == _SEQUENCE_END and end < 0:
                return
            if tag != _ITEM:
                msg = f"{tag:08X} in place of an item"
                raise UnusualEncodingError(msg)
            stop = -1 if item_length == _UNDEFINED else self._position + item_length
            yield Elements(dict(self.elements(self._position, stop)))

    def _head(self) -> tuple[int, int]:
        tag, length = self._delimiter()
        if self._is_implicit or tag >> 16 == _ITEM >> 16:
            return tag, length
        self._position -= _IMPLICIT.size
        _, _, vr, short = _EXPLICIT.unpack_from(self._data, self._position)
        self._position += _EXPLICIT.size
        if vr not in _LONG_VRS:
            return tag, int(short)
        (length,) = _LONG.unpack_from(self._data, self._position)
        self._position += _LONG.size
        return tag, length

    def _delimiter(self) -> tuple[int, int]:
        group, element, length = _IMPLICIT.unpack_from(self._data, self._position)
        self._position += _IMPLICIT.size
        return (group << 16) | element, length
