"""Blocks of memory that are used over and over, which costs less than fresh memory.

They begin at a page, as writing past the page cache (O_DIRECT) demands.
"""

import mmap
from typing import Final

BLOCK_BYTES: Final = 1 << 20
_MOST_IDLE: Final = 16

_idle: list[memoryview] = []


def take_block() -> memoryview:
    """Return a block of `BLOCK_BYTES` bytes, whatever was in it before."""
    try:
        return _idle.pop()
    except IndexError:
        return memoryview(mmap.mmap(-1, BLOCK_BYTES))


def give_back(block: memoryview) -> None:
    """Leave a block to others."""
    if len(_idle) < _MOST_IDLE:
        _idle.append(block)
