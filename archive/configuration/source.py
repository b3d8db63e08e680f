"""Where snapshots come from: a directory that is read again whenever it has changed.

A file is looked at by whoever asks for the snapshot. LDAP servers are looked at by a thread, so
that nobody ever waits for a server that is slow, frozen or gone. The last good snapshot stays in
use while the directory cannot be reached or no longer holds a usable device, across a restart from
the local copy; both are logged once, and again when it is over, and `outage` tells it.
"""

import logging
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import Snapshot
from archive.configuration.directory import LdapDirectory
from archive.configuration.embedded import EmbeddedDirectory, content_fingerprint
from archive.configuration.entries import Entry
from archive.configuration.local_copy import LocalCopy
from archive.configuration.records import Record
from archive.configuration.refusals import Applied
from archive.configuration.servers import is_ldap
from archive.configuration.settings import Settings
from archive.configuration.snapshot import build_snapshot
from archive.errors import ConfigurationError

_CHECK_INTERVAL_S = 1.0
COPY_NAME = "directory-copy.ldif"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outage:
    """That the directory cannot be used now.

    Attributes
    ----------
    since
        When it was last known to be usable, or first seen not to be.
    reason
        What is wrong, with the servers.
    copy_time
        When the configuration in use was read, if it is that of the local copy.
    """

    since: datetime
    reason: str
    copy_time: datetime | None = None

    def text(self) -> str:
        """Return a sentence for administrators."""
        in_use = (
            "the configuration read last stays in use"
            if self.copy_time is None
            else f"in use is the local copy of {_shown(self.copy_time)}"
        )
        return (
            f"{self.reason} (since {_shown(self.since)}); {in_use}, changes are not seen; "
            "it is tried again every second"
        )


class SnapshotSource(Protocol):
    """Where the present configuration comes from."""

    def snapshot(self) -> Snapshot:
        """Return the present configuration."""
        ...


