"""Sleeping until there is something to do, where pynetdicom polls every millisecond."""

import os
import queue
import select
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from typing_extensions import override

_Item = TypeVar("_Item")
_SHORTEST_WAIT_S = 0.01


class RingingQueue(queue.Queue[_Item]):
    """A queue that tells somebody whenever something was put into it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    @override
    def put(self, item: _Item, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._ring()


class Doorbell(threading.Event):
    """The checkpoint of an association's reactor, at which it now also waits for work.

    pynetdicom clears the event to hold the reactor and sets it to let it go on; besides, the
    reactor waits here until `ring`, or until it has to look at the idle time.

    Parameters
    ----------
    idle_remaining_s
        Returns the seconds until the association may be idle for too long.
    """

    def __init__(self, idle_remaining_s: Callable[[], float]) -> None:
        super().__init__()
        self._idle_remaining_s = idle_remaining_s
        self._rung = threading.Event()

    def ring(self) -> None:
        """Let the reactor look for work."""
        self._rung.set()

    @override
    def set(self) -> None:
        super().set()
        self._rung.set()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        self._rung.wait(max(_SHORTEST_WAIT_S, self._idle_remaining_s()))
        self._rung.clear()
        return super().wait(timeout)


class SocketWait:
    """Waits for a socket or for another thread, whichever comes first."""

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._bell_poll = select.poll()
        self._bell_poll.register(self._bell, select.POLLIN)
        self._socket: socket.socket | None = None

    def ring(self) -> None:
        """Wake up the thread that waits; may be called by any thread, also after `close`."""
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def wait(self, sock: socket.socket | None, timeout_s: float) -> bool:
        """Sleep until the socket can be read, `ring` or the time-out.

        Parameters
        ----------
        sock
            The same socket at each call, or None to wait for `ring` alone.

        Returns
        -------
        bool
            Whether the socket can be read.
        """
        if sock is not None and self._socket is None:
            self._poll.register(sock, select.POLLIN)
            self._socket = sock
        poll = self._bell_poll if sock is None else self._poll
        is_readable = False
        for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1000 + 1):
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
            else:
                is_readable = True
        return is_readable

    def close(self) -> None:
        """Release what is held of the operating system."""
        with self._lock:
            os.close(self._bell)
            self._bell = -1
