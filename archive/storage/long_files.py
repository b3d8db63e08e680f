"""How a long file is hashed and written: past the page cache, by threads of its own.

The receiving thread fills one block while another one hashes the block before, and a third one
writes those before that; neither needs Python's lock meanwhile. To copy into a block that is used
over and over costs less than fresh memory of the page cache, a long file does not push others out
of it, and at the end the fsync finds nothing to do. Where the file system refuses such writes
(O_DIRECT), the same blocks go through the page cache.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Final, cast

from archive.model.digests import Digest
from archive.storage.blocks import BLOCK_BYTES, give_back, take_block

_BLOCKS: Final = 6
_ALIGNMENT: Final = 4096
_SYNC_FILE_RANGE_WRITE: Final = 2

_Filled = tuple[memoryview, int, int]
"""A block, where what is new in it begins, and where that ends."""


class LongWriter:
    """Writes one file.

    Parameters
    ----------
    path
        The file, which is there and empty.
    header
        The beginning of the file, shorter than a block.
    digest
        Gets what is written after the header; not to be touched by others until `finish` returned.

    Raises
    ------
    OSError
        When the file cannot be opened.
    """

    def __init__(self, path: str, header: bytes, digest: Digest) -> None:
        self._digest = digest
        self._position = 0
        self._end = len(header)
        self._error: OSError | None = None
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._filled: SimpleQueue[_Filled | None] = SimpleQueue()
        self._hashed: SimpleQueue[_Filled | None] = SimpleQueue()
        self._descriptor = _opened(path)
        for _ in range(_BLOCKS):
            self._free.put(take_block())
        self._block = self._free.get()
        self._block[: len(header)] = header
        self._first = self._length = len(header)
        self._threads = [
            _started("storage-hasher", self._hash),
            _started("storage-writer", self._run),
        ]

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises
        ------
        OSError
            When the file cannot be written.
        """
        while len(data):
            if self._length == BLOCK_BYTES:
                self._pass_on()
            step = min(len(data), BLOCK_BYTES - self._length)
            self._block[self._length : self._length + step] = data[:step]
            self._length += step
            self._end += step
            data = data[step:]

    def finish(self) -> None:
        """Write what is left and wait for it.

        Raises
        ------
        OSError
            When the file could not be written.
        """
        self._filled.put((self._block, self._first, self._length))
        self._filled.put(None)
        for thread in self._threads:
            thread.join()
        try:
            if self._error is not None:
                raise self._error
            os.ftruncate(self._descriptor, self._end)
        finally:
            os.close(self._descriptor)
            while not self._free.empty():
                give_back(self._free.get())

    def _pass_on(self) -> None:
        self._filled.put((self._block, self._first, self._length))
        self._block, self._first, self._length = self._free.get(), 0, 0
        if self._error is not None:
            raise self._error

    def _hash(self) -> None:
        while (filled := self._filled.get()) is not None:
            block, first, length = filled
            self._digest.update(block[first:length])
            self._hashed.put(filled)
        self._hashed.put(None)

    def _run(self) -> None:
        while (filled := self._hashed.get()) is not None:
            block, _, length = filled
            if self._error is None:
                try:
                    self._take(block, length)
                except OSError as error:
                    self._error = error
            self._free.put(block)

    def _take(self, block: memoryview, length: int) -> None:
        """Write a block; what fills up the last one is cut off in the end."""
        padded = -(-length // _ALIGNMENT) * _ALIGNMENT
        block[length:padded] = bytes(padded - length)
        written = 0
        while written < padded:
            written += self._written(block[written:padded], self._position + written)
        self._position += length

    def _written(self, data: memoryview, position: int) -> int:
        try:
            return os.pwrite(self._descriptor, data, position)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _set_direct(self._descriptor, 0)
            return os.pwrite(self._descriptor, data, position)


def _started(name: str, run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _opened(path: str) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # then it goes through the page cache
        _set_direct(descriptor, getattr(os, "O_DIRECT", 0))
    return descriptor


def _set_direct(descriptor: int, flag: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flag)


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
