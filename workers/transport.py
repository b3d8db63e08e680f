"""The seam to pynetdicom's requestor: its socket, its reactor and its settings, made ours.

Everything that leans on how pynetdicom works inside is in this module and in `Association`: the
association object is built by hand so that its socket is ours from the start, and the method
with which the reactor looks for incoming data waits in front of a gate.
"""

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import AE, build_context, build_role
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.association import Association as Requestor
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.errors import PeerError, PeerUnreachableError, TlsHandshakeError
from archive.storage.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.tls.channel import TlsSocket
from archive.tls.faults import NO_TLS, explain
from archive.tls.stores import client_context
from workers.contexts import ProposedContext
from workers.route import DEFAULT_CONNECT_S, Route

_KEEP_ALIVE_IDLE_S = 30
_TLS_ALERT = 0x15


class ReaderGate:
    """Keeps pynetdicom's reactor thread off the socket while it is closed."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._parked = threading.Event()

    def install(self, requestor: Requestor) -> None:
        """Put the gate in front of where the reactor looks for incoming data."""
        dul = requestor.dul
        look = dul._is_transport_event  # noqa: SLF001

        def look_behind_gate() -> bool:
            if not self._opened.is_set():
                self._parked.set()
                self._opened.wait()
            return look()

        dul._is_transport_event = look_behind_gate  # type: ignore[method-assign]  # noqa: SLF001

    def close(self, is_alive: Callable[[], bool]) -> bool:
        """Close the gate and wait until the reactor stands before it; False if it has ended."""
        self._parked.clear()
        self._opened.clear()
        while not self._parked.wait(0.02):
            if not is_alive():
                return False
        return True

    def open(self) -> None:
        """Let the reactor pass."""
        self._opened.set()


class ObservedSocket(socket.socket):
    """A socket that remembers how connecting went; pynetdicom only logs it.

    Attributes
    ----------
    failure
        Why no connection came about.
    fault
        What ended the use of TLS, None as long as nothing did.
    connected_at
        When the TCP connection stood, by the monotonic clock.
    first_byte
        The first byte that the peer sent; a peer that speaks TLS is known by it.
    """

    failure: OSError | None = None
    fault: OSError | None = None
    connected_at: float | None = None
    first_byte: int | None = None

    @override
    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        """Connect and note the result."""
        try:
            super().connect(address)
        except OSError as error:
            self.failure = error
            raise
        self.connected_at = SYSTEM_CLOCK.monotonic()


class SecureObservedSocket(ObservedSocket, TlsSocket):
    """One that encrypts: connecting includes the handshake, within the same limit each."""

    fault: OSError | None = None

    @override
    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        """Connect, agree on keys and note the result."""
        super().connect(address)
        try:
            self.handshake(self.gettimeout() or DEFAULT_CONNECT_S)
        except OSError as error:
            self.failure = error
            raise
        self.connected_at = SYSTEM_CLOCK.monotonic()


class ObservedTransport(AssociationSocket):
    """What pynetdicom reads from and writes to."""

    @property
    @override
    def ready(self) -> bool:
        """Whether there is something to read; `select` does not see into TLS."""
        sock = self.socket
        if isinstance(sock, TlsSocket) and self._is_connected:
            return sock.is_readable()
        return bool(super().ready)

    @override
    def recv(self, nr_bytes: int) -> bytearray:
        """Read bytes for pynetdicom."""
        data: bytearray = super().recv(nr_bytes)
        sock = self.socket
        if data and isinstance(sock, ObservedSocket) and sock.first_byte is None:
            sock.first_byte = data[0]
        return data


def make_requestor(route: Route, contexts: Sequence[ProposedContext]) -> Requestor:
    """Return a pynetdicom association that is ready to be requested, without a socket."""
    ae = AE(ae_title=route.calling_aet)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.acse_timeout = route.limits.accept_s
    ae.connection_timeout = route.limits.connect_s
    ae.dimse_timeout = route.limits.response_s
    ae.network_timeout = None
    requestor = Requestor(ae, MODE_REQUESTOR)
    requestor.acceptor.ae_title = route.called_aet
    requestor.requestor.ae_title = route.calling_aet
    requestor.requestor.maximum_length = route.receive_pdu_length
    requestor.requestor.implementation_class_uid = ae.implementation_class_uid
    requestor.requestor.implementation_version_name = ae.implementation_version_name
    requestor.requestor.requested_contexts = [
        _proposal(number, context) for number, context in enumerate(contexts)
    ]
    for sop_class_uid in dict.fromkeys(each.sop_class_uid for each in contexts if each.as_scp):
        role = build_role(sop_class_uid, scu_role=False, scp_role=True)
        requestor.requestor.add_negotiation_item(role)
    leave_responses(requestor)
    return requestor


def _proposal(number: int, context: ProposedContext) -> PresentationContext:
    proposal = build_context(context.sop_class_uid, list(context.transfer_syntax_uids))
    proposal.context_id = 2 * number + 1
    return proposal


def leave_responses(requestor: Requestor) -> None:
    """Have the reactor take no message that a request waits for.

    pynetdicom pauses its reactor before it sends a request, but the reactor may just have passed
    the pause: on a busy machine it then takes the response for an unexpected request, and who
    waits for it waits until his time is over.
    """
    receive, send = requestor.dimse.get_msg, requestor.dimse.send_msg
    taking = threading.Lock()

    def receive_unless_paused(block: bool = False) -> tuple[Any, Any]:  # noqa: FBT001, FBT002
        if block:
            return receive(block)
        with taking:
            is_running = requestor._reactor_checkpoint.is_set()  # noqa: SLF001
            return receive() if is_running else (None, None)

    def send_after_taking(primitive: Any, context_id: int) -> None:  # noqa: ANN401 - of any service
        with taking:
            pass  # what the reactor was about to take, it has; from now on it sees the pause
        send(primitive, context_id)

    requestor.dimse.get_msg = receive_unless_paused  # type: ignore[method-assign]
    requestor.dimse.send_msg = send_after_taking  # type: ignore[method-assign]


def serve_reports_first(requestor: Requestor, serving: threading.Lock) -> None:
    """Have an N-EVENT-REPORT request served that comes where a response is waited for.

    An SCP may report before it has answered the N-ACTION; pynetdicom would take its request for
    an invalid response and abort. `serving` is held from a request until its response is on its
    way; who releases the association before that would leave the SCP without it.
    """
    receive, serve = requestor.dimse.get_msg, requestor._serve_request  # noqa: SLF001

    def serve_whole(message: Any, context_id: int) -> None:  # noqa: ANN401 - of any service
        with serving:
            serve(message, context_id)

    def receive_response(block: bool = False) -> tuple[Any, Any]:  # noqa: FBT001, FBT002
        context_id, message = receive(block)
        while isinstance(message, N_EVENT_REPORT) and message.is_valid_request and block:
            requestor._serve_request(message, context_id or 0)  # noqa: SLF001
            context_id, message = receive(block)
        return context_id, message

    requestor._serve_request = serve_whole  # type: ignore[assignment]  # noqa: SLF001
    requestor.dimse.get_msg = receive_response  # type: ignore[method-assign]


def attach_socket(requestor: Requestor, route: Route) -> ObservedSocket:
    """Give `requestor` a socket of ours with its addresses.

    Raises
    ------
    PeerUnreachableError
        When the host name cannot be resolved or the local address cannot be bound.
    TlsMaterialError
        When our key or the trusted certificates cannot be read.
    """
    sock: ObservedSocket | None = None
    try:
        remote = AddressInformation(route.host, route.port)
        local = AddressInformation(route.bind_address or ("" if remote.is_ipv4 else "::0"), 0)
        sock = _made(route, remote)
        sock.bind(local.as_tuple)
        _set_options(sock, route)
        _attach(sock, requestor, local)
    except OSError as error:
        if sock is not None:
            sock.close()
        msg = f"cannot connect to {route}: {reason_of(error)} (dicomHostname, dcmClientBindAddress)"
        raise PeerUnreachableError(msg) from error
    requestor.acceptor.address_info = remote
    requestor.requestor.address_info = local
    return sock


def _made(route: Route, remote: AddressInformation) -> ObservedSocket:
    """Return an unconnected socket, for TLS if the route goes over it."""
    if route.tls is None:
        return ObservedSocket(remote.address_family, socket.SOCK_STREAM)
    context = client_context(route.tls)
    sock = SecureObservedSocket(remote.address_family, socket.SOCK_STREAM)
    sock.secure(context, host=route.host)
    sock.send_limit_s = route.limits.stall_s
    return sock


def _attach(sock: ObservedSocket, requestor: Requestor, local: AddressInformation) -> None:
    """Have `requestor` use `sock` instead of one that pynetdicom makes itself."""
    any_port = AddressInformation("" if local.is_ipv4 else "::0", 0)
    transport = ObservedTransport(requestor, address=any_port)
    if transport.socket is not None:
        transport.socket.close()
    transport.socket = sock
    requestor.set_socket(transport)


def _set_options(sock: socket.socket, route: Route) -> None:
    """Set what keeps the connection prompt and bounded.

    Without TCP_NODELAY each message waits 40 ms for the acknowledgement of the one before.
    """
    limits = route.limits
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE_IDLE_S)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.stall_s))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(limits.response_s))
    if route.send_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, route.send_buffer_bytes)
    if route.receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, route.receive_buffer_bytes)


def _timeval(seconds: float) -> bytes:
    """Return a C struct timeval, never zero because that means "for ever"."""
    microseconds = max(1, round(seconds * 1_000_000))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


def connect_error(route: Route, sock: ObservedSocket, failure: OSError) -> PeerError:
    """Return the error for a connection, or TLS on it, that did not come about."""
    if reason := explain(failure):
        return TlsHandshakeError(f"no TLS with {route}: {reason}")
    if route.tls is not None and sock.connected_at is not None:
        what = f"ended the connection when TLS was begun ({reason_of(failure)})"
        if isinstance(failure, TimeoutError):
            what = f"did not agree on TLS within {route.limits.connect_s:g} s"
        return TlsHandshakeError(f"{route} {what}: {NO_TLS}")
    return PeerUnreachableError(f"cannot connect to {route}: {reason_of(failure)}")


def tls_error(route: Route, sock: ObservedSocket) -> PeerError | None:
    """Return the error for an association that TLS has ended; None when something else has."""
    if sock.fault is not None:
        return TlsHandshakeError(f"{route} ended TLS: {explain(sock.fault) or sock.fault}")
    if route.tls is None and sock.first_byte == _TLS_ALERT:
        msg = (
            f"{route} speaks TLS on that port: give its connection and ours dicomTLSCipherSuite, "
            f"or correct dicomPort"
        )
        return TlsHandshakeError(msg)
    return None


def reason_of(error: OSError) -> str:
    """Return the operating system's reason in words."""
    return (error.strerror or str(error)).lower()
