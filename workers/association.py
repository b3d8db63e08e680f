"""An association as requestor: opened, used, released or broken, with every failure mapped once.

pynetdicom negotiates, releases and carries rare messages. For C-STORE its reactor is kept away
from the socket (`Association.exclusive_socket`) and `workers.sending` uses the socket itself. The
kernel's send and receive time-outs bound every blocking call, pynetdicom's own included, so that
a peer which stops reading, or stops in the middle of a PDU, cannot hang a worker.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.association import Association as Requestor
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationRejectedPermanentlyError,
    NoAcceptedContextError,
    PeerError,
    PeerTimeoutError,
    PeerUnreachableError,
)
from workers.contexts import ProposedContext
from workers.route import Route

_A_ABORT = struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 0, 0)
_THREAD_END_S = 5.0
_KEEP_ALIVE_IDLE_S = 30


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that the peer accepted (PS3.8 §9.3.3.2)."""

    context_id: int
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class CreateResponse:
    """Status and Error Comment of an N-CREATE-RSP (PS3.7 §10.3.5.2)."""

    status: int
    comment: str


class Association:
    """An association that lasts for a ``with`` block: released at its end, aborted on an error.

    Not to be shared by threads, except for `shutdown`.

    Parameters
    ----------
    route
        Titles, address and time limits.
    contexts
        What is proposed, 1 to 128 contexts; their IDs are 1, 3, 5 … in this order.

    Raises
    ------
    PeerUnreachableError, AssociationRejectedError, AssociationRejectedPermanentlyError,
    AssociationAbortedError, PeerTimeoutError, NoAcceptedContextError
        On entering the block, when the association does not come about.
    """

    def __init__(
        self, route: Route, contexts: Sequence[ProposedContext], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.route = route
        self.accepted: tuple[AcceptedContext, ...] = ()
        self._clock = clock
        self._shut = False
        self._gate = _ReaderGate()
        self._requestor = _requestor(route, contexts)
        dul = self._requestor.dul
        dul._is_transport_event = self._gate.guard(  # type: ignore[method-assign]  # noqa: SLF001
            dul._is_transport_event  # noqa: SLF001
        )
        self._socket = _observed_socket(self._requestor, route)

    @property
    def peer_max_pdu_length(self) -> int:
        """Longest P-DATA-TF that the peer takes, in bytes; 0 for any (PS3.8 §D.1)."""
        return self._requestor.acceptor.maximum_length or 0

    def __enter__(self) -> Self:
        """Open the association."""
        started = self._clock.monotonic()
        self._requestor.request()
        if not self._requestor.is_established:
            waited_s = self._clock.monotonic() - (self._socket.connected_at or started)
            error = self._refusal(waited_s)
            self._abandon()
            raise error
        self._requestor.start()
        self.accepted = tuple(
            AcceptedContext(
                context.context_id or 0,
                str(context.abstract_syntax),
                str(context.transfer_syntax[0]),
            )
            for context in self._requestor.accepted_contexts
        )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the association; abort it when the block failed or the release did."""
        if exc_type is None and not self._shut:
            # What was answered stays answered, so a failing release changes no result.
            self._requestor.acse_timeout = self.route.limits.release_s
            self._requestor.release()
        if self._requestor.is_released:
            self._socket.close()
        else:
            self._abandon()

    def shutdown(self) -> None:
        """Break whatever blocks on the socket; callable from any thread, at any time.

        Shutting the socket down ends a blocked call at once, whereas an A-ABORT would have to
        wait for it.
        """
        self._shut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def exclusive_socket(self) -> Iterator[socket.socket]:
        """Lend the socket: until the block ends pynetdicom neither reads nor writes it.

        Raises
        ------
        AssociationAbortedError
            When the association ended before the block began.
        """
        self._requestor._reactor_checkpoint.clear()  # noqa: SLF001
        try:
            if not self._gate.close(self._requestor.dul.is_alive):
                raise self.broken_error(when="before the first request")
            yield self._socket
        finally:
            self._gate.open()
            self._requestor._reactor_checkpoint.set()  # noqa: SLF001

    def create(self, sop_class_uid: str, sop_instance_uid: str, dataset: Dataset) -> CreateResponse:
        """Send an N-CREATE request and wait for its response (PS3.7 §10.1.5).

        Raises
        ------
        PeerTimeoutError
            When no response came within the limit.
        AssociationAbortedError
            When the peer aborted, closed the connection or sent no valid response.
        """
        started = self._clock.monotonic()
        if not self._requestor.is_established:
            raise self.broken_error(when="before the N-CREATE request")
        status, _ = self._requestor.send_n_create(dataset, sop_class_uid, sop_instance_uid)
        if "Status" in status:
            return CreateResponse(int(status.Status), str(status.get("ErrorComment", "") or ""))
        if self._clock.monotonic() - started >= self.route.limits.response_s:
            msg = (
                f"{self.route} sent no N-CREATE response within {self.route.limits.response_s:g} s "
                f"(dcmResponseTimeout)"
            )
            raise PeerTimeoutError(msg)
        raise self.broken_error(when="without a valid N-CREATE response")

    def broken_error(self, when: str) -> PeerError:
        """Return the error for an association that ended at a moment it should not."""
        if self._shut:
            return AssociationAbortedError(f"association with {self.route} was cut off on request")
        msg = f"{self.route} aborted the association or closed the connection {when}"
        return AssociationAbortedError(msg)

    def _refusal(self, waited_s: float) -> PeerError:
        """Return why the association did not come about."""
        failure = self._socket.failure
        answer = self._requestor.acceptor.primitive
        limits = self.route.limits
        if self._shut:
            return self.broken_error(when="")
        if failure is not None:
            return PeerUnreachableError(f"cannot connect to {self.route}: {_words(failure)}")
        if self._requestor.is_rejected and answer is not None:
            return self._rejection(int(answer.result or 0), answer.source_str, answer.reason_str)
        if answer is not None and answer.result == 0:
            msg = f"{self.route} accepted none of the proposed presentation contexts"
            return NoAcceptedContextError(msg)
        if waited_s >= limits.accept_s:
            msg = (
                f"{self.route} accepted the TCP connection but did not answer the association "
                f"request within {limits.accept_s:g} s (dcmAAACTimeout)"
            )
            return PeerTimeoutError(msg)
        return self.broken_error(when="during association negotiation")

    def _rejection(self, result: int, source: str, reason: str) -> PeerError:
        """Return the error for an A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
        lasting = result == _REJECTED_PERMANENT
        msg = (
            f"{self.route} rejected the association of {self.route.calling_aet} "
            f"{'permanently' if lasting else 'for now'}: {reason.lower()} ({source.lower()})"
        )
        if lasting:
            hint = "check the AE titles known to the destination, then reschedule the task"
            return AssociationRejectedPermanentlyError(f"{msg}; {hint}")
        return AssociationRejectedError(msg)

    def _abandon(self) -> None:
        """Tell the peer with an A-ABORT if it takes it, close the socket, end both threads."""
        if self._requestor.is_established:
            with contextlib.suppress(OSError):
                self._socket.send(_A_ABORT, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in (self._requestor, self._requestor.dul):
            if thread.is_alive():
                thread.join(_THREAD_END_S)
        self._socket.close()


_REJECTED_PERMANENT = 1


class _ReaderGate:
    """Keeps pynetdicom's reactor thread off the socket while it is closed."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._opened.set()
        self._parked = threading.Event()

    def guard(self, read: Callable[[], bool]) -> Callable[[], bool]:
        """Return `read` such that it waits in front of the closed gate."""

        def guarded() -> bool:
            if not self._opened.is_set():
                self._parked.set()
                self._opened.wait()
            return read()

        return guarded

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


class _ObservedSocket(socket.socket):
    """A socket that remembers how connecting went; pynetdicom only logs it."""

    failure: OSError | None = None
    connected_at: float | None = None

    @override
    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        """Connect and note the result."""
        try:
            super().connect(address)
        except OSError as error:
            self.failure = error
            raise
        self.connected_at = SYSTEM_CLOCK.monotonic()


def _requestor(route: Route, contexts: Sequence[ProposedContext]) -> Requestor:
    """Return a pynetdicom association that is ready to be requested, without a socket."""
    ae = AE(ae_title=route.calling_aet)
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
    return requestor


def _proposal(number: int, context: ProposedContext) -> PresentationContext:
    proposal = build_context(context.sop_class_uid, list(context.transfer_syntax_uids))
    proposal.context_id = 2 * number + 1
    return proposal


def _observed_socket(requestor: Requestor, route: Route) -> _ObservedSocket:
    """Give `requestor` a socket of ours with its addresses.

    Raises
    ------
    PeerUnreachableError
        When the host name cannot be resolved or the local address cannot be bound.
    """
    try:
        remote = AddressInformation(route.host, route.port)
        any_address = "" if remote.is_ipv4 else "::0"
        local = AddressInformation(route.bind_address or any_address, 0)
        transport = AssociationSocket(requestor, address=local)
    except OSError as error:
        msg = f"cannot connect to {route}: {_words(error)} (dicomHostname, dcmClientBindAddress)"
        raise PeerUnreachableError(msg) from error
    created = transport.socket
    if created is None:
        msg = f"cannot connect to {route}: no socket was created"
        raise PeerUnreachableError(msg)
    observed = _ObservedSocket(fileno=created.detach())
    _set_options(observed, route)
    transport.socket = observed
    requestor.set_socket(transport)
    requestor.acceptor.address_info = remote
    requestor.requestor.address_info = local
    return observed


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


def _words(error: OSError) -> str:
    """Return the operating system's reason in words."""
    return (error.strerror or str(error)).lower()
