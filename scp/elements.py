"""Walks the elements of an encoded data set without decoding their values (PS3.5 §7).

The walk reads through a small window, skips values it has no use for, keeps nothing of a value
longer than `KEPT_VALUE_LENGTH`, and ends before pixel data, so its memory does not depend on the
object. Every announced length is checked against the bytes that are there.
"""

import struct
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, NoReturn

from archive.errors import DatasetError

KEPT_VALUE_LENGTH: Final = 65536
WINDOW_LENGTH: Final = 16384
"""Bytes that are read at once."""

_KEPT_TOTAL: Final = 4 << 20
UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_MAX_DEPTH: Final = 32
_MAX_TOP_LEVEL: Final = 20_000
_MAX_ELEMENTS: Final = 500_000
_MAX_PIXEL_FRAGMENTS: Final = 100_000

_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
"""VRs whose length has two bytes (PS3.5 §7.1.2)."""

_FIRST_GROUP: Final = 0x0002
VR_NAMES: Final = {vr: vr.decode("ascii") for vr in SHORT_VRS | _LONG_VRS}
_PIXEL_DATA: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_PER_FRAME_GROUPS: Final = 0x52009230
_ITEM_GROUP: Final = 0xFFFE
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD

_LITTLE: Final = tuple(struct.Struct(each).unpack_from for each in ("<HHL", "<HH2sH", "<L"))
_BIG: Final = tuple(struct.Struct(each).unpack_from for each in (">HHL", ">HH2sH", ">L"))


class Encoding(NamedTuple):
    """How a data set is encoded (PS3.5 §7.1, §7.3)."""

    is_implicit: bool
    is_little_endian: bool


class Element(NamedTuple):
    """An element of the top level.

    Attributes
    ----------
    vr
        Two characters, None when the encoding does not tell.
    value
        Its encoded value, None when it is too long to be kept. Of a sequence of undefined length,
        its items without the delimiter.
    """

    tag: int
    vr: str | None
    value: bytes | None


class Beginning(NamedTuple):
    """The part of a data set whose elements are known already.

    Attributes
    ----------
    window
        The first bytes of the data set.
    position
        Where in them the walk has to begin.
    elements
        The wanted ones before that; the walk adds those that it finds.
    passed
        How many elements lie there, wanted or not.
    """

    window: bytes
    position: int
    elements: dict[int, Element]
    passed: int


class Source(NamedTuple):
    """Where the bytes of a data set are.

    Attributes
    ----------
    read
        Returns up to so many bytes from a position.
    length
        Bytes of the data set that can be read.
    is_whole
        Whether that is all of it; if not, the walk may end at the last byte that can be read.
    """

    read: Callable[[int, int], bytes]
    length: int
    is_whole: bool = True


def walk(
    source: Source,
    encoding: Encoding,
    wanted: AbstractSet[int] | None = None,
    *,
    beginning: Beginning | None = None,
    starts: list[int] | None = None,
) -> dict[int, Element]:
    """Return the elements before the pixel data, by tag.

    The walk also ends before per-frame functional groups of undefined length, which can be
    megabytes of nested items and hold nothing that is indexed.

    Parameters
    ----------
    wanted
        Tags of interest; the others are left out. None takes all.
    beginning
        What has been read before.
    starts
        Takes the positions of the elements that begin in the window, and of what follows them.

    Raises
    ------
    DatasetError
        When the bytes are not a data set in this encoding, or end early.
    """
    begun = Beginning(b"", 0, {}, 0) if beginning is None else beginning
    return _Walk(source, encoding, wanted).run(begun, [] if starts is None else starts)


class _Head(NamedTuple):
    """Tag, VR (empty when the encoding has none), length, and where the value starts."""

    tag: int
    vr: bytes
    length: int
    value_at: int


