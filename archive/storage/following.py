"""What is done with a long file beside the thread that writes it: its digest, its way to the disk.

A thread follows the writer through the page cache. When the last byte was written, nearly all of
the file has its digest and is on the disk or on its way there, so that the fsync finds little to
do. A short file is not worth a thread.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Final, cast

from archive.model.digests import Digest

FOLLOWED_BYTES: Final = 2 << 20
"""Length from which a file is followed."""

_STEP: Final = 1 << 18
_WRITEBACK_STEP: Final = 1 << 22
_SYNC_FILE_RANGE_WRITE: Final = 2


class Follower:
    """Follows the writer of one file.

    Parameters
    ----------
    descriptor
        The file, open for reading; stays open until `finish` returned.
    digest
        Of the bytes before `position`; not touched by others until `finish` returned.
    position
        Where to begin, bytes from the start of the file.
    """

    def __init__(self, descriptor: int, digest: Digest, position: int) -> None:
        self._descriptor = descriptor
        self._digest = digest
        self._position = self._started = position
        self._written = self._announced = position
        self._is_complete = False
        self._error: OSError | None = None
        self._more = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage-follower", daemon=True)
        self._thread.start()

    def advance(self, position: int) -> None:
        """Say that the file was written up to `position`."""
        self._written = position
        if position - self._announced >= _STEP:
            self._announced = position
            self._more.set()

    def finish(self) -> None:
        """Wait until the digest is that of all bytes that were written.

        Raises
        ------
        OSError
            When the file could not be read.
        """
        self._is_complete = True
        self._more.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        buffer = memoryview(bytearray(_STEP))
        try:
            while self._follow(buffer):
                pass
        except OSError as error:
            self._error = error

    def _follow(self, buffer: memoryview) -> bool:
        """Take what was written since the last call; return whether there may be more."""
        self._more.wait()
        self._more.clear()
        is_last = self._is_complete
        while (missing := self._written - self._position) >= _STEP or (is_last and missing):
            read = os.preadv(self._descriptor, [buffer[: min(missing, _STEP)]], self._position)
            if read == 0:
                msg = "the file is shorter than what was written"
                raise OSError(msg)
            self._digest.update(buffer[:read])
            self._position += read
        if self._position - self._started >= _WRITEBACK_STEP:
            start_writeback(self._descriptor, self._started, self._position - self._started)
            self._started = self._position
        return not is_last


def start_writeback(descriptor: int, start: int, length: int) -> None:
    """Let the kernel begin to write a part of a file to the disk; only a hint (Linux).

    Parameters
    ----------
    length
        Bytes; 0 goes on to the end of the file.
    """
    begin = _sync_file_range()
    if begin is not None:
        begin(descriptor, start, length, _SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the system call, None where there is none."""
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int] | None", found)
