"""Whether a stored file is still what was stored: as thoroughly as dcmStorageVerificationPolicy."""

import hmac
from enum import IntEnum
from typing import BinaryIO, Final

from archive.errors import ObjectUnreadableError
from archive.model.digests import new_digest
from archive.model.entities import StoredFile
from archive.storage.base import Storage

_PIECE: Final = 1 << 20


class Thoroughness(IntEnum):
    """How a file is looked at; each level includes those below it."""

    ROW = 0
    """Not at all: the ledger's word is enough."""
    EXISTS = 1
    SIZE = 2
    FETCH = 3
    """Read to its end."""
    CHECKSUM = 4
    """Read to its end, and its digest compared with the recorded one."""


def verify_file(storage: Storage, file: StoredFile, thoroughness: Thoroughness) -> None:
    """Check one file.

    Raises
    ------
    ObjectUnreadableError
        When it is missing, has another length, cannot be read or has other contents.
    """
    if thoroughness is Thoroughness.ROW:
        return
    with storage.open(file.storage_path) as stream:
        if thoroughness >= Thoroughness.SIZE:
            _check_size(stream, file)
        if thoroughness >= Thoroughness.FETCH:
            _check_contents(stream, file, compare=thoroughness is Thoroughness.CHECKSUM)


def _check_size(stream: BinaryIO, file: StoredFile) -> None:
    size = stream.seek(0, 2)
    if size != file.object_size:
        msg = f"{file.storage_path} has {size} bytes, {file.object_size} are recorded"
        raise ObjectUnreadableError(msg)


def _check_contents(stream: BinaryIO, file: StoredFile, *, compare: bool) -> None:
    """Read the encoded data set, over which the digest was made."""
    algorithm, _, expected = file.digest.partition(":")
    stream.seek(file.dataset_offset)
    digest = new_digest(algorithm)
    try:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    except OSError as error:
        msg = f"{file.storage_path} cannot be read: {error.strerror}"
        raise ObjectUnreadableError(msg) from error
    if compare and not hmac.compare_digest(digest.hexdigest(), expected):
        msg = f"{file.storage_path} has other contents than were stored ({algorithm} differs)"
        raise ObjectUnreadableError(msg)
