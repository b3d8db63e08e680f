"""Noticing changes of an LDAP directory at little cost.

A server with the overlay syncprov says in one value whether anything changed (contextCSN). Others
are asked for entries changed since, which finds what was added or modified, and for the names
below the own device, which finds what was deleted there. Beside that the names of all entries are
compared every few seconds, and their versions from time to time: the rarer the longer that takes.

A contextCSN may be left over from a time when the server had the overlay. It is believed when it
was seen to change, for as long as no entry is newer.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from archive.clock import Clock
from archive.configuration.entries import Entry
from archive.configuration.failover import SizeLimitError
from archive.configuration.names import Name
from archive.errors import InvalidValueError

VERSION_ATTRIBUTES = ("entryCSN", "entryUUID", "modifyTimestamp")
CAPABILITIES = "(objectClass=dicomTransferCapability)"
CERTIFICATES = "certificates"
"""In place of a filter: the entries with certificates that the own device refers to."""

SURE_S = 60.0
SHORTEST_S = 4.0
SHORTEST_CAPABILITIES_S = 30.0
SHORTEST_NAMES_S = 3.0
SHARE = 100
"""Versions are compared for one part of the time in so many."""

SHARE_NAMES = 30
_MOST_CHANGED = 100
_NAME_SEARCH = f"(!{CAPABILITIES})"
_NO_ATTRIBUTES = ["1.1"]

Search = Callable[..., list[Entry]]


@dataclass(slots=True)
class _Part:
    """Versions or names of some of the entries, and when they are compared again."""

    shortest_s: float
    share: int = SHARE
    digest: str = ""
    due: float = float("-inf")

    def postpone(self, began: float, ended: float) -> None:
        """Compare again the later the longer it took."""
        self.due = ended + min(max(self.share * (ended - began), self.shortest_s), SURE_S)


@dataclass(slots=True)
class Watch:
    """Makes the fingerprint of a directory.

    Parameters
    ----------
    device_name
        The own device, below which deletions are noticed at once.
    clock
        Says when all versions are compared again.
    """

    device_name: str
    clock: Clock
    _marker: str = ""
    _server: str = ""
    _context: list[str] = field(default_factory=list)
    _context_moves: bool = False
    _since: str = ""
    _device_dn: str = ""
    _entries: _Part = field(default_factory=lambda: _Part(SHORTEST_S))
    _capabilities: _Part = field(default_factory=lambda: _Part(SHORTEST_CAPABILITIES_S))
    _names: _Part = field(default_factory=lambda: _Part(SHORTEST_NAMES_S, SHARE_NAMES))

    def forget(self) -> None:
        """Compare everything at the next call."""
        self._marker = ""

    def fingerprint(self, server: str, searches: Iterable[str], search: Search) -> str:
        """Return what differs whenever an entry was added, changed or deleted.

        Parameters
        ----------
        server
            The one that is asked: servers are not equally far.
        searches
            Filters that find all entries but transfer capabilities, and CERTIFICATES.
        search
            Returns the entries that a filter finds; takes the names of attributes and, as `below`,
            where to search, and as `base` whether that entry alone is meant.
        """
        searches = tuple(searches)
        is_sure = self._look_at_context(server, search)
        asked = "" if is_sure else f"{self._ask(search)} {self._all_names(searches, search)}"
        marker = f"{server} {self._context} {asked}"
        if marker != self._marker:
            self._entries.due = self._capabilities.due = float("-inf")
        self._compare(self._entries, searches, search, is_sure=is_sure)
        self._compare(self._capabilities, (CAPABILITIES,), search, is_sure=is_sure)
        self._marker = marker
        return f"{self._entries.digest}:{self._capabilities.digest}"

    def _look_at_context(self, server: str, search: Search) -> bool:
        """Read the contextCSN of the server; tell whether it is believed."""
        base = search("(objectClass=*)", ["contextCSN"], base=True)
        context = sorted(text for entry in base for text in entry.texts("contextCSN"))
        before, self._server, self._context = (self._server, self._context), server, context
        if before[0] != server or not context:
            self._context_moves = False
        elif before[1] != context:
            self._context_moves = bool(before[1])
        return self._context_moves

    def _ask(self, search: Search) -> str:
        """Return a value that changes with the directory, unless something is deleted elsewhere."""
        try:
            changed = search(f"(entryCSN>={self._since})", ["entryCSN"]) if self._since else []
            own: list[Entry] = []
            if self._device_dn:
                own = search(_NAME_SEARCH, _NO_ATTRIBUTES, below=self._device_dn)
        except SizeLimitError:
            self._since = self._device_dn = ""
            return "more than the server gives"
        if len(changed) > _MOST_CHANGED:
            self._since = _latest(changed)
        return _digest((*changed, *own))

    def _all_names(self, searches: Iterable[str], search: Search) -> str:
        """Return a value that changes when anything is deleted; looked for if it is time to."""
        part, began = self._names, self.clock.monotonic()
        if began >= part.due:
            found = (search(one, _NO_ATTRIBUTES) for one in (*searches, CAPABILITIES))
            part.digest = _digest(entry for entries in found for entry in entries)
            part.postpone(began, self.clock.monotonic())
        return part.digest

    def _compare(
        self, part: _Part, searches: Iterable[str], search: Search, *, is_sure: bool
    ) -> None:
        """Look at the versions of entries if it is time to."""
        began = self.clock.monotonic()
        if began < part.due:
            return
        entries = [entry for one in searches for entry in search(one, list(VERSION_ATTRIBUTES))]
        part.digest = _digest(entries)
        part.postpone(began, ended := self.clock.monotonic())
        if is_sure:
            part.due = ended + SURE_S
        if is_sure and _latest(entries) > self._context[-1]:
            self._context_moves = False
        if part is self._entries:
            self._since = self._since or _latest(entries)
            self._device_dn = next((one.dn for one in entries if self._is_own(one.dn)), "")

    def _is_own(self, dn: str) -> bool:
        try:
            first = Name.parse(dn).parts[:1]
        except InvalidValueError:
            return False
        return any(
            (kind.lower(), value.lower()) == ("dicomdevicename", self.device_name.lower())
            for part in first
            for kind, value in part
        )


def _latest(entries: Iterable[Entry]) -> str:
    return max((text for entry in entries for text in entry.texts("entryCSN")), default="")


def _digest(entries: Iterable[Entry]) -> str:
    lines = sorted(f"{entry.dn} {sorted(entry.attributes.items())}" for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
