"""Listening sockets: plain ones and those that speak TLS; several processes may share each."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationServer, RequestHandler
from typing_extensions import override

from archive import telemetry
from archive.configuration.descriptors import Connection, Snapshot
from archive.errors import ConfigurationError, TlsMaterialError
from archive.storage.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.telemetry import log_event
from archive.tls.channel import TlsSocket
from archive.tls.faults import explain
from archive.tls.stores import ServerContexts
from scp.negotiation import offered_pdu_length
from scp.pdus import PduType
from scp.proxied import Network, is_proxy, original_address
from scp.receiving import ReceivingSocket, StoreAssociation

DEFAULT_REQUEST_TIMEOUT_S: Final = 30.0
DEFAULT_IDLE_TIMEOUT_S: Final = 60.0
_NO_LIMIT: Final = 1_000_000
_VERIFICATION: Final = "1.2.840.10008.1.1"
_ACCEPT_POLL_S: Final = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes
    ----------
    configured_port
        Port of the connection in the directory; None when another one was asked for.
    proxies
        Networks of the balancers whose word is taken for whose connection they pass on.
    """

    host: str
    port: int
    configured_port: int | None
    proxies: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a listener asks its owner for.

    Attributes
    ----------
    events
        pynetdicom's events and the handler of each.
    connection
        Returns the directory's connection whose time-outs, lengths and terms of TLS hold now, the
        last one when there is none any more.
    """

    events: Sequence[tuple[evt.EventType, Callable[[evt.Event], object]]]
    connection: Callable[[], Connection]


def acceptor_connections(snapshot: Snapshot) -> tuple[Connection, ...]:
    """Return the connections on which the device's AEs take associations, each port once."""
    connections: dict[int, Connection] = {}
    for ae in snapshot.device.aes.values():
        if not (ae.installed and ae.association_acceptor):
            continue
        for connection in ae.connections:
            is_usable = not connection.is_tls or _can_listen(connection)
            if connection.installed and connection.port and is_usable:
                connections.setdefault(connection.port, connection)
    return tuple(connections.values())


def listening_connection(snapshot: Snapshot) -> Connection:
    """Return the connection on which the device's AEs take associations: the first plain one.

    A device without one listens on its first connection with TLS.

    Raises
    ------
    ConfigurationError
        When no installed AE that accepts associations has one that can be listened on.
    """
    connections = acceptor_connections(snapshot)
    if connections:
        return min(connections, key=lambda each: each.is_tls)  # the first of the least
    msg = (
        f"device {snapshot.device.name} has no AE that accepts associations on a connection that "
        "can be used: set dicomAssociationAcceptor and dicomPort; one with dicomTLSCipherSuite "
        "also needs dcmKeyStoreURL and dcmTrustStoreURL of the device"
    )
    raise ConfigurationError(msg)


def _can_listen(connection: Connection) -> bool:
    return connection.tls is not None and connection.tls.can_listen


class BindingServer(AssociationServer):
    """A server that binds handlers to the events of each association.

    Attributes
    ----------
    bound_events
        pynetdicom's events and the handler of each.
    configured_port
        Port of the directory at which it listens; None answers for every AE.
    """

    bound_events: Sequence[tuple[evt.EventType, Callable[[evt.Event], object]]]
    configured_port: int | None


class StoreRequestHandler(RequestHandler):
    """Makes a `StoreAssociation` of an accepted connection."""

    server: "BindingServer"

    @override
    def _create_association(self) -> StoreAssociation:
        assoc = StoreAssociation(self.ae, MODE_ACCEPTOR)
        assoc._server = self.server  # noqa: SLF001 - as pynetdicom's own request handler does
        assoc.name = f"AcceptorThread@{self.client_address[0]}:{self.client_address[1]}"
        assoc.set_socket(ReceivingSocket(assoc, self.request))
        acceptor = assoc.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = [build_context(_VERIFICATION)]  # until one is requested
        assoc.requestor.address_info = self.remote
        assoc.configured_port = self.server.configured_port
        for event, handler in self.server.bound_events:
            assoc.bind(event, handler)
        return assoc


