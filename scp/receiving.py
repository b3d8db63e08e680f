"""The seam to pynetdicom: C-STORE data sets go from the socket to a receiver, nothing else moves.

pynetdicom (3.0) runs two threads for an association: the DUL thread owns the socket and the
state machine, the association thread negotiates and serves DIMSE requests. Here

* `ReceivingProvider` (DUL) sleeps until the socket or the other thread has something for it,
  instead of polling, and while the association is established reads P-DATA-TF PDUs itself. The
  message of a C-STORE is received and answered in this thread; every other message is handed on
  to pynetdicom as if it had read it. Only the DUL thread writes to the socket.
* While objects come that its lane can take (`scp.lane`), another thread reads and answers in its
  place, and hands the socket back with whatever it does not take.
* `StoreAssociation` sleeps likewise until a message, a release or an abort is there.

What is relied on of pynetdicom: `DULServiceProvider._is_transport_event`, `_read_pdu_data`,
`_process_recv_primitive`, `_decode_pdu`, `_recv_pdu`, `kill_dul`, `stop_dul`, `run_reactor`;
`Association._reactor_checkpoint`, `_accepted_cx`; `AssociationSocket.recv`, and in
`scp.listening` `RequestHandler._create_association`. tests/integration/test_scp_receiving.py
fails when one of them changes.
"""

import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import _MESSAGE_TYPES
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket
from typing_extensions import override

from archive import telemetry
from archive.clock import SYSTEM_CLOCK
from archive.errors import AssociationAbortedError, PeerError
from archive.telemetry import log_event
from archive.tls.channel import TlsSocket
from scp.dimse import StoreRequest
from scp.intake import BeginObject, Intake, ObjectReceiver
from scp.lane import Lane, Seat
from scp.pdus import Fragment, PduType, ProtocolError, encode_command, encode_fragment
from scp.stream import PduStream
from scp.wakeups import Doorbell, RingingQueue, SocketWait

MAX_IDENTIFIER_LENGTH: Final = 1 << 23
"""Longest data set of a message that is not a C-STORE, bytes: commitment of 50 000 instances."""

LINGER_S: Final = 2.0
"""How long a peer may take to close the connection after the association's end."""

_log = logging.getLogger(__name__)


