"""The bytes that go out for a stored object: as stored, or transcoded to a native syntax."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from archive.errors import ObjectUnreadableError
from archive.model.entities import StoredFile
from archive.storage.base import Storage, Storages
from workers.sending import ByteSource
from workers.transcoding import Transcoder

NO_FILE = "no copy of the object is left on any storage"


@dataclass(frozen=True, slots=True)
class Payload:
    """An encoded data set, ready to be read.

    Attributes
    ----------
    length
        Bytes that `source` delivers.
    """

    source: ByteSource
    length: int


@contextlib.contextmanager
def open_payload(
    file: StoredFile, transfer_syntax_uid: str, storages: Storages, transcoder: Transcoder
) -> Iterator[Payload]:
    """Open the data set of a stored file in a transfer syntax.

    Raises
    ------
    ObjectUnreadableError
        When the file is gone or has not the size that the ledger knows.
    ConfigurationError
        When its storage is not configured any more.
    TranscodingError
        When it cannot be decoded.
    """
    storage = storages.get(file.storage_id)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(storage.open(file.storage_path))
        _check_size(source, file)
        offset = file.dataset_offset
        if transfer_syntax_uid != file.transfer_syntax_uid:
            original = stack.enter_context(_local_copy(storage, file, source))
            transcoded = transcoder.transcode(original, transfer_syntax_uid)
            stack.callback(transcoded.unlink)
            source = stack.enter_context(transcoded.open("rb"))
            offset = 0
        size = source.seek(0, os.SEEK_END)
        source.seek(offset)
        yield Payload(cast("ByteSource", source), size - offset)


def _check_size(source: BinaryIO, file: StoredFile) -> None:
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    if size != file.object_size or size <= file.dataset_offset:
        msg = (
            f"the stored file {file.storage_path} on storage {file.storage_id} has {size} bytes "
            f"instead of {file.object_size}: restore it from a copy"
        )
        raise ObjectUnreadableError(msg)


@contextlib.contextmanager
def _local_copy(storage: Storage, file: StoredFile, source: BinaryIO) -> Iterator[Path]:
    """Yield where the file lies on this host, a copy of it when the storage is elsewhere."""
    path = storage.local_path(file.storage_path)
    if path is not None:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="dicomq-copy-") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        yield Path(copy.name)
