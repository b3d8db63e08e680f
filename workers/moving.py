"""C-MOVE as requestor: one request, all its responses, a C-CANCEL when asked for (PS3.4 §C.4.2).

The peer may take hours over a tape, so what bounds the wait is silence: no response within
dcmRetrieveTimeout, or responses that have reported no progress for `STALLED_FACTOR` times as
long. Whatever the peer does, the iteration ends: with its final response or with an error.
"""

import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import NoAcceptedContextError, PeerError, PeerTimeoutError
from archive.model.retrieval import (
    STUDY_ROOT_MOVE,
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    identifier_dataset,
)
from archive.tls.channel import TlsSocket
from workers import dimse
from workers.association import AcceptedContext, Association
from workers.contexts import EXPLICIT_VR_LE, IMPLICIT_VR_LE, ProposedContext
from workers.dimse import InvalidMessageError
from workers.move_messages import MoveResponses, PduBuffer, encode_cancel, encode_move_request
from workers.route import Route

PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
STALLED_FACTOR = 6
_REACTION_S = 0.1
_RECEIVE_BYTES = 1 << 16
_RELATIONAL = b"\x01"
_SYNTAXES = (IMPLICIT_VR_LE, EXPLICIT_VR_LE)


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A C-MOVE-RQ (PS3.7 §9.1.4.1)."""

    identifier: RetrieveIdentifier
    destination_aet: str
    message_id: int = 1
    priority: int = 0

    @property
    def sop_class_uid(self) -> str:
        """Information model: Patient Root only where a whole patient is asked for."""
        return model_for(self.identifier)


def model_for(identifier: RetrieveIdentifier) -> str:
    """Return the SOP class whose model has the identifier's level."""
    return PATIENT_ROOT_MOVE if identifier.level is RetrieveLevel.PATIENT else STUDY_ROOT_MOVE


