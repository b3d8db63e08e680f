"""A file of a local storage while it is being received, and the mark that it is in doubt.

Names in ``.incoming``: ``<id>`` while the data set arrives, ``<id>@<final path, quoted>`` from the
moment the file also has its final path until `settle`. The open descriptor is locked throughout,
so that a sweep by another process knows that the file has an owner.
"""

import errno
import hashlib
import os
import secrets
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from archive.clock import Clock
from archive.errors import InvalidValueError, StorageError, StorageFullError
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.directories import DurableDirectories
from archive.storage.locks import own
from archive.storage.path_format import PathFormat, check_path, with_random_name

INCOMING: Final = ".incoming"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Layout:
    """Where and how a local storage keeps its files."""

    storage_id: str
    root: Path
    path_format: PathFormat
    digest_algorithm: str
    directories: DurableDirectories
    clock: Clock

    @property
    def incoming(self) -> Path:
        """Directory of files that are being received or are in doubt."""
        return self.root / INCOMING


def storage_error(storage_id: str, doing: str, error: OSError) -> StorageError:
    """Return the error of dicomq for an error of the operating system."""
    text = f"storage {storage_id}: cannot {doing}: {error.strerror or error}"
    if error.errno in _FULL:
        return StorageFullError(f"{text}; free or add space, senders will try again")
    return StorageError(f"{text}; check the file system, senders will try again")


def claim_name(temporary_name: str, path: str) -> str:
    """Return the name that marks `temporary_name` as in doubt under its final `path`."""
    return f"{temporary_name}@{urllib.parse.quote(path, safe='')}"


def final_path_of(name: str) -> str | None:
    """Return the final path that a name in ``.incoming`` tells, None for a temporary file."""
    _, mark, quoted = name.partition("@")
    if not mark:
        return None
    try:
        return check_path(urllib.parse.unquote(quoted))
    except InvalidValueError:
        return None


class IncomingLocalFile:
    """A file being received; see `archive.storage.base.IncomingFile`."""

    def __init__(self, layout: Layout, file_header: bytes, transfer_syntax_uid: str) -> None:
        self._layout = layout
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = hashlib.new(layout.digest_algorithm, usedforsecurity=False)
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path: str | None = None
        self._descriptor = self._opened()
        self._offset = len(file_header)
        self.dataset_length = 0
        self._append(file_header)

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set."""
        self._append(fragment)
        self._digest.update(fragment)
        self.dataset_length += len(fragment)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set written so far, from `offset` on."""
        return os.pread(self._descriptor, size, self._offset + offset)

    def commit(self, attributes: ObjectAttributes) -> StoredFile:
        """Make the file durable under its final path."""
        try:
            path = self._linked(attributes)
            os.fsync(self._descriptor)
            self._layout.directories.sync((self._layout.root / path).parent)
        except OSError as error:
            raise self._translated(error, doing="make the file durable") from error
        return StoredFile(
            storage_id=self._layout.storage_id,
            storage_path=path,
            transfer_syntax_uid=self._transfer_syntax_uid,
            object_size=self._offset + self.dataset_length,
            dataset_offset=self._offset,
            digest=f"{self._layout.digest_algorithm}:{self._digest.hexdigest()}",
        )

    def settle(self) -> None:
        """Forget that the committed file is in doubt, after its row is committed."""
        self._remove(self._layout.incoming / self._name)
        self._path = None
        self._close()

    def leave(self) -> None:
        """Leave the file in doubt: nobody knows now whether its row was committed."""
        self._close()

    def abort(self) -> None:
        """Remove the file, committed or not."""
        if self._descriptor < 0:
            return
        if self._path is not None:
            self._remove(self._layout.root / self._path)
        self._remove(self._layout.incoming / self._name)
        self._close()

    def _opened(self) -> int:
        """Make the temporary file and lock it for as long as it is open."""
        try:
            while True:
                descriptor = self._created()
                if own(descriptor):
                    return descriptor
                os.close(descriptor)
        except OSError as error:
            raise self._translated(error, doing="make a file") from error

    def _created(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        temporary = self._layout.incoming / self._name
        try:
            return os.open(temporary, flags, 0o640)
        except FileNotFoundError:
            self._layout.incoming.mkdir(parents=True, exist_ok=True)
            return os.open(temporary, flags, 0o640)

    def _append(self, data: bytes | memoryview) -> None:
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError as error:
            raise self._translated(error, doing="write") from error

    def _linked(self, attributes: ObjectAttributes) -> str:
        """Give the file its final path, another one when that is taken, and return it."""
        path = self._layout.path_format.expand(attributes, self._layout.clock.now())
        for _ in range(_ATTEMPTS):
            self._claim(path)
            try:
                self._link(path)
            except FileExistsError:
                path = with_random_name(path)
            else:
                self._path = path
                return path
        msg = f"storage {self._layout.storage_id}: no free path near {path} in {_ATTEMPTS} attempts"
        raise StorageError(msg)

    def _claim(self, path: str) -> None:
        """Mark the file as in doubt under `path`."""
        claim = claim_name(self._name.partition("@")[0], path)
        incoming = self._layout.incoming
        (incoming / self._name).rename(incoming / claim)
        self._name = claim

    def _link(self, path: str) -> None:
        final = self._layout.root / path
        claimed = self._layout.incoming / self._name
        try:
            os.link(claimed, final)
        except FileNotFoundError:
            self._layout.directories.make(final.parent)
            os.link(claimed, final)

    def _translated(self, error: OSError, *, doing: str) -> StorageError:
        return storage_error(self._layout.storage_id, doing, error)

    @staticmethod
    def _remove(name: Path) -> None:
        name.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