class Directory(Protocol):
    """A directory of entries."""

    @property
    def is_remote(self) -> bool:
        """Whether asking it takes a network, which may be slow."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        ...

    def forget(self) -> None:
        """Have the next fingerprint made with all that it takes."""
        ...

    def fingerprint(self) -> str:
        """Return cheaply what differs whenever the directory was changed."""
        ...

    def read(self) -> Iterable[Entry]:
        """Return the entries that matter."""
        ...

    def read_all(self) -> Iterable[Entry]:
        """Return all entries, also those unknown to us."""
        ...

    def apply_all(self, records: Sequence[Record], *, go_on: bool = False) -> tuple[Applied, ...]:
        """Apply changes, each whole or not at all, up to the first that is refused."""
        ...


class ConfigurationSource:
    """Gives the snapshot that holds now. Safe to use from several threads.

    Parameters
    ----------
    directory
        What is read.
    settings
        Which device this system is, and what variables stand for.
    clock
        Limits how often the directory is looked at.
    copy
        Where the entries read last are kept for a restart.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
        *,
        copy: LocalCopy | None = None,
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._clock = clock
        self._copy = copy
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._seen = ""
        self._checked = float("-inf")
        self._outage: Outage | None = None
        self._process = 0
        self._wake = threading.Event()
        self._closed = False

    def snapshot(self) -> Snapshot:
        """Return the present configuration.

        A file is looked at, at most once a second, and read when it has changed. LDAP servers are
        asked in the background; only the first call waits for them.

        Raises
        ------
        ConfigurationError
            When there never was a usable configuration.
        """
        present = self._snapshot
        if present is not None and self.directory.is_remote:
            self._watch()
            return present
        if present is not None and self._clock.monotonic() - self._checked < _CHECK_INTERVAL_S:
            return present
        if present is not None and not self._lock.acquire(blocking=False):
            return present
        if present is None:
            self._lock.acquire()
        try:
            present = self._refresh()
            if self.directory.is_remote:
                self._watch()
        finally:
            self._lock.release()
        return present

    def require(self) -> None:
        """Fail if there is nothing to start from, where only servers could mend it.

        Raises
        ------
        ConfigurationError
            When no LDAP server gives a usable configuration and there is no local copy of one.
        """
        if self.directory.is_remote:
            self.snapshot()

    def outage(self) -> Outage | None:
        """Return what keeps the directory from being used; None while it can be."""
        return self._outage

    def refresh(self) -> Snapshot:
        """Look at the directory now, and wait for it.

        Raises
        ------
        ConfigurationError
            When there never was a usable configuration.
        """
        with self._lock:
            self._checked = float("-inf")
            return self._refresh()

    def reload(self) -> None:
        """Have the directory read again, changed or not; does not wait for servers."""
        self.directory.forget()
        self._seen = ""
        if self.directory.is_remote:
            self._wake.set()
        else:
            self.poll()

    def close(self) -> None:
        """End the thread that asks the servers, if there is one, and the connection to them."""
        self._closed = True
        self._wake.set()
        if isinstance(self.directory, LdapDirectory):
            self.directory.close()

    def _watch(self) -> None:
        """Have a thread of this process ask the servers."""
        if self._process == os.getpid() or self._closed:
            return
        if self._process:
            # After a fork the lock may be held by a thread that is not there any more.
            self._lock, self._wake = threading.Lock(), threading.Event()
        self._process = os.getpid()
        arguments = (weakref.ref(self), self._wake)
        threading.Thread(target=_poll, args=arguments, name="directory", daemon=True).start()

    def poll(self) -> bool:
        """Look at the directory once; tell whether to go on."""
        if not self._closed:
            try:
                self.refresh()
            except ConfigurationError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - without the thread changes would not be seen
                _log.exception("the directory %s could not be looked at", self.directory.location)
        return not self._closed

    def _refresh(self) -> Snapshot:
        """Read the directory if it has changed; called by one thread at a time."""
        present = self._snapshot
        if present and self._clock.monotonic() - self._checked < _CHECK_INTERVAL_S:
            return present
        try:
            seen = self.directory.fingerprint()
            if present is None or seen != self._seen or self._is_of_copy():
                present = self._load()
                self._seen = seen
            elif self._copy is not None:
                self._copy.confirm()
            self._recover()
        except ConfigurationError as error:
            if present is None:
                present = self._load_copy(error)
            else:
                self._complain(str(error))
        finally:
            self._checked = self._clock.monotonic()
        return present

    def _is_of_copy(self) -> bool:
        return self._outage is not None and self._outage.copy_time is not None

    def _load(self) -> Snapshot:
        entries = tuple(self.directory.read())
        snapshot = self._build(entries)
        self._take_over(snapshot, self.directory.location)
        if self._copy is not None:
            self._copy.keep(entries)
        return snapshot

    def _load_copy(self, error: ConfigurationError) -> Snapshot:
        """Start from the local copy because the directory cannot be used."""
        if self._copy is None:
            raise error
        copied = self._copy.read()
        if copied is None:
            msg = (
                f"{error}; there is no copy of it in {self._copy.path} to start from: start or "
                "repair the LDAP server, then start this process again"
            )
            raise type(error)(msg) from error
        snapshot = self._build(copied.entries)
        self._outage = Outage(copied.confirmed_time, str(error), copied.read_time)
        _log.warning("%s", self._outage.text())
        self._take_over(snapshot, str(self._copy.path))
        return snapshot

    def _build(self, entries: tuple[Entry, ...]) -> Snapshot:
        return build_snapshot(
            entries,
            self._settings.device_name,
            Variables(self._settings.variables, self._settings.properties),
            fingerprint=content_fingerprint(entries),
        )

    def _take_over(self, snapshot: Snapshot, location: str) -> None:
        """Use a snapshot; log it and those of its problems that were not logged before."""
        known = self._snapshot.problems if self._snapshot else ()
        self._snapshot = snapshot
        _log.info(
            "configuration %s of device %s read from %s: %d problems",
            snapshot.fingerprint,
            snapshot.device.name,
            location,
            len(snapshot.problems),
        )
        for problem in snapshot.problems:
            if problem not in known:
                level = logging.INFO if problem.severity == "notice" else logging.WARNING
                _log.log(level, "%s: %s %s", problem.dn, problem.attribute, problem.reason)

    def _complain(self, trouble: str) -> None:
        """Note that the directory cannot be used; a reason is logged once."""
        before = self._outage
        if before is not None and before.reason == trouble:
            return
        since = self._clock.now() if before is None else before.since
        self._outage = Outage(since, trouble, before.copy_time if before else None)
        _log.warning("%s", self._outage.text())

    def _recover(self) -> None:
        if self._outage is not None:
            _log.warning("the directory %s is usable again", self.directory.location)
        self._outage = None


def _poll(reference: "weakref.ref[ConfigurationSource]", wake: threading.Event) -> None:
    """Look at the directory every second for as long as anybody holds the source."""
    while True:
        wake.wait(_CHECK_INTERVAL_S)
        wake.clear()
        source = reference()
        if source is None or not source.poll():
            return
        del source


def _shown(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")


def open_directory(settings: Settings) -> Directory:
    """Return the directory that the settings name.

    An embedded directory that does not exist yet is made from the default one.

    Raises
    ------
    ConfigurationError
        When the settings cannot be used.
    """
    if is_ldap(settings):
        return LdapDirectory.from_settings(settings)
    embedded = EmbeddedDirectory(Path(settings.directory))
    if not embedded.path.exists() and embedded.create(default_entries()):
        _log.info("made the directory %s from the default", embedded.location)
    return embedded


def open_source(settings: Settings) -> ConfigurationSource:
    """Return the source of snapshots for a process.

    Raises
    ------
    ConfigurationError
        When the settings cannot be used. The directory itself is read by the first snapshot.
    """
    directory = open_directory(settings)
    if not isinstance(directory, LdapDirectory):
        return ConfigurationSource(directory, settings)
    path = settings.data_dir / COPY_NAME
    copy = LocalCopy(path, directory.addresses, directory.base_dn, SYSTEM_CLOCK)
    return ConfigurationSource(directory, settings, copy=copy)
