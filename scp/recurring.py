"""Recognizes the beginning of a data set by those before it, instead of walking it.

Objects of one series have the same elements one after the other, and all but a few with the same
values. What walks found in them is kept as the stretches of bytes that never differed, and the
elements between them that did. Where the same stretches are met again, with values of any length
between them, the elements are what they were: a walk would find the same. An object that differs
elsewhere is walked, and learned from (`scp.header_reader`).
"""

import struct
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, Final, NamedTuple

from scp.elements import SHORT_VRS, UNDEFINED_LENGTH, VR_NAMES, Beginning, Element, Encoding

_TAG: Final = 4
_TAG_AND_VR: Final = 6
_Unpack = Callable[[bytes, int], tuple[Any, ...]]


def cut(window: bytes, starts: Sequence[int]) -> list[bytes]:
    """Return the elements that lie whole in the first bytes of a data set.

    Parameters
    ----------
    starts
        Where they start, and where what follows them does; see `scp.elements.walk`.
    """
    within = [each for each in starts if each <= len(window)]
    return [window[start:end] for start, end in pairwise(within)]


class _Varying(NamedTuple):
    """An element whose value differs, and all that precedes its length.

    Attributes
    ----------
    before
        The bytes since the varying element before it, its own tag and VR included.
    """

    before: bytes
    length_size: int
    unpack_length: _Unpack
    tag: int
    vr: str | None
    is_wanted: bool


class Recurring:
    """The beginning that the data sets of one encoding have in common.

    Attributes
    ----------
    elements
        The wanted ones of the beginning, as they were in the object learned from last.
    """

    def __init__(self, encoding: Encoding, wanted: AbstractSet[int] | None) -> None:
        self._is_implicit = encoding.is_implicit
        self._wanted = wanted
        order = "<" if encoding.is_little_endian else ">"
        self._unpack_tag = struct.Struct(f"{order}HH").unpack_from
        self._unpack_short = struct.Struct(f"{order}H").unpack_from
        self._unpack_long = struct.Struct(f"{order}L").unpack_from
        self._pieces: list[bytes] = []
        self._differ: set[int] = set()
        self._varying: list[_Varying] = []
        self._end = b""
        self.elements: dict[int, Element] = {}
        self._count = 0

    @property
    def varying_tags(self) -> frozenset[int]:
        """The wanted elements whose values differ."""
        return frozenset(each.tag for each in self._varying if each.is_wanted)

    def match(self, window: bytes) -> Beginning | None:
        """Return what a walk would find first in a data set; None when it has to be walked.

        Parameters
        ----------
        window
            The first bytes of the data set.
        """
        if not self._count:
            return None
        elements = self.elements.copy()
        position, most = 0, len(window)
        for before, length_size, unpack_length, tag, vr, is_wanted in self._varying:
            start = position + len(before) + length_size
            if start > most or not window.startswith(before, position):
                return None
            position = start + unpack_length(window, start - length_size)[0]
            if is_wanted:
                elements[tag] = Element(tag, vr, window[start:position])
        if not window.startswith(self._end, position):  # nor beyond the end, if a value is cut
            return None
        return Beginning(window, position + len(self._end), elements, self._count)

    def learn(self, pieces: Sequence[bytes], elements: dict[int, Element]) -> bool:
        """Learn from a data set that did not match and was walked.

        Parameters
        ----------
        pieces
            Its beginning; see `cut`.
        elements
            What the walk found.

        Returns
        -------
        bool
            Whether it has the same elements as those before; otherwise nothing is learned of it.
        """
        if not self._pieces:
            self._pieces = list(pieces)
            return True
        both = min(len(pieces), len(self._pieces))
        if not self._agrees(pieces, both):
            return False
        self._differ.update(at for at in range(both) if pieces[at] != self._pieces[at])
        self._pieces = list(pieces[:both])
        self._collect()
        tags = list(map(self._tag, self._pieces[: self._count]))
        if len(set(tags)) < len(tags):
            self._count = 0  # only the first one counts: too rare to be told apart here
        self.elements = {tag: elements[tag] for tag in tags if tag in elements}
        return True

    def _agrees(self, pieces: Sequence[bytes], count: int) -> bool:
        """Tell whether an object begins with the same elements, `count` of them."""
        size = _TAG if self._is_implicit else _TAG_AND_VR
        is_most = 2 * count > max(len(pieces), len(self._pieces))
        return is_most and all(
            new[:size] == old[:size] for new, old in zip(pieces, self._pieces, strict=False)
        )

    def _collect(self) -> None:
        """Join what is the same; end before an element that differs and cannot be skipped."""
        self._varying, self._count = [], 0
        before = bytearray()
        for at, piece in enumerate(self._pieces):
            if at in self._differ:
                varying = self._as_varying(bytes(before), piece)
                if varying is None:
                    break
                self._varying.append(varying)
                before.clear()
            else:
                before += piece
            self._count += 1
        self._end = bytes(before)

    def _as_varying(self, before: bytes, piece: bytes) -> _Varying | None:
        """Return how to skip the value of an element; None if its length is undefined."""
        tag, vr = self._tag(piece), piece[_TAG:_TAG_AND_VR]
        head, size, unpack = 8, 4, self._unpack_long
        if self._is_implicit:
            head, vr = _TAG, b""
        elif vr in SHORT_VRS:
            head, size, unpack = _TAG_AND_VR, 2, self._unpack_short
        if unpack(piece, head)[0] == UNDEFINED_LENGTH:
            return None
        name = VR_NAMES.get(vr) or vr.decode("ascii") or None
        is_wanted = self._wanted is None or tag in self._wanted
        return _Varying(before + piece[:head], size, unpack, tag, name, is_wanted)

    def _tag(self, piece: bytes) -> int:
        group, element = self._unpack_tag(piece)
        return int(group) << 16 | int(element)
