"""A file of a local storage while it is being received, and the mark that it is in doubt.

Names in ``.incoming``: ``<id>`` while a long data set arrives, ``<id>@<final path, quoted>`` from
before the file also has its final path until `settle`. The open descriptor is locked throughout,
so that a sweep by another process knows that the file has an owner.
"""

import contextlib
import errno
import os
import secrets
import urllib.parse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from archive.clock import Clock
from archive.errors import InvalidValueError, StorageError, StorageFullError
from archive.model.digests import new_digest
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.directories import DurableDirectories
from archive.storage.following import FOLLOWED_BYTES, Follower, start_writeback
from archive.storage.locks import own
from archive.storage.path_format import PathFormat, check_path, with_random_name

INCOMING: Final = ".incoming"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ATTEMPTS: Final = 8

BUFFERED_BYTES: Final = 1 << 17
"""Longest data set that is kept in memory until it is complete, bytes."""


@dataclass(frozen=True)
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

    @cached_property
    def root_text(self) -> str:
        """The root as text: `Path` costs more than the system calls of a small object."""
        return str(self.root)

    @cached_property
    def incoming_text(self) -> str:
        """The same of `incoming`."""
        return str(self.incoming)


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
    """A file being received; see `archive.storage.base.IncomingFile`.

    The first `BUFFERED_BYTES` stay in memory: a small object is written at once, under the name
    that marks it, when its final path is known.
    """

    def __init__(self, layout: Layout, file_header: bytes, transfer_syntax_uid: str) -> None:
        self._layout = layout
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = new_digest(layout.digest_algorithm)
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path: str | None = None
        self._descriptor = -1
        self._header = file_header
        self._offset = len(file_header)
        self._buffered: list[bytes] = []
        self._follower: Follower | None = None
        self._is_durable = False
        self.dataset_length = 0

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set."""
        self.dataset_length += len(fragment)
        if self._follower is not None:
            self._append(fragment)
            self._follower.advance(self._offset + self.dataset_length)
            return
        self._digest.update(fragment)
        if self._descriptor >= 0:
            self._append(fragment)
            if self.dataset_length >= FOLLOWED_BYTES:
                position = self._offset + self.dataset_length
                self._follower = Follower(self._descriptor, self._digest, position)
        elif self.dataset_length <= BUFFERED_BYTES:
            self._buffered.append(bytes(fragment))
        else:
            self._open()
            self._append(fragment)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set written so far, from `offset` on."""
        if self._descriptor >= 0:
            return os.pread(self._descriptor, size, self._offset + offset)
        if len(self._buffered) > 1:
            self._buffered = [b"".join(self._buffered)]
        return self._buffered[0][offset : offset + size] if self._buffered else b""

    def place(self, attributes: ObjectAttributes) -> StoredFile:
        """Give the file its final path, in doubt and not durable yet."""
        try:
            self._catch_up()
            path = self._linked(attributes)
        except OSError as error:
            raise self._translated(error, doing="make the file") from error
        return StoredFile(
            storage_id=self._layout.storage_id,
            storage_path=path,
            transfer_syntax_uid=self._transfer_syntax_uid,
            object_size=self._offset + self.dataset_length,
            dataset_offset=self._offset,
            digest=f"{self._layout.digest_algorithm}:{self._digest.hexdigest()}",
        )

    def start_sync(self) -> None:
        """Let the kernel begin to make the placed file durable."""
        start_writeback(self._descriptor, 0, 0)

    def sync(self) -> None:
        """Make the placed file durable, if it is not yet."""
        if self._is_durable:
            return
        try:
            os.fsync(self._descriptor)
            self._layout.directories.sync(self._directory)
        except OSError as error:
            raise self._translated(error, doing="make the file durable") from error
        self._is_durable = True

    def commit(self, attributes: ObjectAttributes) -> StoredFile:
        """Make the file durable under its final path."""
        stored = self.place(attributes)
        self.sync()
        return stored

    def settle(self) -> None:
        """Forget that the committed file is in doubt, after its row is committed."""
        _remove(self._incoming_path())
        self._path = None
        self._close()

    def leave(self) -> None:
        """Leave the file in doubt: nobody knows now whether its row was committed."""
        self._close()

    def abort(self) -> None:
        """Remove the file, committed or not."""
        self._buffered.clear()
        if self._descriptor < 0:
            return
        if self._path is not None:
            _remove(f"{self._layout.root_text}/{self._path}")
        _remove(self._incoming_path())
        self._close()

    @property
    def _directory(self) -> str:
        """The directory of the final path."""
        return f"{self._layout.root_text}/{self._path}".rpartition("/")[0]

    def _incoming_path(self) -> str:
        return f"{self._layout.incoming_text}/{self._name}"

    def _open(self) -> None:
        """Make the file in ``.incoming``, locked for as long as it is open, with what is there."""
        try:
            self._descriptor = self._locked()
        except OSError as error:
            raise self._translated(error, doing="make a file") from error
        self._append(b"".join((self._header, *self._buffered)))
        self._buffered.clear()

    def _locked(self) -> int:
        while True:
            descriptor = self._created()
            if own(descriptor):
                return descriptor
            os.close(descriptor)

    def _created(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(self._incoming_path(), flags, 0o640)
        except FileNotFoundError:
            self._layout.incoming.mkdir(parents=True, exist_ok=True)
            return os.open(self._incoming_path(), flags, 0o640)

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
        old = self._incoming_path()
        self._name = claim_name(self._name.partition("@")[0], path)
        if self._descriptor < 0:
            self._open()
        else:
            os.rename(old, self._incoming_path())  # noqa: PTH104 - for each object; see root_text

    def _link(self, path: str) -> None:
        final = f"{self._layout.root_text}/{path}"
        try:
            os.link(self._incoming_path(), final)
        except FileNotFoundError:
            self._layout.directories.make(Path(final).parent)
            os.link(self._incoming_path(), final)

    def _translated(self, error: OSError, *, doing: str) -> StorageError:
        return storage_error(self._layout.storage_id, doing, error)

    def _catch_up(self) -> None:
        """Wait for the follower, if there is one."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.finish()

    def _close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # of no use any more
                self._catch_up()
            os.close(self._descriptor)
            self._descriptor = -1


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - for each object; see `Layout.root_text`
