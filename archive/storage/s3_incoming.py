"""An object of an S3 storage while it is being received, and the mark that it is in doubt.

The data set is kept in memory up to `PART_BYTES`, beyond that in a file without a name in the
spool directory, which vanishes with the process. `place` writes the mark, `sync` the object
under a key that nobody else can have; `settle` deletes the mark.
"""

import contextlib
import secrets
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from archive.clock import Clock
from archive.errors import StorageError
from archive.model.digests import new_digest
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.incoming import storage_error
from archive.storage.marks import INCOMING
from archive.storage.path_format import PathFormat, check_path
from archive.storage.s3_client import S3Client
from archive.storage.syncs import Syncs

PART_BYTES: Final = 8 << 20
"""Most of an object that is held in memory, and the size of the parts of larger ones."""

COMMIT_LIMIT_S: Final = 1200.0
"""An object that takes longer to write is given up, long before a sweep may take it for lost."""


@dataclass(frozen=True, slots=True)
class S3Layout:
    """Where and how an S3 storage keeps its objects."""

    storage_id: str
    client: S3Client
    path_format: PathFormat
    digest_algorithm: str
    spool: Path
    clock: Clock


class IncomingS3Object:
    """An object being received; see `archive.storage.base.IncomingFile`."""

    def __init__(self, layout: S3Layout, file_header: bytes, transfer_syntax_uid: str) -> None:
        self._layout = layout
        self._transfer_syntax_uid = transfer_syntax_uid
        self._digest = new_digest(layout.digest_algorithm)
        self._id = secrets.token_hex(8)
        self._mark: str | None = None
        self._key: str | None = None
        self._is_written = False
        self._begun = 0.0
        self._offset = len(file_header)
        self.dataset_length = 0
        self._spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed when it is settled
            max_size=PART_BYTES, dir=str(layout.spool)
        )
        self._append(file_header)

    def write(self, fragment: bytes | memoryview) -> None:
        """Append a piece of the encoded data set."""
        self._append(fragment)
        self._digest.update(fragment)
        self.dataset_length += len(fragment)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of the data set, which is complete, from `offset` on."""
        self._spool.seek(self._offset + offset)
        data: bytes = self._spool.read(size)
        self._spool.seek(0, 2)
        return data

    def place(self, attributes: ObjectAttributes) -> StoredFile:
        """Choose the final key and mark it as in doubt."""
        layout = self._layout
        path = layout.path_format.expand(attributes, layout.clock.now())
        path = check_path(f"{path}-{self._id}")
        self._begun = layout.clock.monotonic()
        self._mark = mark_of(self._id, path)
        layout.client.put(self._mark, b"")
        self._key = path
        return StoredFile(
            storage_id=layout.storage_id,
            storage_path=path,
            transfer_syntax_uid=self._transfer_syntax_uid,
            object_size=self._offset + self.dataset_length,
            dataset_offset=self._offset,
            digest=f"{layout.digest_algorithm}:{self._digest.hexdigest()}",
        )

    def start_sync(self) -> None:
        """Nothing: `sync` uploads."""

    @property
    def is_syncing(self) -> bool:
        """Whether something is under way that `begin_sync` began."""
        return False

    def begin_sync(self, syncs: Syncs) -> None:
        """Nothing: `sync` uploads."""

    def sync(self) -> None:
        """Write the object under its key and have the server confirm it, if it is not there yet."""
        if self._is_written:
            return
        layout = self._layout
        assert self._key is not None  # noqa: S101 - it was placed
        self._upload(self._key)
        self._is_written = True
        if layout.clock.monotonic() - self._begun > COMMIT_LIMIT_S:
            msg = (
                f"storage {layout.storage_id}: writing {self._key} took over {COMMIT_LIMIT_S:.0f} "
                "s; it is given up, senders will try again"
            )
            raise StorageError(msg)

    def commit(self, attributes: ObjectAttributes) -> StoredFile:
        """Write the object under its final key and have the server confirm it."""
        stored = self.place(attributes)
        self.sync()
        return stored

    def settle(self) -> None:
        """Forget that the object is in doubt; if that fails, the sweep finds its row."""
        self._spool.close()
        if self._mark is not None:
            with contextlib.suppress(StorageError):
                self._layout.client.delete(self._mark)
        self._mark = self._key = None

    def leave(self) -> None:
        """Leave the object in doubt: nobody knows now whether its row was committed."""
        self._spool.close()
        self._mark = self._key = None

    def abort(self) -> None:
        """Remove the object, written or not; if that fails, the sweep does it by the mark.

        A request to write that was given up may still be carried out after that to delete, so the
        mark of an object that was not written in order stays for the sweep.
        """
        self._spool.close()
        with contextlib.suppress(StorageError):
            if self._key is not None:
                self._layout.client.delete(self._key)
            if self._mark is not None and self._is_written:
                self._layout.client.delete(self._mark)
        self._mark = self._key = None

    def _append(self, data: bytes | memoryview) -> None:
        try:
            self._spool.write(data)
        except OSError as error:
            raise storage_error(self._layout.storage_id, "write to the spool", error) from error

    def _upload(self, path: str) -> None:
        self._spool.seek(0)
        if self._offset + self.dataset_length <= PART_BYTES:
            self._layout.client.put(path, self._spool.read())
        else:
            self._layout.client.put_parts(path, self._parts())

    def _parts(self) -> Iterator[bytes]:
        while part := self._spool.read(PART_BYTES):
            yield part


def mark_of(identifier: str, path: str) -> str:
    """Return the key that marks the object at `path` as in doubt."""
    return f"{INCOMING}/{identifier}@{urllib.parse.quote(path, safe='')}"
