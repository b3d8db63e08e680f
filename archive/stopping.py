"""Ending a process when it is asked to."""

import signal
import socket
import threading


def set_when_asked(stop: threading.Event) -> None:
    """Set an event on SIGTERM or SIGINT; to be called by the main thread.

    A handler in Python runs in the main thread once that runs: never, if the signal came just
    before it began to wait, and it cannot set an event for which the main thread waits with its
    lock in hand. So another thread reads what the interpreter writes when a signal comes
    (signal.set_wakeup_fd), and sets the event.
    """
    reader, writer = socket.socketpair()
    writer.settimeout(0)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _nothing_else)
    threading.Thread(
        target=_pass_on, args=(reader, writer, stop), name="stopping", daemon=True
    ).start()


def _pass_on(reader: socket.socket, writer: socket.socket, stop: threading.Event) -> None:
    with reader, writer:
        while reader.recv(1):
            stop.set()


def _nothing_else(_number: int, _frame: object) -> None:
    """Take the place of the handler that ends the process at once."""
