"""A file of a local storage while it is being received.

A short data set is kept in memory until its final path is known and marked; then the file is made
there. A long one is written to a file in ``.incoming`` that becomes its own mark when it gets its
final path besides (`archive.storage.marks`), by threads of its own (`archive.storage.long_files`).
The descriptor of the file is locked until `settle`.
"""

import contextlib
import errno
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from archive.clock import Clock
from archive.errors import StorageError, StorageFullError
from archive.model.digests import new_digest
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.directories import DurableDirectories, Names, sync_directory
from archive.storage.long_files import LongWriter, start_writeback
from archive.storage.marks import INCOMING, Mark, Marks, create_owned, remove
from archive.storage.path_format import PathFormat, with_random_name
from archive.storage.syncs import Syncs

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ATTEMPTS: Final = 8

BUFFERED_BYTES: Final = 1 << 20
"""Longest data set that is kept in memory until it is complete, bytes."""

_MOST_PIECES: Final = 512
"""In which it is kept: as many as one system call writes, and no more objects than that."""


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
    def marks(self) -> Marks:
        """The marks of this process."""
        return Marks(self.incoming)


def storage_error(storage_id: str, doing: str, error: OSError) -> StorageError:
    """Return the error of dicomq for an error of the operating system."""
    text = f"storage {storage_id}: cannot {doing}: {error.strerror or error}"
    if error.errno in _FULL:
        return StorageFullError(f"{text}; free or add space, senders will try again")
    return StorageError(f"{text}; check the file system, senders will try again")


