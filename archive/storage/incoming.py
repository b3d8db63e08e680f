"""A file of a local storage while it is being received.

A short data set is kept in memory until its final path is known and marked; then the file is made
there. A long one is written by threads of its own (`archive.storage.long_files`) to a file in
``.incoming`` that becomes its own mark when it gets its final path besides
(`archive.storage.marks`). The descriptor of the file is locked until `settle`.
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
from archive.storage.blocks import BLOCK_BYTES, give_back, take_block
from archive.storage.directories import DurableDirectories, Names, sync_directory
from archive.storage.long_files import LongWriter, start_writeback
from archive.storage.marks import INCOMING, Mark, Marks, create_owned, remove
from archive.storage.path_format import PathFormat, with_random_name
from archive.storage.syncs import Syncs

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ATTEMPTS: Final = 8

BUFFERED_BYTES: Final = BLOCK_BYTES
"""Longest data set that is kept in memory until it is complete, bytes."""

_WORTH_BEGINNING: Final = 1 << 17
"""Length from which it helps when a file is on its way to the disk before its fsync, bytes."""


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
        self._block: memoryview | None = None
        self._held = 0
        self._writer: LongWriter | None = None
        self._is_long = False
        self._is_durable = False
        self._sync_error: OSError | None = None
        self.is_syncing = False
        self.dataset_length = 0

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set."""
        end = self.dataset_length + len(fragment)
        if not self._is_long and end > BUFFERED_BYTES:
            self._begin_long()
        if self._is_long:
            self._write_long(fragment)
        else:
            if self._block is None:
                self._block = take_block()
            self._block[self.dataset_length : end] = fragment
            self._held = end
        self.dataset_length = end

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set, which is complete, from `offset` on."""
        if offset + size > self._held and self._descriptor >= 0:
            self._catch_up()
            return os.pread(self._descriptor, size, self._offset + offset)
        return bytes(self._contents[offset : offset + size])

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
            self._sync_error = error
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
            self._writer = LongWriter(self._mark.path, self._header, self._digest)
        except OSError as error:
            raise self._translated(error, doing="make a file") from error
        self._write_long(self._contents)

    def _write_long(self, fragment: bytes | memoryview) -> None:
        assert self._writer is not None  # noqa: S101 - it was not read from yet
        try:
            self._writer.write(fragment)
        except OSError as error:
            raise self._translated(error, doing="write") from error

    @property
    def _contents(self) -> memoryview:
        """What is kept in memory of the data set."""
        return memoryview(b"") if self._block is None else self._block[: self._held]

    def _write(self) -> None:
        """Write the file that was kept in memory; it is hashed while it is on its way."""
        pieces = (self._header, self._contents)
        written = os.writev(self._descriptor, pieces)
        if written < self._offset + self._held:
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        if self._held >= _WORTH_BEGINNING:
            self.start_sync()
        self._digest.update(self._contents)
        self._release()

    def _release(self) -> None:
        """Forget what was kept in memory."""
        block, self._block, self._held = self._block, None, 0
        if block is not None:
            give_back(block)

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
        self._write()

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
        self._release()
        with contextlib.suppress(StorageError):  # of no use any more
            self._catch_up()
        mark, descriptor = self._mark, self._descriptor
        self._mark, self._descriptor, self._path = None, -1, None
        return mark, -1 if self._is_long else descriptor
