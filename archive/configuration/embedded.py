"""The embedded directory: an LDIF file that behaves like an LDAP server.

The file is the authority. Changes are checked against the schema with the words and codes of an
LDAP server, each record is applied whole or not at all, and a process that dies while writing
leaves the old file: the new one is written beside it, made durable and renamed. Imports of
several processes follow one another by a lock on a file beside it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from archive.configuration.changes import EntryTable
from archive.configuration.entries import Entry
from archive.configuration.ldif import LdifSyntaxError, parse_ldif, write_ldif
from archive.configuration.records import AddRecord, Record
from archive.configuration.refusals import Applied, RefusedChangeError
from archive.configuration.schema import load_schema
from archive.errors import DirectoryUnavailableError

_HEADER = b"# Directory of dicomq. Change it with `celery -A workers config import FILE.ldif`.\n"


class EmbeddedDirectory:
    """A directory kept in one LDIF file.

    Parameters
    ----------
    path
        The file; it has to exist for everything but `create`.
    """

    is_remote = False

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def location(self) -> str:
        """Where the directory is, for messages."""
        return str(self.path)

    def create(self, entries: Iterable[Entry]) -> bool:
        """Write the file unless it exists; tell whether it was written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self.path.exists():
                return False
            self._save(entries)
            return True

    def fingerprint(self) -> str:
        """Return what changes whenever the file is replaced or edited.

        Raises
        ------
        DirectoryUnavailableError
            When the file is not there or not readable.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unavailable(error) from error
        return f"{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"

    def forget(self) -> None:
        """Do nothing: the fingerprint is always a fresh one."""

    def read_all(self) -> tuple[Entry, ...]:
        """Return all entries; the same as `read`, which leaves nothing out here."""
        return self.read()

    def read(self) -> tuple[Entry, ...]:
        """Return all entries.

        Raises
        ------
        DirectoryUnavailableError
            When the file cannot be read or is not LDIF of entries.
        """
        try:
            parsed = parse_ldif(self.path.read_bytes())
        except (OSError, LdifSyntaxError) as error:
            raise self._unavailable(error) from error
        for record in parsed.records:
            if not isinstance(record, AddRecord):
                msg = (
                    f"{self.path} line {record.line}: the file of the directory holds entries, "
                    "no changes; import changes with `celery -A workers config import`"
                )
                raise DirectoryUnavailableError(msg)
        return tuple(
            Entry.of(record.dn, record.attributes)
            for record in parsed.records
            if isinstance(record, AddRecord)
        )

    def apply_all(self, records: Sequence[Record], *, go_on: bool = False) -> tuple[Applied, ...]:
        """Apply change records one after the other, each whole or not at all.

        Parameters
        ----------
        records
            In the order in which they are applied.
        go_on
            Whether a refused record is passed over; else it ends the work.

        Returns
        -------
        tuple of Applied
            One for each record that was tried; what was not refused is durable.

        Raises
        ------
        DirectoryUnavailableError
            When the file cannot be read or written; it is then as before.
        """
        done: list[Applied] = []
        with self._lock():
            table = EntryTable(load_schema(), self.read())
            for record in records:
                done.append(_try(table, record))
                if done[-1].refusal is not None and not go_on:
                    break
            if any(one.refusal is None for one in done):
                self._save(table.entries())
        return tuple(done)

    def apply(self, record: Record) -> None:
        """Apply one change record, whole and durable, or not at all.

        Raises
        ------
        RefusedChangeError
            When the schema or the tree forbids it; the file is as before.
        DirectoryUnavailableError
            When the file cannot be read or written.
        """
        for done in self.apply_all([record]):
            if done.refusal is not None:
                raise done.refusal

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _save(self, entries: Iterable[Entry]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.new")
        data = _HEADER + write_ldif(entries, load_schema().spelling)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> DirectoryUnavailableError:
        return DirectoryUnavailableError(f"the directory {self.path} cannot be used: {error}")


def _try(table: EntryTable, record: Record) -> Applied:
    try:
        table.apply(record)
    except RefusedChangeError as error:
        return Applied(record, error)
    return Applied(record)


def content_fingerprint(entries: Iterable[Entry]) -> str:
    """Return a digest that is equal for equal entries, in whatever order they are read."""
    digests = sorted(
        hashlib.sha256(
            repr(
                (entry.dn.lower(), sorted((n, sorted(v)) for n, v in entry.attributes.items()))
            ).encode()
        ).digest()
        for entry in entries
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