class IncomingLocalFile:
    """A file being received; see `archive.storage.base.IncomingFile`.

    The first `BUFFERED_BYTES` stay in memory: a small object is written at once, when its final
    path is known, and the header of a long one is read from there.

    Attributes
    ----------
    is_syncing
        Whether the kernel is making it durable because of `begin_sync`.
    """

    def __init__(self, layout: Layout, file_header: bytes, transfer_syntax_uid: str) -> None:
        self._layout = layout
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = new_digest(layout.digest_algorithm)
        self._mark: Mark | None = None
        self._path: str | None = None
        self._descriptor = -1
        self._header = file_header
        self._offset = len(file_header)
        self._buffered: list[bytes] = []
        self._writer: LongWriter | None = None
        self._is_long = False
        self._is_durable = False
        self._sync_error: OSError | None = None
        self.is_syncing = False
        self.dataset_length = 0

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set."""
        self.dataset_length += len(fragment)
        if not self._is_long and self.dataset_length > BUFFERED_BYTES:
            self._begin_long()
        if self._is_long:
            assert self._writer is not None  # noqa: S101 - it was not read from yet
            try:
                self._writer.write(fragment)
            except OSError as error:
                raise self._translated(error, doing="write") from error
            return
        self._digest.update(fragment)
        self._buffered.append(bytes(fragment))
        if len(self._buffered) == _MOST_PIECES:
            self._join()

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set, which is complete, from `offset` on."""
        if self._buffered and offset + size > len(self._buffered[0]):
            self._join()
        found = self._buffered[0][offset : offset + size] if self._buffered else b""
        if len(found) == size or self._descriptor < 0:
            return found
        self._catch_up()
        return os.pread(self._descriptor, size, self._offset + offset)

    def place(self, attributes: ObjectAttributes) -> StoredFile:
        """Give the file its final path, in doubt and not durable yet."""
        self._catch_up()
        try:
            path = self._placed(attributes)
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
        """Let the kernel begin to make the placed file durable, if it is not yet."""
        if not self._is_durable:
            start_writeback(self._descriptor)

    def begin_sync(self, syncs: Syncs) -> None:
        """Make the placed file durable without waiting, if its fsync is all that takes."""
        if self._layout.directories.follow(is_new=not self._is_long):
            self.is_syncing = syncs.begin(self._descriptor, self._synced)

    def sync(self) -> None:
        """Make the placed file durable, if it is not yet."""
        if self._is_durable:
            return
        try:
            if self._sync_error is not None:
                raise self._sync_error  # the kernel tells an error once
            directories = self._layout.directories
            if directories.names is Names.ONE_BY_ONE:
                sync_directory(self._layout.incoming)  # the mark
            os.fsync(self._descriptor)
            directories.sync(self._directory, is_new=not self._is_long)
        except OSError as error:
            raise self._translated(error, doing="make the file durable") from error
        self._is_durable = True

    def _synced(self, error: int) -> None:
        self.is_syncing = False
        if error:
            self._sync_error = OSError(error, os.strerror(error))
        else:
            self._is_durable = True

    def commit(self, attributes: ObjectAttributes) -> StoredFile:
        """Make the file durable under its final path."""
        stored = self.place(attributes)
        self.sync()
        return stored

    def settle(self) -> None:
        """Forget that the committed file is in doubt, after its row is committed."""
        self._close()

    def leave(self) -> None:
        """Leave the file in doubt: nobody knows now whether its row was committed."""
        mark, descriptor = self._given_up()
        if mark is not None:
            mark.leave()
        if descriptor >= 0:
            os.close(descriptor)

    def abort(self) -> None:
        """Remove the file, committed or not."""
        self._buffered.clear()
        if self._path is not None:
            remove(self._final_path(self._path))
        self._close()

    @property
    def _directory(self) -> str:
        """The directory of the final path."""
        return f"{self._layout.root_text}/{self._path}".rpartition("/")[0]

    def _final_path(self, path: str) -> str:
        return f"{self._layout.root_text}/{path}"

    def _begin_long(self) -> None:
        """Go on with a file in ``.incoming`` and a writer for it."""
        self._is_long = True
        try:
            self._mark = self._layout.marks.make()
            self._descriptor = self._mark.descriptor
            self._writer = LongWriter(self._mark.path, self._digest)
            for piece in (self._header, *self._buffered):
                self._writer.write(piece, is_hashed=True)
        except OSError as error:
            raise self._translated(error, doing="make a file") from error

    def _write_buffered(self) -> None:
        """Begin the file with what was kept in memory."""
        pieces = (self._header, *self._buffered)
        try:
            written = os.writev(self._descriptor, pieces)
        except OSError as error:
            raise self._translated(error, doing="write") from error
        if written < sum(map(len, pieces)):
            self._append(b"".join(pieces)[written:])
        self._buffered.clear()

    def _join(self) -> None:
        self._buffered = [b"".join(self._buffered)]

    def _append(self, data: bytes | memoryview) -> None:
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError as error:
            raise self._translated(error, doing="write") from error

    def _placed(self, attributes: ObjectAttributes) -> str:
        """Give the file its final path, another one when that is taken, and return it."""
        path = self._layout.path_format.expand(attributes, self._layout.clock.now())
        for _ in range(_ATTEMPTS):
            self._claim(path)
            try:
                self._make(path)
            except FileExistsError:
                path = with_random_name(path)
            else:
                return path
        msg = f"storage {self._layout.storage_id}: no free path near {path} in {_ATTEMPTS} attempts"
        raise StorageError(msg)

    def _claim(self, path: str) -> None:
        """Mark `path` as in doubt."""
        if self._mark is None:
            self._mark = self._layout.marks.claim(path)
        else:
            self._mark.claim(path)

    def _make(self, path: str) -> None:
        """Make the file under `path`, and the directories on the way if need be."""
        try:
            self._make_here(path)
        except FileNotFoundError:
            self._layout.directories.make(Path(self._final_path(path)).parent)
            self._make_here(path)

    def _make_here(self, path: str) -> None:
        final = self._final_path(path)
        if self._mark is not None and self._is_long:
            os.link(self._mark.path, final)
            self._path = path
            return
        self._descriptor = create_owned(final)
        self._path = path
        self._write_buffered()

    def _translated(self, error: OSError, *, doing: str) -> StorageError:
        return storage_error(self._layout.storage_id, doing, error)

    def _catch_up(self) -> None:
        """Wait for the writer, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.finish()
            except OSError as error:
                raise self._translated(error, doing="write") from error

    def _close(self) -> None:
        """Close the file; its mark marks nothing any more, and goes if it is the file itself."""
        mark, descriptor = self._given_up()
        if descriptor >= 0:
            os.close(descriptor)
            if mark is not None:
                self._layout.marks.give_back(mark)
        elif mark is not None:
            mark.remove()

    def _given_up(self) -> tuple[Mark | None, int]:
        """Forget mark and file; return them, the file as -1 when the mark is the file itself."""
        with contextlib.suppress(StorageError):  # of no use any more
            self._catch_up()
        mark, descriptor = self._mark, self._descriptor
        self._mark, self._descriptor, self._path = None, -1, None
        return mark, -1 if self._is_long else descriptor