class _Walk:
    """One walk over a data set."""

    def __init__(self, source: Source, encoding: Encoding, wanted: AbstractSet[int] | None) -> None:
        self._source = source
        self._encoding = encoding
        self._wanted = wanted
        formats = _LITTLE if encoding.is_little_endian else _BIG
        self._implicit_head, self._explicit_head, self._long = formats
        self._starts: list[int] = []
        self._window = b""
        self._window_at = 0
        self._kept = 0
        self._seen = 0
        self._top_level = 0

    def run(self, beginning: Beginning, starts: list[int]) -> dict[int, Element]:
        self._window, position, elements, self._top_level = beginning
        self._kept = position
        self._starts = starts
        while (position := self._take_short(elements, position)) < self._source.length:
            if not self._source.is_whole and position + 12 > self._source.length:
                break
            if self._top_level > _MAX_TOP_LEVEL:
                self._fail(position, f"more than {_MAX_TOP_LEVEL} elements in the data set")
            head = self._head(position, self._encoding.is_implicit)
            if head.tag in _PIXEL_DATA:
                self._check_pixel_data(head)
                break
            if head.length == UNDEFINED_LENGTH and head.tag == _PER_FRAME_GROUPS:
                break
            if head.tag >> 16 < _FIRST_GROUP or head.tag >> 16 == _ITEM_GROUP:
                self._fail(
                    position, f"({head.tag >> 16:04X},{head.tag & 0xFFFF:04X}) may not be here"
                )
            starts.append(position)
            element, position = self._element(head)
            self._top_level += 1
            if self._wanted is None or head.tag in self._wanted:
                elements.setdefault(head.tag, element)
        starts.append(position)
        return elements

    def _take_short(self, elements: dict[int, Element], position: int) -> int:
        """Take explicit elements with a short length while they lie whole in the window.

        These are nearly all elements of nearly all objects; the general way costs three times as
        much for each. Returns the position of the first element that was not taken.
        """
        if self._encoding.is_implicit or self._kept > _KEPT_TOTAL:
            return position
        window, shift = self._window, self._window_at
        head_of, wanted = self._explicit_head, self._wanted
        at, end, count = position - shift, len(window) - 8, 0
        starts = self._starts if shift == 0 else []
        while 0 <= at <= end:
            group, element, vr, length = head_of(window, at)
            after = at + 8 + length
            if vr not in SHORT_VRS or group < _FIRST_GROUP or after > end:
                break
            tag = group << 16 | element
            if (wanted is None or tag in wanted) and tag not in elements:
                elements[tag] = Element(tag, VR_NAMES[vr], window[at + 8 : after])
            starts.append(at)
            at = after
            count += 1
        self._top_level += count
        self._kept += max(0, at + shift - position)
        return max(position, at + shift)

    def _element(self, head: _Head) -> tuple[Element, int]:
        """Return an element of the top level and the position after it."""
        if head.length == UNDEFINED_LENGTH:
            end = self._after_sequence(head, depth=1)
            value_end = end - 8
        else:
            end = value_end = head.value_at + head.length
            self._check_end(head, end)
        vr = VR_NAMES.get(head.vr) or head.vr.decode("ascii") or None
        value = None
        if self._wanted is None or head.tag in self._wanted:
            value = self._kept_value(head.value_at, value_end)
        return Element(head.tag, vr, value), end

    def _kept_value(self, start: int, end: int) -> bytes | None:
        size = end - start
        if size > KEPT_VALUE_LENGTH or self._kept + size > _KEPT_TOTAL or end > self._source.length:
            return None
        self._kept += size
        at = self._seek(start, size)
        return self._window[at : at + size]

    def _head(self, position: int, is_implicit: bool) -> _Head:  # noqa: FBT001
        """Return the head of the element at `position` (PS3.5 §7.1.2, §7.1.3)."""
        self._seen += 1
        if self._seen > _MAX_ELEMENTS:
            self._fail(position, f"more than {_MAX_ELEMENTS} elements, nested ones included")
        at = self._seek(position, 8)
        if is_implicit:
            group, element, length = self._implicit_head(self._window, at)
            return _Head(group << 16 | element, b"", length, position + 8)
        group, element, vr, length = self._explicit_head(self._window, at)
        if vr in SHORT_VRS:
            return _Head(group << 16 | element, vr, length, position + 8)
        if group == _ITEM_GROUP:
            return self._head(position, is_implicit=True)
        if vr not in _LONG_VRS and not (vr.isalpha() and vr.isupper()):
            self._fail(position, f"({group:04X},{element:04X}) has the impossible VR {vr!r}")
        at = self._seek(position + 8, 4)
        (length,) = self._long(self._window, at)
        return _Head(group << 16 | element, vr, length, position + 12)

    def _after_sequence(self, head: _Head, depth: int) -> int:
        """Return the position after a sequence of undefined length (PS3.5 §7.5.2)."""
        is_implicit = head.vr in {b"", b"UN"}  # b"": itself read as implicit; UN: PS3.5 §6.2.2
        if depth > _MAX_DEPTH:
            self._fail(head.value_at, f"sequences nested more than {_MAX_DEPTH} deep")
        if not is_implicit and head.vr != b"SQ":
            self._fail(head.value_at, f"undefined length with VR {head.vr!r}")
        position = head.value_at
        while True:
            item = self._head(position, is_implicit=True)
            if item.tag == _SEQUENCE_END:
                return item.value_at
            if item.tag != _ITEM:
                self._fail(position, "a sequence holds something that is not an item")
            if item.length == UNDEFINED_LENGTH:
                position = self._after_item(item.value_at, is_implicit, depth)
            else:
                position = item.value_at + item.length
                self._check_end(item, position)

    def _after_item(self, position: int, is_implicit: bool, depth: int) -> int:  # noqa: FBT001
        """Return the position after an item of undefined length."""
        while True:
            head = self._head(position, is_implicit)
            if head.tag == _ITEM_END:
                return head.value_at
            if head.length == UNDEFINED_LENGTH:
                position = self._after_sequence(head, depth + 1)
            else:
                position = head.value_at + head.length
                self._check_end(head, position)

    def _check_pixel_data(self, head: _Head) -> None:
        """Check that the pixel data are all there (PS3.5 §A.4 for encapsulated ones)."""
        if not self._source.is_whole:
            return
        if head.length != UNDEFINED_LENGTH:
            self._check_end(head, head.value_at + head.length)
            return
        position = head.value_at
        for _ in range(_MAX_PIXEL_FRAGMENTS):
            if position >= self._source.length:
                return
            item = self._head(position, is_implicit=True)
            if item.tag != _ITEM:
                return
            position = item.value_at + item.length
            self._check_end(item, position)

    def _check_end(self, head: _Head, end: int) -> None:
        if end > self._source.length and self._source.is_whole:
            self._fail(
                head.value_at,
                f"({head.tag >> 16:04X},{head.tag & 0xFFFF:04X}) announces {head.length} bytes, "
                f"{self._source.length - head.value_at} are left",
            )

    def _seek(self, position: int, size: int) -> int:
        """Make `size` bytes from `position` part of the window and return where they are in it."""
        at = position - self._window_at
        if at >= 0 and at + size <= len(self._window):
            return at
        self._window = self._source.read(position, max(size, WINDOW_LENGTH))
        self._window_at = position
        if len(self._window) < size:
            self._fail(position, "the data set ends inside an element")
        return 0

    def _fail(self, position: int, reason: str) -> NoReturn:
        msg = f"not a data set of its transfer syntax: at byte {position}, {reason}"
        raise DatasetError(msg)
