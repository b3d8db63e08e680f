"""C-MOVE as requestor: one request, all its responses, a C-CANCEL when asked for (PS3.4 §C.4.2).

The peer may take hours over a tape, so what bounds the wait is silence: no response within
dcmRetrieveTimeout, or responses that have reported no progress for `STALLED_FACTOR` times as
long. Whatever the peer does, the iteration ends: with its final response or with an error.
"""

import contextlib
import queue
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

from pydicom.multival import MultiValue
from pynetdicom.dimse_primitives import C_CANCEL, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import NoAcceptedContextError, PeerTimeoutError
from archive.model.retrieval import (
    STUDY_ROOT_MOVE,
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    identifier_dataset,
)
from workers.association import Association
from workers.contexts import EXPLICIT_VR_LE, IMPLICIT_VR_LE, ProposedContext
from workers.dimse import InvalidMessageError
from workers.route import Route

PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
STALLED_FACTOR = 6
_REACTION_S = 0.1
_PAUSE_S = 0.005
_SEND_DELAY_S = 0.02
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
        self._read_at_once()

    def _read_at_once(self) -> None:
        """Have pynetdicom's reactor sleep on the socket instead of polling.

        Archives that send a pending response per object send hundreds a second; polled, they
        would pile up and the final response come late.
        """
        dul, sock = self._requestor.dul, self._socket
        look = dul._is_transport_event  # noqa: SLF001

        def wait_and_look() -> bool:
            idle = dul.to_provider_queue.empty() and dul.event_queue.empty()
            if idle and sock.fileno() >= 0:
                select.select([sock], [], [], _SEND_DELAY_S)
            return look()

        dul._is_transport_event = wait_and_look  # type: ignore[method-assign]  # noqa: SLF001
        dul._run_loop_delay = 0  # noqa: SLF001

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
        with self._paused_reactor():
            context_id = self._send_request(request)
            waiting = _Waiting(self._clock, self.route)
            while True:
                response = self._next_response(waiting.next_look_s)
                if response is not None:
                    result = self._read(response, request)
                    waiting.responded(result.counts)
                    yield result
                    if result.status != RetrieveStatus.PENDING:
                        return
                elif should_cancel() and not waiting.is_canceled:
                    self._send_cancel(request, context_id)
                    waiting.canceled()
                waiting.check()

    @contextlib.contextmanager
    def _paused_reactor(self) -> Iterator[None]:
        """Keep pynetdicom's association thread from taking responses for requests."""
        requestor = self._requestor
        requestor._reactor_checkpoint.clear()  # noqa: SLF001
        try:
            while not requestor._is_paused and requestor.is_alive():  # noqa: SLF001
                self._clock.sleep(_PAUSE_S)
            yield
        finally:
            requestor._reactor_checkpoint.set()  # noqa: SLF001

    def _send_request(self, request: MoveRequest) -> int:
        """Send the request and return the ID of its presentation context."""
        context = next(
            (each for each in self.accepted if each.sop_class_uid == request.sop_class_uid), None
        )
        if context is None:
            msg = f"{self.route} did not accept C-MOVE of model {request.sop_class_uid}"
            raise NoAcceptedContextError(msg)
        message = C_MOVE()
        message.MessageID = request.message_id
        message.AffectedSOPClassUID = request.sop_class_uid
        message.Priority = request.priority
        message.MoveDestination = request.destination_aet
        dataset = identifier_dataset(request.identifier)
        implicit = context.transfer_syntax_uid == IMPLICIT_VR_LE
        message.Identifier = BytesIO(encode(dataset, implicit, True) or b"")  # noqa: FBT003
        if not self._requestor.is_established:
            raise self.broken_error(when="before the C-MOVE request")
        self._requestor.dimse.send_msg(message, context.context_id)
        return context.context_id

    def _send_cancel(self, request: MoveRequest, context_id: int) -> None:
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = request.message_id
        self._requestor.dimse.send_msg(cancel, context_id)

    def _next_response(self, timeout_s: float) -> C_MOVE | None:
        """Return the next response, None when there is none yet."""
        try:
            _, message = self._requestor.dimse.msg_queue.get(timeout=timeout_s)
        except queue.Empty:
            if self._requestor.dul.is_alive():
                return None
            raise self.broken_error(when="before the final C-MOVE response") from None
        if message is None:
            raise self.broken_error(when="before the final C-MOVE response")
        if not isinstance(message, C_MOVE) or not message.is_valid_response:
            msg = f"{self.route} sent a {type(message).__name__} instead of a C-MOVE response"
            raise InvalidMessageError(msg)
        return message

    def _read(self, response: C_MOVE, request: MoveRequest) -> RetrieveResult:
        if response.MessageIDBeingRespondedTo != request.message_id:
            msg = (
                f"{self.route} responded to message {response.MessageIDBeingRespondedTo} "
                f"instead of {request.message_id}"
            )
            raise InvalidMessageError(msg)
        counts = SubOperations(
            remaining=response.NumberOfRemainingSuboperations or 0,
            completed=response.NumberOfCompletedSuboperations or 0,
            failed=response.NumberOfFailedSuboperations or 0,
            warning=response.NumberOfWarningSuboperations or 0,
        )
        implicit = self.accepted[0].transfer_syntax_uid == IMPLICIT_VR_LE
        return RetrieveResult(
            int(response.Status or 0),
            counts,
            failed_uids(response.Identifier, implicit=implicit),
            str(response.ErrorComment or ""),
        )


def failed_uids(identifier: BytesIO | None, *, implicit: bool) -> tuple[str, ...]:
    """Return the Failed SOP Instance UID List (0008,0058) of a response; none if unreadable."""
    if identifier is None:
        return ()
    try:
        dataset = decode(identifier, implicit, True)  # noqa: FBT003
        value = dataset.get("FailedSOPInstanceUIDList")
    except (ValueError, NotImplementedError, KeyError, AttributeError, OSError):
        return ()  # the counters say how many failed all the same
    if not value:
        return ()
    values = value if isinstance(value, MultiValue) else [value]
    return tuple(str(each) for each in values)


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
