"""What a storage can do, whatever it is made of, and the storages of a configuration."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from archive.errors import ConfigurationError
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.filesystem import FileStorage
from archive.storage.s3_access import S3Descriptor
from archive.storage.sweeping import KnownPaths, SweepReport
from archive.storage.syncs import Syncs


class IncomingFile(Protocol):
    """A file being received: written by one thread, then committed or aborted."""

    @property
    def dataset_length(self) -> int:
        """Bytes of data set written so far."""
        ...

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set.

        Raises
        ------
        StorageFullError
            When no space is left.
        StorageError
            When the storage cannot be written for another reason.
        """
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set, which is complete, from `offset` on."""
        ...

    def place(self, attributes: ObjectAttributes) -> StoredFile:
        """Give the file its final path and return what the ledger has to know; then `sync` it.

        Raises
        ------
        StorageError
            When that failed; the caller then calls `abort`.
        """
        ...

    def start_sync(self) -> None:
        """Begin to make the placed file durable, where that can go on by itself."""
        ...

    @property
    def is_syncing(self) -> bool:
        """Whether `begin_sync` has begun something that has not ended."""
        ...

    def begin_sync(self, syncs: Syncs) -> None:
        """Make the placed file durable without waiting, where that is possible; then `sync` it."""
        ...

    def sync(self) -> None:
        """Make the placed file durable; once it is, nothing is left to do.

        Raises
        ------
        StorageError
            When that failed; the caller then calls `abort`.
        """
        ...

    def commit(self, attributes: ObjectAttributes) -> StoredFile:
        """Make the file durable under its final path and return what the ledger has to know.

        Raises
        ------
        StorageError
            When that failed; the caller then calls `abort`.
        """
        ...

    def settle(self) -> None:
        """Forget that the committed file is in doubt, after its row is committed."""
        ...

    def leave(self) -> None:
        """Leave a committed file in doubt: nobody knows now whether its row was committed."""
        ...

    def abort(self) -> None:
        """Remove the file, committed or not. Safe to call twice and after `settle`."""
        ...


class Storage(Protocol):
    """A place for objects. Paths are relative to its root, with forward slashes."""

    @property
    def storage_id(self) -> str:
        """The identifier that rows of the ledger carry (dcmStorageID)."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether it is written through the file system of this host."""
        ...

    def create(self, file_header: bytes, transfer_syntax_uid: str) -> IncomingFile:
        """Start a file with `file_header` (preamble and file meta information, PS3.10 §7.1).

        Raises
        ------
        StorageError
            When the storage is read-only, not mounted or cannot be written.
        """
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a stored file for reading.

        Raises
        ------
        ObjectUnreadableError
            When there is no such file or it cannot be opened.
        """
        ...

    def local_path(self, path: str) -> Path | None:
        """Return where `path` lies on this host, or None when it is not a local file."""
        ...

    def delete(self, path: str) -> None:
        """Delete a stored file; one that is gone already is no error."""
        ...

    def is_in_doubt(self, path: str) -> bool:
        """Tell whether a file is being stored under `path`."""
        ...

    def sweep(self, known: KnownPaths, older_than_s: float) -> SweepReport:
        """Delete what a crash left behind: temporary files and files without a row.

        Parameters
        ----------
        known
            Tells which of some paths have a row in the ledger.
        older_than_s
            Files younger than this many seconds are left alone, besides those that a living
            process holds.
        """
        ...


class ConfiguredDevice(Protocol):
    """The part of the device's configuration that storages need."""

    @property
    def storages(self) -> Mapping[str, S3Descriptor]:
        """Descriptors by dcmStorageID."""
        ...


class ConfiguredStorages(Protocol):
    """The part of a configuration snapshot that storages need."""

    @property
    def device(self) -> ConfiguredDevice:
        """The device whose storages these are."""
        ...


class StorageSettings(Protocol):
    """The part of the settings that storages need."""

    @property
    def data_dir(self) -> Path:
        """Directory against which relative `file:` URIs are resolved, and of the spool."""
        ...


class Storages:
    """The storages of one configuration snapshot, opened when first asked for."""

    def __init__(self, snapshot: ConfiguredStorages, settings: StorageSettings) -> None:
        self._descriptors = snapshot.device.storages
        self._data_dir = settings.data_dir
        self._open: dict[str, Storage] = {}
        self._lock = threading.Lock()

    def get(self, storage_id: str) -> Storage:
        """Return the storage called `storage_id`.

        Raises
        ------
        ConfigurationError
            When there is no such dcmStorage entry, or its URI or path format cannot be used.
        """
        with self._lock:
            if storage_id not in self._open:
                self._open[storage_id] = self._opened(storage_id)
            return self._open[storage_id]

    def _opened(self, storage_id: str) -> Storage:
        descriptor = self._descriptors.get(storage_id)
        if descriptor is None:
            msg = f"there is no dcmStorage entry with dcmStorageID={storage_id}: add one"
            raise ConfigurationError(msg)
        if not descriptor.uri.startswith("s3:"):
            return FileStorage(descriptor, self._data_dir)
        try:
            from archive.storage.s3 import S3Storage  # noqa: PLC0415 - an extra of the package
        except ImportError as error:
            msg = f"storage {storage_id}: dcmURI s3: needs botocore: pip install 'dicomq[s3]'"
            raise ConfigurationError(msg) from error
        return S3Storage(descriptor, self._data_dir)