class MoveAssociation(Association):
    """An association for C-MOVE requests of one information model.

    Parameters
    ----------
    sop_class_uid
        The model; relational retrieval is asked for as well.
    """

    def __init__(self, route: Route, sop_class_uid: str, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(route, (ProposedContext(sop_class_uid, _SYNTAXES),), clock)
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = sop_class_uid
        item.service_class_application_information = _RELATIONAL
        self._requestor.requestor.add_negotiation_item(item)

    def move(
        self, request: MoveRequest, should_cancel: Callable[[], bool]
    ) -> Iterator[RetrieveResult]:
        """Send a request and yield every response, the final one last.

        Parameters
        ----------
        should_cancel
            Asked several times a second; once it is true a C-CANCEL is sent, and the final
            response is waited for no longer than dcmResponseTimeout.

        Raises
        ------
        PeerTimeoutError
            When the peer is silent, or reports no progress, for too long.
        AssociationAbortedError
            When it aborts or closes the connection before the final response.
        InvalidMessageError
            When it sends anything but responses to this request.
        """
        with self.exclusive_socket() as sock:
            exchange = _Exchange(self, sock, request)
            waiting = _Waiting(self._clock, self.route)
            exchange.ask()
            while True:
                result = exchange.next_response(waiting.next_look_s)
                if result is not None:
                    waiting.responded(result.counts)
                    yield result
                    if result.status != RetrieveStatus.PENDING:
                        break
                if should_cancel() and not waiting.is_canceled:
                    exchange.cancel()
                    waiting.canceled()
                waiting.check()
        if exchange.has_more:
            self.shutdown()  # what was read already, such as an A-ABORT, pynetdicom cannot see

    def context(self, sop_class_uid: str) -> AcceptedContext:
        """Return the presentation context for a model.

        Raises
        ------
        NoAcceptedContextError
            When the peer did not accept it.
        """
        for each in self.accepted:
            if each.sop_class_uid == sop_class_uid:
                return each
        msg = f"{self.route} did not accept C-MOVE of model {sop_class_uid}"
        raise NoAcceptedContextError(msg)


class _Exchange:
    """One request and its responses on a socket."""

    def __init__(
        self, association: MoveAssociation, sock: socket.socket, request: MoveRequest
    ) -> None:
        self._association = association
        self._socket = sock
        self._request = request
        self._context = association.context(request.sop_class_uid)
        self._implicit = self._context.transfer_syntax_uid == IMPLICIT_VR_LE
        self._received = PduBuffer()
        self._responses = MoveResponses(
            self._context.context_id, request.message_id, implicit=self._implicit
        )
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @property
    def has_more(self) -> bool:
        """Whether bytes came behind the last response."""
        return bool(len(self._received))

    def ask(self) -> None:
        """Send the request."""
        request = self._request
        command = encode_move_request(
            request.message_id, request.sop_class_uid, request.destination_aet, request.priority
        )
        dataset = identifier_dataset(request.identifier)
        identifier = encode(dataset, self._implicit, True) or b""  # noqa: FBT003
        self._send(command, identifier)

    def cancel(self) -> None:
        """Send a C-CANCEL."""
        self._send(encode_cancel(self._request.message_id), b"")

    def next_response(self, timeout_s: float) -> RetrieveResult | None:
        """Return the next response, None when there is none yet.

        Raises
        ------
        AssociationAbortedError
            When the association ended.
        InvalidMessageError
            When something else came.
        """
        try:
            while True:
                while (pdu := self._received.next()) is not None:
                    if pdu.kind in {dimse.A_ABORT, dimse.A_RELEASE_RQ}:
                        raise self._broken()
                    if (result := self._responses.feed(pdu)) is not None:
                        return result
                if not self._is_readable(timeout_s):
                    return None
                self._receive()
        except InvalidMessageError as error:
            msg = f"{self._association.route} broke the protocol: it sent {error}"
            raise InvalidMessageError(msg) from error

    def _is_readable(self, timeout_s: float) -> bool:
        """Wait for something to read; what TLS says for itself is nothing."""
        secure = self._socket if isinstance(self._socket, TlsSocket) else None
        if secure is not None and secure.is_readable():
            return True
        is_ready = bool(self._poll.poll(1000 * timeout_s))
        return is_ready and (secure is None or secure.is_readable())

    def _receive(self) -> None:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            piece = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise self._broken() from error
        if not piece:
            raise self._broken()
        self._received.feed(piece)

    def _send(self, command: bytes, identifier: bytes) -> None:
        association, context_id = self._association, self._context.context_id
        length = dimse.fragment_length(association.peer_max_pdu_length, 0)
        pdus = [*dimse.command_pdus(context_id, command, length)]
        if identifier:
            pdus += dimse.data_pdus(context_id, identifier, length)
        try:
            self._socket.sendall(b"".join(pdus))
        except OSError as error:
            raise self._broken() from error

    def _broken(self) -> PeerError:
        return self._association.broken_error(when="before the final C-MOVE response")


class _Waiting:
    """How long the next response may take."""

    def __init__(self, clock: Clock, route: Route) -> None:
        self.is_canceled = False
        self._clock = clock
        self._route = route
        self._heard_at = self._moved_at = clock.monotonic()
        self._counts: SubOperations | None = None

    @property
    def next_look_s(self) -> float:
        """Seconds after which to look whether a cancel is wanted."""
        return _REACTION_S

    def responded(self, counts: SubOperations) -> None:
        """Note a response."""
        if not self.is_canceled:
            self._heard_at = self._clock.monotonic()
            if counts != self._counts:
                self._counts, self._moved_at = counts, self._heard_at

    def canceled(self) -> None:
        """Note that a C-CANCEL was sent."""
        self.is_canceled = True
        self._heard_at = self._clock.monotonic()

    def check(self) -> None:
        """Raise when the peer has taken too long.

        Raises
        ------
        PeerTimeoutError
            When it has.
        """
        limits, now = self._route.limits, self._clock.monotonic()
        if self.is_canceled:
            if now - self._heard_at > limits.response_s:
                msg = f"{self._route} did not end the C-MOVE within {limits.response_s:g} s of "
                raise PeerTimeoutError(msg + "a C-CANCEL (dcmResponseTimeout)")
        elif now - self._heard_at > limits.retrieve_s:
            msg = f"{self._route} sent no C-MOVE response within {limits.retrieve_s:g} s "
            raise PeerTimeoutError(msg + "(dcmRetrieveTimeout)")
        elif now - self._moved_at > STALLED_FACTOR * limits.retrieve_s:
            msg = f"{self._route} reported no progress of the C-MOVE for "
            raise PeerTimeoutError(
                msg + f"{STALLED_FACTOR} times {limits.retrieve_s:g} s (dcmRetrieveTimeout)"
            )
