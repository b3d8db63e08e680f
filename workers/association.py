"""An association as requestor: opened, used, released or broken, with every failure mapped once.

pynetdicom negotiates, releases and carries rare messages. For C-STORE its reactor is kept away
from the socket (`Association.exclusive_socket`) and `workers.sending` uses the socket itself. The
kernel's send and receive time-outs bound every blocking call, pynetdicom's own included, so that
a peer which stops reading, or stops in the middle of a PDU, cannot hang a worker.
"""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.pdu_primitives import A_ASSOCIATE

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationRejectedPermanentlyError,
    NoAcceptedContextError,
    PeerError,
    PeerTimeoutError,
)
from workers.contexts import ProposedContext
from workers.route import Route
from workers.transport import (
    ReaderGate,
    attach_socket,
    connect_error,
    make_requestor,
    serve_reports_first,
    tls_error,
)

_A_ABORT = struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 0, 0)
_THREAD_END_S = 5.0


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context that the peer accepted (PS3.8 §9.3.3.2).

    Attributes
    ----------
    as_scp
        The peer takes this side for the SCP (PS3.7 §D.3.3.4).
    """

    context_id: int
    sop_class_uid: str
    transfer_syntax_uid: str
    as_scp: bool = False


@dataclass(frozen=True, slots=True)
class NormalizedResponse:
    """Status and Error Comment of an N-CREATE, N-ACTION or N-EVENT-REPORT response (PS3.7 §10)."""

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

    Attributes
    ----------
    hand_over
        Offered the association instead of a release when its use ends well; returns whether it
        keeps it (see `workers.kept`).

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
        self.hand_over: Callable[[Association], bool] | None = None
        self._clock = clock
        self._shut = False
        self._opened = False
        self._serving = threading.Lock()
        self._gate = ReaderGate()
        self._requestor = make_requestor(route, contexts)
        self._gate.install(self._requestor)
        self._socket = attach_socket(self._requestor, route)

    @property
    def peer_max_pdu_length(self) -> int:
        """Longest P-DATA-TF that the peer takes, in bytes; 0 for any (PS3.8 §D.1)."""
        return self._requestor.acceptor.maximum_length or 0

    @property
    def is_established(self) -> bool:
        """Whether messages can be exchanged."""
        return bool(self._requestor.is_established)

    def __enter__(self) -> Self:
        """Open the association unless it is open."""
        self.open()
        return self

    def open(self) -> None:
        """Open the association; one that is open already is left as it is."""
        if self._opened:
            return
        started = self._clock.monotonic()
        self._requestor.request()
        if not self._requestor.is_established:
            waited_s = self._clock.monotonic() - (self._socket.connected_at or started)
            error = self._refusal(waited_s)
            self.abandon()
            raise error
        self._requestor.start()
        self.accepted = tuple(
            AcceptedContext(
                context.context_id or 0,
                str(context.abstract_syntax),
                str(context.transfer_syntax[0]),
                bool(context.as_scp),
            )
            for context in self._requestor.accepted_contexts
        )
        self._opened = True

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release or hand over the association; abort it when the block or the release failed."""
        if exc_type is not None or self._shut:
            self.abandon()
        elif self.hand_over is None or not self.hand_over(self):
            self.release()

    def release(self) -> None:
        """Release the association (PS3.8 §7.2); abort it when the peer does not answer.

        What was answered stays answered, so a failing release changes no result.
        """
        self._requestor.acse_timeout = self.route.limits.release_s
        self.resume()
        with self._serving:
            pass  # a report has its response
        self._requestor.release()
        if self._requestor.is_released:
            self._socket.close()
        else:
            self.abandon()

    def park(self) -> bool:
        """Keep pynetdicom off the socket while nobody uses the association; False if it ended."""
        self._requestor._reactor_checkpoint.clear()  # noqa: SLF001 - parks the other thread
        return self.is_established and self._gate.close(self._requestor.dul.is_alive)

    def resume(self) -> bool:
        """Go on with an association that was parked.

        Returns
        -------
        bool
            Whether it still stands: a peer that has said anything meanwhile has ended it.
        """
        stands = self._is_silent()
        self._gate.open()
        self._requestor._reactor_checkpoint.set()  # noqa: SLF001
        return stands

    def _is_silent(self) -> bool:
        """Tell whether the connection is open and nothing, not even its end, waits to be read."""
        if self._socket.fileno() < 0:
            return False
        watch = select.poll()
        watch.register(self._socket, select.POLLIN)
        return not watch.poll(0)

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

    def create(
        self, sop_class_uid: str, sop_instance_uid: str, dataset: Dataset
    ) -> NormalizedResponse:
        """Send an N-CREATE request and wait for its response (PS3.7 §10.1.5).

        Raises
        ------
        PeerTimeoutError
            When no response came within the limit.
        AssociationAbortedError
            When the peer aborted, closed the connection or sent no valid response.
        """
        return self._ask(
            "N-CREATE",
            lambda: self._requestor.send_n_create(dataset, sop_class_uid, sop_instance_uid)[0],
        )

    def action(
        self, sop_class_uid: str, sop_instance_uid: str, action_type: int, *, dataset: Dataset
    ) -> NormalizedResponse:
        """Send an N-ACTION request and wait for its response (PS3.7 §10.1.4).

        Raises
        ------
        PeerTimeoutError, AssociationAbortedError
            As `create`.
        """
        return self._ask(
            "N-ACTION",
            lambda: self._requestor.send_n_action(
                dataset, action_type, sop_class_uid, sop_instance_uid
            )[0],
        )

    def report_event(
        self, sop_class_uid: str, sop_instance_uid: str, event_type: int, *, dataset: Dataset
    ) -> NormalizedResponse:
        """Send an N-EVENT-REPORT request and wait for its response (PS3.7 §10.1.1).

        Raises
        ------
        PeerTimeoutError, AssociationAbortedError
            As `create`.
        """
        return self._ask(
            "N-EVENT-REPORT",
            lambda: self._requestor.send_n_event_report(
                dataset, event_type, sop_class_uid, sop_instance_uid
            )[0],
        )

    def on_event_report(self, answer: Callable[[Dataset], int]) -> None:
        """Have `answer` called for what N-EVENT-REPORT requests bring.

        Parameters
        ----------
        answer
            Takes the Event Information and returns the status of the response; must not raise.
            Called in another thread, or in the one that waits for a response.
        """
        self._requestor.bind(
            evt.EVT_N_EVENT_REPORT, lambda event: (answer(event.event_information), None)
        )
        serve_reports_first(self._requestor, self._serving)

    def _ask(self, request: str, send: Callable[[], Dataset]) -> NormalizedResponse:
        started = self._clock.monotonic()
        if not self._requestor.is_established:
            raise self.broken_error(when=f"before the {request} request")
        status = send()
        if "Status" in status:
            return NormalizedResponse(int(status.Status), str(status.get("ErrorComment", "") or ""))
        raise self._no_response(request=request, waited_s=self._clock.monotonic() - started)

    def echo(self) -> int:
        """Send a C-ECHO request and return the status of its response (PS3.7 §9.1.5).

        Raises
        ------
        PeerTimeoutError
            When no response came within the limit.
        AssociationAbortedError
            When the peer aborted, closed the connection or sent no valid response.
        """
        started = self._clock.monotonic()
        if not self._requestor.is_established:
            raise self.broken_error(when="before the C-ECHO request")
        status = self._requestor.send_c_echo()
        if "Status" in status:
            return int(status.Status)
        raise self._no_response(request="C-ECHO", waited_s=self._clock.monotonic() - started)

    def broken_error(self, when: str) -> PeerError:
        """Return the error for an association that ended at a moment it should not."""
        if self._shut:
            return AssociationAbortedError(f"association with {self.route} was cut off on request")
        msg = f"{self.route} aborted the association or closed the connection {when}"
        return AssociationAbortedError(msg)

    def _no_response(self, *, request: str, waited_s: float) -> PeerError:
        limit_s = self.route.limits.response_s
        if waited_s < limit_s:
            return self.broken_error(when=f"without a valid {request} response")
        msg = f"{self.route} sent no {request} response within {limit_s:g} s (dcmResponseTimeout)"
        return PeerTimeoutError(msg)

    def _refusal(self, waited_s: float) -> PeerError:
        """Return why the association did not come about."""
        failure = self._socket.failure
        answer = self._answer()
        limits = self.route.limits
        if self._shut:
            return self.broken_error(when="")
        if failure is not None:
            return connect_error(self.route, self._socket, failure)
        if answer is not None and answer.result:
            return self._rejection(int(answer.result), answer.source_str, answer.reason_str)
        if self._requestor.acceptor.primitive is not None:
            msg = f"{self.route} accepted none of the proposed presentation contexts"
            return NoAcceptedContextError(msg)
        if waited_s >= limits.accept_s:
            msg = (
                f"{self.route} accepted the TCP connection but did not answer the association "
                f"request within {limits.accept_s:g} s (dcmAAACTimeout)"
            )
            return PeerTimeoutError(msg)
        hint = "" if self.route.tls else "; does it expect TLS on that port?"
        broken = self.broken_error(when=f"during association negotiation{hint}")
        return tls_error(self.route, self._socket) or broken

    def _answer(self) -> A_ASSOCIATE | None:
        """Return the peer's answer to the association request, if it gave one.

        When a rejection and the end of the connection come before the requesting thread has
        looked, pynetdicom takes the connection for one that failed and leaves the answer unread.
        """
        answer: A_ASSOCIATE | None = self._requestor.acceptor.primitive
        dul = self._requestor.dul
        while answer is None and (unread := dul.receive_pdu(wait=False)) is not None:
            if isinstance(unread, A_ASSOCIATE):
                answer = unread
        return answer

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

    def abandon(self) -> None:
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
