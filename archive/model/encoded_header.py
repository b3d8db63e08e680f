"""The encoded elements of an object before its pixel data, with some of them rewritten. Pure.

Only what is changed is encoded anew; the bytes of everything else stay as they were, in their
order, so that an object whose attributes were coerced is otherwise the one that was received
(PS3.5 §7).
"""

import struct
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag

from archive.errors import DatasetError

_CHARACTER_SET: Final = 0x00080005
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_LONGEST_HEAD: Final = 12
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_ITEMS: Final = 0xFFFE
_MAX_DEPTH: Final = 32
_UTF_8: Final = "ISO_IR 192"
_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


class IncompleteHeaderError(DatasetError):
    """The bytes end before the pixel data or the end of the object: more of them are needed."""


class _Place(NamedTuple):
    """Where an element lies in the bytes."""

    tag: int
    vr: str | None
    start: int
    value: int
    end: int
    is_undefined: bool


class EncodedHeader:
    """The elements up to the pixel data.

    Parameters
    ----------
    data
        The encoded data set from its beginning.
    is_implicit, is_little_endian
        How it is encoded.
    is_whole
        Whether nothing follows `data`.

    Raises
    ------
    IncompleteHeaderError
        When `data` ends within the header, and more of it may come.
    DatasetError
        When it is no data set.
    """

    def __init__(
        self, data: bytes, *, is_implicit: bool, is_little_endian: bool, is_whole: bool
    ) -> None:
        self._data = data
        self._implicit = is_implicit
        self._little = is_little_endian
        self._is_whole = is_whole
        order = "<" if is_little_endian else ">"
        self._tag_length = struct.Struct(order + "HHL")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")
        self._places: list[_Place] = []
        self.pixel_vr: str | None = None
        self.end = self._walk()

    def dataset(self) -> Dataset:
        """Return the elements as a data set whose values are decoded when asked for."""
        raw: dict[BaseTag, DataElement | RawDataElement] = {
            BaseTag(place.tag): self._raw(place) for place in self._places
        }
        dataset = Dataset(raw)
        dataset.set_original_encoding(self._implicit, self._little, self._encodings(dataset))
        return dataset

    def splice(self, dataset: Dataset, changed: Collection[int]) -> bytes:
        """Return the header with the `changed` elements as they are in `dataset` now.

        When their text does not fit the character set of the object, its text becomes UTF-8.

        Raises
        ------
        DatasetError
            When a changed element cannot be encoded.
        """
        wanted = set(changed) - _PIXEL_TAGS
        try:
            return self._spliced(dataset, wanted)
        except UnicodeError:
            return self._in_utf_8(dataset, wanted)

    def _in_utf_8(self, dataset: Dataset, changed: set[int]) -> bytes:
        """Return the header with all of its text in UTF-8."""
        decoded = self.dataset()
        decoded.decode()
        for tag in changed:
            decoded.pop(BaseTag(tag), None)
            if tag in dataset:
                decoded[BaseTag(tag)] = dataset[tag]
        text = {int(element.tag) for element in decoded if _has_text(element)}
        decoded[_CHARACTER_SET] = DataElement(_CHARACTER_SET, "CS", _UTF_8)
        _drop_nested_character_sets(decoded)
        return self._spliced(decoded, changed | text | {_CHARACTER_SET})

    def _spliced(self, dataset: Dataset, changed: set[int]) -> bytes:
        encodings = _encodings_of(dataset)
        new = {tag: self._encoded(dataset[tag], encodings) for tag in changed if tag in dataset}
        parts: list[bytes] = []
        rest = sorted(new, reverse=True)
        for place in self._places:
            while rest and rest[-1] < place.tag:
                parts.append(new[rest.pop()])
            if rest and rest[-1] == place.tag:
                parts.append(new[rest.pop()])
            elif place.tag not in changed:
                parts.append(self._data[place.start : place.end])
        parts.extend(new[tag] for tag in reversed(rest))
        return b"".join(parts)

    def _encoded(self, element: DataElement, encodings: list[str]) -> bytes:
        for text in _texts(element):
            _check_encodable(text, encodings)
        buffer = DicomBytesIO()
        buffer.is_implicit_VR = self._implicit
        buffer.is_little_endian = self._little
        try:
            write_data_element(buffer, element, encodings)
        except (ValueError, TypeError, KeyError, AttributeError, OSError, struct.error) as error:
            msg = f"({element.tag.group:04X},{element.tag.element:04X}) cannot be encoded: {error}"
            raise DatasetError(msg) from error
        return bytes(buffer.getvalue())

    def _raw(self, place: _Place) -> RawDataElement:
        tag, vr, _, start, end, is_undefined = place
        value = self._data[start : end - 8 if is_undefined else end]
        implicit = self._implicit or vr == "UN"
        return RawDataElement(BaseTag(tag), vr, len(value), value, start, implicit, self._little)

    def _encodings(self, dataset: Dataset) -> list[str]:
        element = dataset.get_item(_CHARACTER_SET)
        value = element.value if element is not None else None
        terms = value.decode("ascii", "replace").split("\\") if isinstance(value, bytes) else [""]
        return [python_encoding.get(term.strip("\0 ")) or default_encoding for term in terms]

    # --- walking

    def _walk(self) -> int:
        """Note the elements and return where the header ends."""
        position, size, note = 0, len(self._data), self._places.append
        while position < size:
            tag, vr, length, value = self._top_head(position)
            if tag in _PIXEL_TAGS:
                self.pixel_vr = vr or "OW"
                return position
            if length == _UNDEFINED:
                end = self._after_items(value, implicit=self._implicit or vr == "UN", depth=1)
            else:
                end = value + length
            if end > size:
                raise self._ended(end)
            note(_Place(tag, vr, position, value, end, length == _UNDEFINED))
            position = end
        if not self._is_whole:
            raise self._ended(position)
        return position

    def _top_head(self, position: int) -> tuple[int, str | None, int, int]:
        """Return the same as `_head`, by a short cut for the most common form."""
        if self._implicit or len(self._data) - position < _LONGEST_HEAD:
            return self._head(position, implicit=self._implicit)
        group, number, length = self._tag_length.unpack_from(self._data, position)
        vr = self._data[position + 4 : position + 6]
        if vr in _LONG_VRS:
            return self._head(position, implicit=False)
        length = self._short.unpack_from(self._data, position + 6)[0]
        return group << 16 | number, _vr_text(vr), length, position + 8

    def _head(self, position: int, *, implicit: bool) -> tuple[int, str | None, int, int]:
        """Return tag, VR, length and position of the value of the element at `position`."""
        if position + 8 > len(self._data):
            raise self._ended(position + 8)
        group, number, length = self._tag_length.unpack_from(self._data, position)
        if implicit or group == _ITEMS:
            return group << 16 | number, None, length, position + 8
        vr = self._data[position + 4 : position + 6]
        if vr not in _LONG_VRS:
            length = self._short.unpack_from(self._data, position + 6)[0]
            return group << 16 | number, vr.decode("latin-1"), length, position + 8
        if position + 12 > len(self._data):
            raise self._ended(position + 12)
        length = self._long.unpack_from(self._data, position + 8)[0]
        return group << 16 | number, vr.decode("latin-1"), length, position + 12

    def _after_items(self, position: int, *, implicit: bool, depth: int) -> int:
        """Return the position after a sequence of undefined length."""
        if depth > _MAX_DEPTH:
            msg = f"sequences nested more than {_MAX_DEPTH} deep"
            raise DatasetError(msg)
        while True:
            tag, _, length, value = self._head(position, implicit=True)
            if tag == _SEQUENCE_END:
                return value
            if tag != _ITEM:
                msg = f"a sequence holds something that is not an item at byte {position}"
                raise DatasetError(msg)
            if length != _UNDEFINED:
                position = value + length
            else:
                position = self._after_item(value, implicit=implicit, depth=depth)

    def _after_item(self, position: int, *, implicit: bool, depth: int) -> int:
        while True:
            tag, vr, length, value = self._head(position, implicit=implicit)
            if tag == _ITEM_END:
                return value
            if length == _UNDEFINED:
                nested = implicit or vr == "UN"
                position = self._after_items(value, implicit=nested, depth=depth + 1)
            else:
                position = value + length

    def _ended(self, wanted: int) -> DatasetError:
        """Return the error for bytes that end before `wanted`."""
        if self._is_whole:
            return DatasetError(f"the data set ends before byte {wanted}")
        return IncompleteHeaderError(f"the header goes on after byte {len(self._data)}")


