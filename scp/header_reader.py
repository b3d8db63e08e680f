"""Reads the headers of one association's objects, most of which resemble each other."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from scp.elements import WINDOW_LENGTH, Element, Source, walk
from scp.header import DEFLATED, PARENT_TAGS, Header, RawValues, encoding_of, read_header
from scp.recurring import Recurring, cut

_SIBLINGS: Final = 3
"""How many kinds of objects are told apart, by their elements."""


@dataclass(slots=True)
class _Siblings:
    """Objects with the same elements, and their `Header.parents` if they are the same too."""

    recurring: Recurring
    parents: RawValues | None = None


class HeaderReader:
    """Reads the headers of objects that come one after the other; see `read_header`.

    What it remembers of them takes some 30 kB, and at most 3 MB whatever a peer sends.
    """

    def __init__(self, wanted: AbstractSet[int] | None) -> None:
        self._wanted = wanted
        self._transfer_syntax_uid = ""
        self._encoding = encoding_of("")
        self._siblings: list[_Siblings] = []

    def read(
        self, read: Callable[[int, int], bytes], length: int, transfer_syntax_uid: str
    ) -> Header:
        """Read the elements of a received data set as `read_header` does.

        Raises
        ------
        DatasetError
            As for `read_header`.
        """
        if transfer_syntax_uid in DEFLATED:
            return read_header(read, length, transfer_syntax_uid, self._wanted)
        if transfer_syntax_uid != self._transfer_syntax_uid:
            self._transfer_syntax_uid = transfer_syntax_uid
            self._encoding = encoding_of(transfer_syntax_uid)
            self._siblings.clear()
        source, window = Source(read, length), read(0, WINDOW_LENGTH)
        for siblings in self._siblings:
            beginning = siblings.recurring.match(window)
            if beginning is not None:
                found = len(beginning.elements)
                elements = walk(source, self._encoding, self._wanted, beginning=beginning)
                parents = siblings.parents if len(elements) == found else None
                return Header(elements, self._encoding, parents)
        starts: list[int] = []
        elements = walk(source, self._encoding, self._wanted, starts=starts)
        self._learn(cut(window, starts), elements)
        return Header(elements, self._encoding)

    def _learn(self, pieces: list[bytes], elements: dict[int, Element]) -> None:
        """Learn from an object that is not quite like those before."""
        for siblings in self._siblings:
            recurring = siblings.recurring
            if recurring.learn(pieces, elements):
                is_one_series = PARENT_TAGS.isdisjoint(recurring.varying_tags)
                in_common = Header(recurring.elements, self._encoding)
                siblings.parents = in_common.parents() if is_one_series else None
                return
        recurring = Recurring(self._encoding, self._wanted)
        recurring.learn(pieces, elements)
        self._siblings[_SIBLINGS - 1 :] = []
        self._siblings.insert(0, _Siblings(recurring))
