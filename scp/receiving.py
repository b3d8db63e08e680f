"""The seam to pynetdicom: C-STORE data sets go from the socket to a receiver, nothing else moves.

pynetdicom (3.0) runs two threads for an association: the DUL thread owns the socket and the
state machine, the association thread negotiates and serves DIMSE requests. Here

* `ReceivingProvider` (DUL) sleeps until the socket or the other thread has something for it,
  instead of polling, and while the association is established reads P-DATA-TF PDUs itself. The
  message of a C-STORE is received and answered in this thread; every other message is handed on
  to pynetdicom as if it had read it. Only the DUL thread writes to the socket.
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
from typing import Any, Final, Protocol

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
from scp.dimse import C_STORE_RQ, StoreAnswer, StoreRequest, encode_store_response, store_request
from scp.messages import Assembly, Step
from scp.pdus import (
    Fragment,
    PduType,
    ProtocolError,
    encode_command,
    encode_fragment,
    iter_fragments,
)
from scp.stream import PduStream
from scp.wakeups import Doorbell, RingingQueue, SocketWait

MAX_IDENTIFIER_LENGTH: Final = 1 << 23
"""Longest data set of a message that is not a C-STORE, bytes: commitment of 50 000 instances."""

ANNOUNCED_S: Final = 10.0
"""How long an announced identifier is waited for."""

LINGER_S: Final = 2.0
"""How long a peer may take to close the connection after the association's end."""

_log = logging.getLogger(__name__)


class ObjectReceiver(Protocol):
    """Takes one object. Its methods answer for all errors and raise none."""

    def write(self, fragment: memoryview) -> None:
        """Take a piece of the encoded data set; the view is only valid during the call."""
        ...

    def finish(self) -> StoreAnswer:
        """Store the object, which is complete, and return what to answer."""
        ...

    def abandon(self, reason: str) -> None:
        """Forget the object: the association ended inside its data set."""
        ...


BeginObject = Callable[[StoreRequest, str, str], ObjectReceiver]
"""Called with the request and the context's abstract and transfer syntax."""


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
        self._contexts: dict[int | None, PresentationContext] = {}
        self._assembly = Assembly()
        self._identifier_length = 0
        self._receiver: ObjectReceiver | None = None
        self._request: StoreRequest | None = None
        self.to_provider_queue = RingingQueue(self.ring)

    @property
    def is_receiving(self) -> bool:
        """Whether a message is under way or being answered in this thread."""
        return self._receiver is not None or not self._assembly.is_idle

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
        sock, stream = self.socket.socket, self.socket.stream
        while stream.has_buffered or self._waiting.wait(sock, self.artim_timer.remaining):
            if not stream.is_readable:
                return False
            self._read_pdu_data()
            if self._is_pynetdicoms_turn:
                return True
        return False

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
            pdu_type, length = self.socket.stream.peek_header()
            if pdu_type is PduType.P_DATA_TF and self.state_machine.current_state == "Sta6":
                self._read_messages(self.socket.stream, length)
            else:
                self.assoc.settle()
                super()._read_pdu_data()
        except AssociationAbortedError as error:
            self._abandon(str(error))
            self.event_queue.put("Evt17")
        except PeerError as error:
            self._violated(error)

    def _read_messages(self, stream: PduStream, length: int) -> None:
        """Take P-DATA-TF PDUs up to the end of a message."""
        if not self._contexts:
            self._contexts = {each.context_id: each for each in self.assoc.accepted_contexts}
        while True:
            for fragment in iter_fragments(stream.take_body(length)):
                self._take(fragment)
            self._idle_timer.restart()
            if self._assembly.is_idle:
                return
            is_awaited = self._assembly.awaits_data_set and self._receiver is None
            if is_awaited and not self._identifier_length and stream.is_silent(ANNOUNCED_S):
                nothing = memoryview(b"")  # announced, left out: answered as an empty identifier
                self._take(Fragment(self._assembly.context_id, False, True, nothing))  # noqa: FBT003 - fields
                return
            pdu_type, length = stream.peek_header()
            if pdu_type is not PduType.P_DATA_TF:
                self._abandon(f"{pdu_type.name} inside a message")
                return

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

    def _take(self, fragment: Fragment) -> None:
        """Take one fragment of a message."""
        if fragment.context_id not in self._contexts:
            msg = f"presentation context {fragment.context_id} was not accepted"
            raise ProtocolError(msg)
        step = self._assembly.take(fragment)
        if step is Step.COMMAND:
            self._begin()
        elif self._receiver is not None:
            self._receiver.write(fragment.data)
            if step is Step.DATA:
                self._answer()
        elif step is not Step.COMMAND_PART:
            self._pass_on_data(fragment, is_last=step is Step.DATA)

    def _begin(self) -> None:
        """Begin to receive an object, or hand another message's command to pynetdicom."""
        command, context_id = self._assembly.command, self._assembly.context_id
        assert command is not None  # noqa: S101 - there is one at Step.COMMAND
        if command.command_field == C_STORE_RQ:
            context = self._contexts[context_id]
            self._request = store_request(command, context_id)
            self._receiver = self.assoc.begin_object(
                self._request, str(context.abstract_syntax), str(context.transfer_syntax[0])
            )
            if not command.has_data_set:
                self._answer()
            return
        if command.command_field not in _MESSAGE_TYPES:
            msg = f"unknown command field {command.command_field:04X}"
            raise ProtocolError(msg)
        self.assoc.settle()
        self._identifier_length = 0
        self._pass_on(encode_command(context_id, self._assembly.encoded_command))

    def _answer(self) -> None:
        """Store the object that is complete and send the response to its request."""
        receiver, request = self._receiver, self._request
        assert receiver is not None  # noqa: S101 - set together
        assert request is not None  # noqa: S101
        answer = receiver.finish()
        self._receiver = self._request = None
        response = encode_command(request.context_id, encode_store_response(request, answer))
        telemetry.checkpoint(telemetry.CHECKPOINT_BEFORE_RESPONSE)
        if self.socket is not None:
            self.socket.send(response)

    def _pass_on_data(self, fragment: Fragment, *, is_last: bool) -> None:
        """Hand a piece of another message's data set to pynetdicom."""
        self._identifier_length += len(fragment.data)
        if self._identifier_length > MAX_IDENTIFIER_LENGTH:
            msg = f"a message other than C-STORE with more than {MAX_IDENTIFIER_LENGTH} bytes"
            raise ProtocolError(msg)
        control = 0x02 if is_last else 0x00
        self._pass_on(encode_fragment(fragment.context_id, fragment.data, control=control))

    def _pass_on(self, encoded: bytes) -> None:
        pdu, event = self._decode_pdu(bytearray(encoded))
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _abandon(self, reason: str) -> None:
        """Forget the object that is being received, if any."""
        receiver, self._receiver, self._request = self._receiver, None, None
        self._assembly = Assembly()
        if receiver is not None:
            receiver.abandon(reason)


class StoreAssociation(Association):
    """An association as acceptor whose C-STORE requests go to `begin_object`.

    Attributes
    ----------
    begin_object
        Set when the association is accepted, before anything can be received.
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