class ReceivingSocket(AssociationSocket):
    """An association's socket that is read through a `PduStream`."""

    def __init__(self, assoc: "StoreAssociation", client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.stream = PduStream(
            client_socket,
            max_length=assoc.ae.maximum_pdu_size,
            timeout_s=assoc.network_timeout,
        )

    @override
    def recv(self, nr_bytes: int) -> bytearray:
        """Read bytes for pynetdicom."""
        return self.stream.take(nr_bytes)


class ReceivingProvider(DULServiceProvider):
    """The upper layer provider that receives objects by itself."""

    assoc: "StoreAssociation"
    socket: ReceivingSocket | None

    def __init__(self, assoc: "StoreAssociation") -> None:
        super().__init__(assoc)
        self.daemon = True  # a hanging peer must not keep the process from ending
        self._run_loop_delay = 0
        self._waiting = SocketWait()
        self._linger_until: float | None = None
        self._contexts: dict[int, PresentationContext] = {}
        self._identifier_length = 0
        self._intake: Intake | None = None
        self._seat: Seat | None = None
        self.to_provider_queue = RingingQueue(self.ring)

    @property
    def is_receiving(self) -> bool:
        """Whether a message is under way or being answered."""
        return self._intake is not None and self._intake.is_receiving

    def ring(self) -> None:
        """Wake the thread up."""
        self._waiting.ring()

    @property
    def idle_remaining_s(self) -> float:
        """Seconds until the association may be idle for too long."""
        return 1.0 if self.is_receiving else float(self._idle_timer.remaining)

    @override
    def kill_dul(self) -> None:
        super().kill_dul()
        self.ring()

    @override
    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        self.join()
        return True

    @override
    def idle_timer_expired(self) -> bool:
        return not self.is_receiving and bool(super().idle_timer_expired())

    @override
    def run_reactor(self) -> None:
        """Run until the connection is closed, then leave nothing behind."""
        try:
            super().run_reactor()
        finally:
            self._leave_lane()
            self._abandon("the association ended")
            self._waiting.close()
            # Whoever waits for an A-ASSOCIATE that will never come may go.
            self.to_user_queue.put(None)

    @override
    def _process_recv_primitive(self) -> bool:
        """Take a primitive of the local user; drop what comes too late for the state."""
        if not self.event_queue.empty():
            return True  # one event at a time: the primitive stays until its event is processed
        if not super()._process_recv_primitive():
            return False
        event = self.event_queue.get_nowait()
        if (event, self.state_machine.current_state) in TRANSITION_TABLE:
            self.event_queue.put(event)
            return True
        primitive = self.to_provider_queue.get_nowait()
        if isinstance(primitive, (A_ABORT, A_P_ABORT)) and self.socket:
            self.socket.close()
        return True

    @override
    def _is_transport_event(self) -> bool:
        """Wait for the peer or the local user; return whether the peer sent something."""
        if self.socket is None or self.socket.socket is None:
            self._waiting.wait(None, self.artim_timer.remaining)
            return False
        if self.state_machine.current_state == "Sta13":
            self._linger(self.socket)
            return True
        if self._seat is not None and not self._is_back_from_lane():
            return self._is_pynetdicoms_turn
        return self._read_what_comes(self.socket)

    def _is_back_from_lane(self) -> bool:
        """Wait until the lane hands the socket back, or take it back when it is wanted."""
        self._waiting.wait(None, self.artim_timer.remaining)
        if self._seat is not None and not self._is_pynetdicoms_turn:
            return False
        self._leave_lane()
        return self._has_left_over or not self._is_pynetdicoms_turn

    def _read_what_comes(self, association_socket: ReceivingSocket) -> bool:
        """Wait for the peer and take what it sends; return whether it is pynetdicom's turn."""
        sock, stream = association_socket.socket, association_socket.stream
        while (
            self._has_left_over
            or stream.has_buffered
            or self._waiting.wait(sock, self.artim_timer.remaining)
        ):
            if not (self._has_left_over or stream.is_readable):
                return False
            self._read_pdu_data()
            if self._is_pynetdicoms_turn:
                return True
            if self._enters_lane(association_socket):
                return False
        return False

    @property
    def _has_left_over(self) -> bool:
        return self._intake is not None and self._intake.has_left_over

    def _enters_lane(self, association_socket: ReceivingSocket) -> bool:
        """Leave the socket to the lane, if there is one for it and nothing was read ahead."""
        intake, sock = self._intake, association_socket.socket
        if intake is None or not intake.is_for_lane or association_socket.stream.has_buffered:
            return False
        if sock is None or isinstance(sock, TlsSocket):
            return False
        seat = Seat(
            intake, sock.fileno(), lambda: self._is_pynetdicoms_turn, self._returned_from_lane
        )
        self._seat = seat
        if not self.assoc.lane().enter(seat):
            self._seat = None
            return False
        log_event(
            _log,
            telemetry.LANE_ENTERED,
            level=logging.DEBUG,
            calling_aet=self.assoc.calling_aet,
            peer=self.assoc.peer_address,
        )
        return True

    def _returned_from_lane(self) -> None:
        self._seat = None
        self.ring()

    def _leave_lane(self) -> None:
        seat = self._seat
        if seat is not None:
            self.assoc.lane().leave(seat)
            self._seat = None

    @property
    def _is_pynetdicoms_turn(self) -> bool:
        """Whether there is an event or a primitive for the state machine, or the end."""
        return bool(self._kill_thread or self.event_queue.qsize() or self.to_provider_queue.qsize())

    def _linger(self, association_socket: ReceivingSocket) -> None:
        """Wait for the peer to close the connection, for `LINGER_S` at most (Sta13)."""
        now = SYSTEM_CLOCK.monotonic()
        self._linger_until = self._linger_until or now + LINGER_S
        remaining_s = self._linger_until - now
        sock = association_socket.socket
        if remaining_s > 0 and not self._waiting.wait(sock, remaining_s):
            return
        if remaining_s <= 0 or not association_socket.stream.discard():
            association_socket.close()

    @override
    def _read_pdu_data(self) -> None:
        """Read the next PDU, or all of a message when P-DATA-TF PDUs come."""
        assert self.socket is not None  # noqa: S101 - checked by the caller
        try:
            if self._intake is not None and self._intake.has_left_over:
                self._intake.go_on()
                return
            pdu_type, length = self.socket.stream.peek_header()
            if pdu_type is PduType.P_DATA_TF and self.state_machine.current_state == "Sta6":
                self._take_in(self.socket).read(length)
            else:
                self.assoc.settle()
                super()._read_pdu_data()
        except AssociationAbortedError as error:
            self._abandon(str(error))
            self.event_queue.put("Evt17")
        except PeerError as error:
            self._violated(error)

    def _take_in(self, association_socket: ReceivingSocket) -> Intake:
        """Return what takes the messages, made when the first one comes."""
        if self._intake is None:
            accepted = self.assoc.accepted_contexts
            self._contexts = {each.context_id: each for each in accepted if each.context_id}
            sock, stream = association_socket.socket, association_socket.stream
            assert sock is not None  # noqa: S101 - it was just read from
            self._intake = Intake(stream, sock, self._contexts, self)
        return self._intake

    def _violated(self, error: PeerError) -> None:
        """Abort the association because of what the peer did (PS3.8 §9.2.3, AA-8)."""
        self._abandon(str(error))
        log_event(
            _log,
            telemetry.PROTOCOL_VIOLATED,
            level=logging.WARNING,
            calling_aet=self.assoc.calling_aet,
            peer=self.assoc.peer_address,
            message=f"{error}; the association is aborted",
        )
        self.event_queue.put("Evt19")

    def begin_object(self, request: StoreRequest) -> ObjectReceiver:
        """Begin to receive an object; see `scp.intake.Association`, as for what follows."""
        context = self._contexts[request.context_id]
        return self.assoc.begin_object(
            request, str(context.abstract_syntax), str(context.transfer_syntax[0])
        )

    def pass_command(self, context_id: int, command_field: int, encoded: bytes) -> None:
        """Hand another message's command to pynetdicom."""
        if command_field not in _MESSAGE_TYPES:
            msg = f"unknown command field {command_field:04X}"
            raise ProtocolError(msg)
        self.assoc.settle()
        self._identifier_length = 0
        self._pass_on(encode_command(context_id, encoded))

    def pass_data(self, fragment: Fragment, *, is_last: bool) -> None:
        """Hand a piece of another message's data set to pynetdicom."""
        self._identifier_length += len(fragment.data)
        if self._identifier_length > MAX_IDENTIFIER_LENGTH:
            msg = f"a message other than C-STORE with more than {MAX_IDENTIFIER_LENGTH} bytes"
            raise ProtocolError(msg)
        control = 0x02 if is_last else 0x00
        self._pass_on(encode_fragment(fragment.context_id, fragment.data, control=control))

    def send(self, pdu: bytes) -> None:
        """Send a PDU; pynetdicom takes note when the connection is broken."""
        if self.socket is not None:
            self.socket.send(pdu)

    def heard(self) -> None:
        """Begin anew to count the time without a sign of life."""
        self._idle_timer.restart()

    def _pass_on(self, encoded: bytes) -> None:
        pdu, event = self._decode_pdu(bytearray(encoded))
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _abandon(self, reason: str) -> None:
        """Forget the object that is being received, if any."""
        if self._intake is not None:
            self._intake.abandon(reason)


class StoreAssociation(Association):
    """An association as acceptor whose C-STORE requests go to `begin_object`.

    Attributes
    ----------
    begin_object
        Set when the association is accepted, before anything can be received.
    lane
        Returns the lane that may receive for it, once an object was stored.
    settle
        Called before anything else than a further object is taken from the peer: waits until what
        was answered is safe.
    session
        What the service knows of the association; not used here.
    configured_port
        Port of the directory on which it came; None when another one was asked for.
    """

    begin_object: BeginObject
    dul: ReceivingProvider

    def __init__(self, ae: ApplicationEntity, mode: str) -> None:
        super().__init__(ae, mode)
        self.session: Any = None
        self.settle: Callable[[], None] = _nothing
        self.configured_port: int | None = None
        self.lane: Callable[[], Lane]
        self.dul = ReceivingProvider(self)
        self.acse_timeout = ae.acse_timeout  # once more: the setters also tell the provider
        self.network_timeout = ae.network_timeout
        doorbell = Doorbell(lambda: self.dul.idle_remaining_s)
        self._reactor_checkpoint = doorbell
        doorbell.set()
        self.dul.to_user_queue = RingingQueue(doorbell.ring)
        self.dimse.msg_queue = RingingQueue(doorbell.ring)

    @property
    def peer_address(self) -> str:
        """Address of the requestor's host."""
        address = self.requestor.address_info
        return address.address if address else ""

    @property
    def calling_aet(self) -> str | None:
        """AE title of the requestor, once it is known."""
        return str(self.requestor.ae_title).strip() or None


def _nothing() -> None:
    """Wait for nothing: no object was received."""
