"""A TCP proxy between two processes that can be cut, or go silent without closing anything."""

import contextlib
import socket
import threading
from collections.abc import Callable

CHUNK = 65536
Connect = Callable[[], socket.socket]


def to_port(port: int) -> Connect:
    """Return how to reach a loopback port."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=5)


def to_unix(path: str) -> Connect:
    """Return how to reach a Unix socket."""

    def connect() -> socket.socket:
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(path)
        return upstream

    return connect


class Proxy:
    """Forwards connections to a loopback port of its own until it is cut or frozen."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and new ones at once."""
        self._whole = False
        self._hang_up()

    def freeze(self) -> None:
        """Forward nothing any more, but leave all connections open."""
        self._flowing.clear()

    def mend(self) -> None:
        """Forward again."""
        self._whole = True
        self._flowing.set()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self._flowing.set()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                upstream = self._connect() if self._whole else None
            except OSError:
                upstream = None
            if upstream is None:
                client.close()
                continue
            upstream.settimeout(None)
            with self._lock:
                self._open |= {client, upstream}
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()
