"""The last good state of an LDAP directory in a local file, to start from while it is down.

The file says in its first lines from which servers it was read and when; the time of its last
change says when it was last compared with them. It may hold what only administrators should see,
so only the account of the processes can read it.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from archive.clock import Clock
from archive.configuration.entries import Entry
from archive.configuration.ldif import parse_ldif, write_ldif
from archive.configuration.names import same_name
from archive.configuration.records import AddRecord
from archive.configuration.schema import load_schema
from archive.errors import InvalidValueError

_TITLE = "# Copy of the directory, made by dicomq; used while no LDAP server can be asked.\n"
_CONFIRM_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds.

    Attributes
    ----------
    read_time
        When the entries were read from a server.
    confirmed_time
        When they were last seen to be the present ones.
    """

    entries: tuple[Entry, ...]
    read_time: datetime
    confirmed_time: datetime


class LocalCopy:
    """A file beside the data of the processes of one host, which share it.

    Parameters
    ----------
    path
        The file.
    servers, base_dn
        What is copied; the copy of a directory that shares no server with these is not used.
    clock
        Says when the file is written and confirmed.
    """

    def __init__(self, path: Path, servers: tuple[str, ...], base_dn: str, clock: Clock) -> None:
        self.path = path
        self._servers = servers
        self._base_dn = base_dn
        self._clock = clock
        self._confirmed = float("-inf")
        self._is_writable = True

    def keep(self, entries: Iterable[Entry]) -> None:
        """Write the file anew; that this fails is logged once and no reason to stop."""
        facts = {
            "servers": " ".join(self._servers),
            "base": self._base_dn,
            "read": self._clock.now().isoformat(timespec="seconds"),
        }
        head = _TITLE + "".join(f"# {name}: {value}\n" for name, value in facts.items())
        data = head.encode() + write_ldif(entries, load_schema().spelling)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, data)
        except OSError as error:
            self._complain(error)
            return
        self._confirmed, self._is_writable = self._clock.monotonic(), True

    def confirm(self) -> None:
        """Note that the directory is still as it was read; at most every ten seconds."""
        now = self._clock.monotonic()
        if now - self._confirmed < _CONFIRM_S:
            return
        self._confirmed = now
        seconds = self._clock.now().timestamp()
        try:
            os.utime(self.path, (seconds, seconds))
        except OSError as error:
            self._complain(error)

    def read(self) -> Copied | None:
        """Return what the file holds; None when there is none of this directory."""
        try:
            data = self.path.read_bytes()
            confirmed = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            facts = _facts(data)
            if not self._is_of_same_directory(facts):
                return None
            read = datetime.fromisoformat(facts.get("read", ""))
            records = parse_ldif(data).records
        except FileNotFoundError:
            return None
        except (OSError, InvalidValueError, ValueError) as error:
            _log.warning("the copy of the directory %s cannot be used: %s", self.path, error)
            return None
        entries = (
            Entry.of(one.dn, one.attributes) for one in records if isinstance(one, AddRecord)
        )
        return Copied(tuple(entries), read, confirmed)

    def _is_of_same_directory(self, facts: dict[str, str]) -> bool:
        shares_server = set(facts.get("servers", "").split()) & set(self._servers)
        return bool(shares_server) and same_name(facts.get("base", ""), self._base_dn)

    def _complain(self, error: OSError) -> None:
        if self._is_writable:
            _log.warning(
                "no copy of the directory can be kept in %s: %s; without it nothing can be started "
                "while the LDAP servers are down",
                self.path,
                error,
            )
        self._is_writable = False


def _facts(data: bytes) -> dict[str, str]:
    """Return what the comments above the first entry say."""
    head = data.partition(b"\n\n")[0].decode("utf-8", "replace")
    lines = (line.removeprefix("# ") for line in head.splitlines() if line.startswith("# "))
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def _replace(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            if os.geteuid() == 0:  # a command of root must not take it from the processes
                folder = path.parent.stat()
                os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