class Listener(BindingServer):
    """A listening socket with the thread that accepts its connections.

    Raises
    ------
    ConfigurationError
        When the address cannot be listened on.
    """

    def __init__(self, entrance: Entrance, address: Address) -> None:
        self.bound_events = entrance.events
        self.configured_port = address.configured_port
        self._entrance = entrance
        self._proxies = address.proxies
        self._connection: Connection | None = None
        self.request_queue_size = entrance.connection().tcp_backlog
        ae = ApplicationEntity("DICOMQ")
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_associations = _NO_LIMIT
        _configure(ae, entrance.connection())
        place = (address.host, address.port)
        contexts = [build_context(_VERIFICATION)]
        try:
            super().__init__(ae, place, ae.ae_title, contexts, request_handler=StoreRequestHandler)
        except OSError as error:
            msg = (
                f"cannot listen on {address.host}:{address.port}: {error.strerror or error}; "
                "choose a free port (dicomPort) and an address of this host (dcmBindAddress)"
            )
            raise ConfigurationError(msg) from error
        self._thread = threading.Thread(target=self._serve, name="scp-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and close the port; associations go on."""
        # pynetdicom's own `shutdown` also expects to be registered
        super(AssociationServer, self).shutdown()
        self.server_close()
        self._thread.join()

    def _serve(self) -> None:
        self.serve_forever(poll_interval=_ACCEPT_POLL_S)

    @override
    def server_bind(self) -> None:
        """Bind the port; the kernel hands out a connection once its peer has sent something."""
        listening = cast("socket.socket", self.socket)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        super().server_bind()

    @override
    def get_request(self) -> tuple[socket.socket, Any]:
        """Return the next connection; a probe that has hung up already costs no thread."""
        connection, address = cast("tuple[socket.socket, Any]", super().get_request())
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                connection.close()
                msg = "hung up before it asked for an association"
                raise ConnectionAbortedError(msg)
        if is_proxy(address[0], self._proxies):
            address = original_address(connection, address)
        _configure(self.ae, self._entrance.connection())
        return connection, address

    @override
    def service_actions(self) -> None:
        """Do nothing between connections."""


def _configure(ae: ApplicationEntity, connection: Connection) -> None:
    """Let changes of the directory act on the associations that follow."""
    ae.maximum_pdu_size = offered_pdu_length(connection.receive_pdu_length)
    ae.acse_timeout = connection.request_timeout_s or DEFAULT_REQUEST_TIMEOUT_S
    ae.network_timeout = connection.idle_timeout_s or DEFAULT_IDLE_TIMEOUT_S


class TlsListener(Listener):
    """A listener whose connections begin with a handshake, each in a thread of its own."""

    def __init__(self, entrance: Entrance, address: Address) -> None:
        self._contexts = ServerContexts()
        super().__init__(entrance, address)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection without keeping the next one waiting."""
        if _speaks_dicom(request):
            request.close()
            msg = (
                f"speaks plain DICOM on port {self.port}, which is for TLS: have it speak TLS or "
                "call the port without"
            )
            _warn(client_address, msg)
            return
        try:
            connection = self._entrance.connection()
            if connection.tls is None:
                request.close()  # the directory has changed; the port is about to be closed
                return
            context = self._contexts.get(connection.tls)
        except TlsMaterialError as error:
            request.close()
            _warn(client_address, f"{error}; nobody can call on port {self.port} until it can")
            return
        secured = TlsSocket(fileno=request.detach())
        secured.secure(context, server_side=True)
        limit_s = connection.request_timeout_s or DEFAULT_REQUEST_TIMEOUT_S
        threading.Thread(
            target=self._answer,
            args=(secured, client_address, limit_s),
            name="scp-handshake",
            daemon=True,
        ).start()

    def _answer(self, secured: TlsSocket, client_address: Any, limit_s: float) -> None:  # noqa: ANN401 - as socketserver
        try:
            secured.handshake(limit_s)
        except OSError as error:
            secured.close()
            if not secured.heard and not isinstance(error, TimeoutError):
                return  # somebody looked whether the port is open, as balancers do
            _warn(client_address, f"no TLS on port {self.port}: {_reason(error, limit_s)}")
            return
        self.finish_request(secured, client_address)


def _speaks_dicom(connection: socket.socket) -> bool:
    """Tell whether a peer begins with an A-ASSOCIATE-RQ instead of a handshake."""
    with contextlib.suppress(OSError):  # nothing came yet, or it has hung up
        first = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return first == bytes([PduType.A_ASSOCIATE_RQ])
    return False


def _reason(error: OSError, limit_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not finish the handshake within {limit_s:g} s (dcmAARQTimeout)"
    return explain(error) or f"the connection broke: {error.strerror or error}"


def _warn(client_address: Any, message: str) -> None:  # noqa: ANN401 - as socketserver
    log_event(
        _log,
        telemetry.TLS_REFUSED,
        level=logging.WARNING,
        peer=client_address[0],
        message=message,
    )
