"""How the rest of a long file is written: past the page cache, by a thread of its own.

The receiving thread fills one block while the other thread writes those before. To copy into a
block that is used over and over costs less than fresh memory of the page cache, a long file does
not push others out of it, and at the end the fsync finds nothing to do. Where the file system
refuses such writes (O_DIRECT), the same blocks go through the page cache.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Final, cast

LONG_BYTES: Final = 2 << 20
"""Length from which a file is written that way; a shorter one is not worth a thread."""

_BLOCK: Final = 1 << 19
_BLOCKS: Final = 6
_ALIGNMENT: Final = 4096
_MOST_IDLE: Final = 12
_SYNC_FILE_RANGE_WRITE: Final = 2

_idle: list[mmap.mmap] = []
"""Blocks of files that are complete: memory that was used before is cheaper."""


class LongWriter:
    """Appends to one file.

    Parameters
    ----------
    path
        The file, of which the bytes before `position` were written.
    position
        Where to go on, bytes from the start of the file.
    before
        The bytes of the file from `aligned(position)` to `position`.

    Raises
    ------
    OSError
        When the file cannot be opened.
    """

    def __init__(self, path: str, position: int, *, before: bytes) -> None:
        self._position = aligned(position)
        self._end = position
        self._error: OSError | None = None
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._full: SimpleQueue[tuple[mmap.mmap, int] | None] = SimpleQueue()
        self._descriptor = _opened(path)
        for _ in range(_BLOCKS):
            self._free.put(_some_block())
        self._block = self._free.get()
        self._block[: len(before)] = before
        self._filled = len(before)
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises
        ------
        OSError
            When the file cannot be written.
        """
        while len(data):
            if self._filled == _BLOCK:
                self._pass_on()
            step = min(len(data), _BLOCK - self._filled)
            self._block[self._filled : self._filled + step] = data[:step]
            self._filled += step
            self._end += step
            data = data[step:]

    def finish(self) -> None:
        """Write what is left and wait for it.

        Raises
        ------
        OSError
            When the file could not be written.
        """
        self._full.put((self._block, self._filled))
        self._full.put(None)
        self._thread.join()
        try:
            if self._error is not None:
                raise self._error
            os.ftruncate(self._descriptor, self._end)
        finally:
            os.close(self._descriptor)
            while not self._free.empty() and len(_idle) < _MOST_IDLE:
                _idle.append(self._free.get())

    def _pass_on(self) -> None:
        self._full.put((self._block, self._filled))
        self._block, self._filled = self._free.get(), 0
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            block, length = item
            if self._error is None:
                try:
                    self._take(block, length)
                except OSError as error:
                    self._error = error
            self._free.put(block)

    def _take(self, block: mmap.mmap, length: int) -> None:
        """Write a block; what fills up the last one is cut off in the end."""
        padded = aligned(length + _ALIGNMENT - 1)
        block[length:padded] = bytes(padded - length)
        with memoryview(block) as view:
            written = 0
            while written < padded:
                written += self._written(view[written:padded], self._position + written)
        self._position += length

    def _written(self, data: memoryview, position: int) -> int:
        try:
            return os.pwrite(self._descriptor, data, position)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _set_direct(self._descriptor, 0)
            return os.pwrite(self._descriptor, data, position)


def _some_block() -> mmap.mmap:
    try:
        return _idle.pop()
    except IndexError:
        return mmap.mmap(-1, _BLOCK)


def _opened(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # then it goes through the page cache
        _set_direct(descriptor, getattr(os, "O_DIRECT", 0))
    return descriptor


def _set_direct(descriptor: int, flag: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flag)


def aligned(position: int) -> int:
    """Return the last position up to `position` at which a block may begin."""
    return position - position % _ALIGNMENT


def start_writeback(descriptor: int) -> None:
    """Let the kernel begin to write a file to the disk; only a hint (Linux)."""
    begin = _sync_file_range()
    if begin is not None:
        begin(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the system call, None where there is none."""
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int] | None", found)