@lru_cache(maxsize=256)
def _vr_text(vr: bytes) -> str:
    return vr.decode("latin-1")


def _encodings_of(dataset: Dataset) -> list[str]:
    element = dataset.get(_CHARACTER_SET)
    value = element.value if element is not None else None
    if not value:
        return ["ascii"]
    try:
        return [str(each) for each in convert_encodings(value)]
    except (LookupError, ValueError):
        return ["ascii"]


def _texts(element: DataElement) -> Iterator[str]:
    """Yield the values of an element, and of those in its items, that a character set concerns."""
    if element.VR == "SQ":
        for item in element.value:
            for nested in item:
                yield from _texts(nested)
    elif element.VR in _TEXT_VRS and element.value:
        yield from [str(element.value)] if element.VM == 1 else map(str, element.value)


def _check_encodable(text: str, encodings: list[str]) -> None:
    """Check that each character is in one of the character sets; pydicom would replace it.

    Raises
    ------
    UnicodeEncodeError
        When one is in none.
    """
    if text.isascii():
        return
    if len(encodings) == 1:
        text.encode(encodings[0])
        return
    for character in set(text):
        if not any(_can_encode(character, encoding) for encoding in encodings):
            character.encode("ascii")


def _can_encode(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def _has_text(element: DataElement) -> bool:
    return element.VR in _TEXT_VRS or element.VR == "SQ"


def _drop_nested_character_sets(dataset: Dataset) -> None:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                item.pop(BaseTag(_CHARACTER_SET), None)
                _drop_nested_character_sets(item)


def vr_of(tag: int) -> str:
    """Return the VR of the standard for a tag, LO for one it does not know."""
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "LO"
