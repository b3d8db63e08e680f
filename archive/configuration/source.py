"""Where snapshots come from: a directory that is read again whenever it has changed.

The last good snapshot stays in use while the directory cannot be reached or no longer holds a
usable device; both are logged once, and again when it is over.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import Snapshot
from archive.configuration.directory import LdapDirectory
from archive.configuration.embedded import EmbeddedDirectory, content_fingerprint
from archive.configuration.entries import Entry
from archive.configuration.records import Record
from archive.configuration.refusals import Applied
from archive.configuration.settings import Settings
from archive.configuration.snapshot import build_snapshot
from archive.errors import ConfigurationError

_CHECK_INTERVAL_S = 1.0
_log = logging.getLogger(__name__)


class Directory(Protocol):
    """A directory of entries."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        ...

    def fingerprint(self) -> str:
        """Return cheaply what differs whenever the directory was changed."""
        ...

    def read(self) -> Iterable[Entry]:
        """Return the entries that matter."""
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
    """

    def __init__(
        self, directory: Directory, settings: Settings, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.directory = directory
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._seen = ""
        self._checked = float("-inf")
        self._trouble = ""

    def snapshot(self) -> Snapshot:
        """Return the present configuration.

        Looks at the directory at most once a second and reads it only when it has changed.

        Raises
        ------
        ConfigurationError
            When there never was a usable configuration.
        """
        present = self._snapshot
        if present is not None and self._clock.monotonic() - self._checked < _CHECK_INTERVAL_S:
            return present
        if present is not None and not self._lock.acquire(blocking=False):
            return present
        if present is None:
            self._lock.acquire()
        try:
            return self._refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> Snapshot:
        """Read the directory if it has changed; called by one thread at a time."""
        if self._snapshot and self._clock.monotonic() - self._checked < _CHECK_INTERVAL_S:
            return self._snapshot
        try:
            seen = self.directory.fingerprint()
            if self._snapshot is None or seen != self._seen:
                self._snapshot = self._load()
                self._seen = seen
            self._recover()
        except ConfigurationError as error:
            if self._snapshot is None:
                raise
            self._complain(str(error))
        finally:
            self._checked = self._clock.monotonic()
        return self._snapshot

    def _load(self) -> Snapshot:
        entries = tuple(self.directory.read())
        variables = Variables(self._settings.variables, self._settings.properties)
        snapshot = build_snapshot(
            entries,
            self._settings.device_name,
            variables,
            fingerprint=content_fingerprint(entries),
        )
        self._report(snapshot)
        return snapshot

    def _report(self, snapshot: Snapshot) -> None:
        """Log the configuration and those of its problems that were not logged before."""
        known = self._snapshot.problems if self._snapshot else ()
        _log.info(
            "configuration %s of device %s read from %s: %d problems",
            snapshot.fingerprint,
            snapshot.device.name,
            self.directory.location,
            len(snapshot.problems),
        )
        for problem in snapshot.problems:
            if problem not in known:
                level = logging.INFO if problem.severity == "notice" else logging.WARNING
                _log.log(level, "%s: %s %s", problem.dn, problem.attribute, problem.reason)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("%s; the configuration read last stays in use, retrying", trouble)
        self._trouble = trouble

    def _recover(self) -> None:
        if self._trouble:
            _log.warning("the directory %s is usable again", self.directory.location)
        self._trouble = ""


def open_directory(settings: Settings) -> Directory:
    """Return the directory that the settings name.

    An embedded directory that does not exist yet is made from the default one.

    Raises
    ------
    ConfigurationError
        When the settings cannot be used.
    """
    if "://" in settings.directory:
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
    return ConfigurationSource(open_directory(settings), settings)
