"""The ports with TLS: opened and closed as the directory says, also while the process runs."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from pynetdicom import evt

from archive import telemetry
from archive.configuration.descriptors import Connection, Snapshot
from archive.errors import ConfigurationError, TlsMaterialError
from archive.telemetry import log_event
from archive.tls.stores import server_context
from scp.listening import Address, Entrance, TlsListener, acceptor_connections

_LOOK_S: Final = 1.0
_log = logging.getLogger(__name__)

Events = Sequence[tuple[evt.EventType, Callable[[evt.Event], object]]]


class TlsPorts:
    """The TLS listeners of a process, besides its main one.

    Parameters
    ----------
    events
        pynetdicom's events and the handler of each.
    snapshot
        Returns the present configuration.
    main
        Address of the main listener, whose port is left to it. The others listen on its host
        unless their connection has a dcmBindAddress.
    """

    def __init__(
        self, events: Events, snapshot: Callable[[], Snapshot], main: Address, *, host: str | None
    ) -> None:
        self._events = events
        self._snapshot = snapshot
        self._main = main
        self._host = host
        self._connections: dict[int, Connection] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scp-tls-ports", daemon=True)
        self._failed: dict[int, str] = {}
        self._listeners: dict[int, TlsListener] = {}
        self._closed: list[TlsListener] = []

    @property
    def listeners(self) -> tuple[TlsListener, ...]:
        """Every listener that may have associations, closed ones too."""
        return (*self._listeners.values(), *self._closed)

    def start(self) -> None:
        """Open the ports, and keep them as the directory says.

        Raises
        ------
        ConfigurationError
            When one cannot be listened on.
        """
        self.reconcile()
        if self._failed:
            raise ConfigurationError("; ".join(self._failed.values()))
        self._thread.start()

    def stop(self) -> None:
        """Close all ports; associations go on."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners.values():
            listener.stop()

    def reconcile(self) -> None:
        """Open the ports that the directory has come to name, close those that it no longer does.

        What goes wrong with one is logged once and tried again at the next look.
        """
        wanted = {
            each.port: each
            for each in acceptor_connections(self._snapshot())
            if each.is_tls and each.port and each.port != self._main.configured_port
        }
        for port in [port for port in self._listeners if port not in wanted]:
            closed = self._listeners.pop(port)
            closed.stop()
            self._closed.append(closed)
            log_event(_log, telemetry.TLS_PORT, port=port, message="closed")
        self._connections.update(wanted)
        for port, connection in wanted.items():
            if port not in self._listeners:
                self._open(port, connection)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self.reconcile()

    def _open(self, port: int, connection: Connection) -> None:
        host = self._host or connection.bind_address or self._main.host
        entrance = Entrance(self._events, lambda: self._connections[port])
        try:
            listener = TlsListener(entrance, Address(host, port, port, self._main.proxies))
        except ConfigurationError as error:
            where = connection.tls.where if connection.tls else connection.name
            reason = f"{where}: {error}"
            if port not in self._failed:
                self._warn(port, f"{reason}; tried again")
            self._failed[port] = reason
            return
        self._failed.pop(port, None)
        self._listeners[port] = listener
        listener.start()
        log_event(_log, telemetry.TLS_PORT, port=port, host=host, message="listening")
        self._check(port, connection)

    def _check(self, port: int, connection: Connection) -> None:
        """Say at once, not first to somebody who calls, that a key cannot be used."""
        try:
            if connection.tls is not None:
                server_context(connection.tls)
        except TlsMaterialError as error:
            self._warn(port, f"{error}; nobody can call on port {port} until it can")

    @staticmethod
    def _warn(port: int, message: str) -> None:
        log_event(_log, telemetry.TLS_PORT, level=logging.WARNING, port=port, message=message)
