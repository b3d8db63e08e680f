"""Makes files durable while their caller does something else (io_submit(2), IOCB_CMD_FSYNC).

The kernel does the fsync in a thread of its own and tells by a descriptor that it is done, so that
one thread can wait for files as it does for sockets. Where the kernel or a container refuses that,
`Syncs.begin` says so, and its caller calls fsync itself.
"""

import contextlib
from collections.abc import Callable
from typing import Final

from caio import linux_aio

_MOST: Final = 64
_REFUSALS: Final = (NotImplementedError, OverflowError, SystemError, ValueError)
"""What caio raises for ENOSYS, EAGAIN, other errors, and EINVAL or EBADF of the system calls."""

_NEGATIVE: Final = 1 << 63


class Syncs:
    """The files that one thread makes durable."""

    def __init__(self) -> None:
        self._context = _context()

    @property
    def descriptor(self) -> int | None:
        """Descriptor that can be read when there is something for `progress`; None without any."""
        return None if self._context is None else self._context.fileno

    def begin(self, descriptor: int, done: Callable[[int], None]) -> bool:
        """Begin to make an open file durable; tell whether that was possible.

        Parameters
        ----------
        done
            Called by `progress` with 0, or with the error (errno) of the fsync.
        """
        if self._context is None:
            return False
        operation = linux_aio.Operation.fsync(descriptor)
        operation.set_callback(lambda result: done(_errno(result)))
        try:
            return self._context.submit(operation) == 1
        except _REFUSALS:  # it waits for too much, or knows no fsync
            return False

    def progress(self) -> None:
        """Tell those whose files are durable, or failed to become so; does not wait."""
        if self._context is None:
            return
        with contextlib.suppress(BlockingIOError):  # nothing has ended
            self._context.poll()
        self._context.process_events()


def _context() -> linux_aio.Context | None:
    try:
        return linux_aio.Context(_MOST)
    except (AttributeError, *_REFUSALS):  # not of this platform, not in this container, none left
        return None


def _errno(result: int) -> int:
    """Return the error of a result that is a negative number taken for a positive one."""
    return (1 << 64) - result if result & _NEGATIVE else 0
