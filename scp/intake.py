"""The messages that arrive on an association: objects are received here, all others passed on.

One thread at a time takes them: that of the association waits for what comes (`read`, `go_on`), the
lane that several associations share (`scp.lane`) only takes what is there (`advance`) and leaves
to the association's thread whatever could hold up the others.
"""

import socket
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, Protocol

from archive import telemetry
from archive.errors import AssociationAbortedError, PeerError
from archive.storage.syncs import Syncs
from scp.dimse import (
    C_STORE_RQ,
    StoreAnswer,
    StoreRequest,
    encode_store_response,
    store_request,
)
from scp.messages import Assembly, Step
from scp.pdus import Fragment, PduType, ProtocolError, encode_command, iter_fragments
from scp.stream import PduStream

ANNOUNCED_S: Final = 10.0
"""How long an announced identifier is waited for."""


class ObjectReceiver(Protocol):
    """Takes one object. Its methods answer for all errors and raise none."""

    @property
    def is_long(self) -> bool:
        """Whether so much has come that a thread of its own ought to receive it."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether it is known what to answer."""
        ...

    @property
    def is_for_lane(self) -> bool:
        """Whether the next object of this association is likely to be fit for its lane."""
        ...

    def write(self, fragment: memoryview) -> None:
        """Take a piece of the encoded data set; the view is only valid during the call."""
        ...

    def prepare(self) -> bool:
        """Take the object, which is complete; tell whether it can be stored with others.

        If it cannot, `finish` is left to be called.
        """
        ...

    def tidy(self) -> None:
        """Do what is left to be done for a finished object after it was answered."""
        ...

    def begin_sync(self, syncs: Syncs) -> None:
        """Begin to make the prepared object's file durable."""
        ...

    def finish(self) -> StoreAnswer:
        """Store the object, which is complete, unless that was done; return what to answer."""
        ...

    def abandon(self, reason: str) -> None:
        """Forget the object: the association ended inside its data set."""
        ...


BeginObject = Callable[[StoreRequest, str, str], ObjectReceiver]
"""Called with the request and the context's abstract and transfer syntax."""


class Association(Protocol):
    """What is asked of the association."""

    def begin_object(self, request: StoreRequest) -> ObjectReceiver:
        """Begin to receive an object."""
        ...

    def pass_command(self, context_id: int, command_field: int, encoded: bytes) -> None:
        """Hand on the command of a message that carries no object.

        Raises
        ------
        ProtocolError
            When there is no such command.
        """
        ...

    def pass_data(self, fragment: Fragment, *, is_last: bool) -> None:
        """Hand on a piece of its data set.

        Raises
        ------
        ProtocolError
            When it is too long.
        """
        ...

    def send(self, pdu: bytes) -> None:
        """Send a PDU; the connection's end is learned when it is next read from."""
        ...

    def heard(self) -> None:
        """Note that the peer is active."""
        ...


class Progress(Enum):
    """What came of taking what was there."""

    WAITS = auto()
    """The peer has to send more."""
    COMPLETE = auto()
    """An object is complete that can be stored together with others."""
    ELSEWHERE = auto()
    """What is left is for the association's own thread."""


class Intake:
    """Takes the messages of one association.

    Parameters
    ----------
    contexts
        Accepted presentation contexts by ID.
    """

    def __init__(
        self,
        stream: PduStream,
        sock: socket.socket,
        contexts: Mapping[int, object],
        association: Association,
    ) -> None:
        self._stream = stream
        self._socket = sock
        self._contexts = contexts
        self._association = association
        self._assembly = Assembly()
        self._fragments: deque[Fragment] = deque()
        self._request: StoreRequest | None = None
        self._has_command = False
        self._has_data = False
        self._is_complete = False
        self._unsent = b""
        self._trouble: PeerError | None = None
        self.receiver: ObjectReceiver | None = None
        self.is_for_lane = False

    @property
    def is_receiving(self) -> bool:
        """Whether a message is under way or being answered."""
        return self.receiver is not None or not self._assembly.is_idle

    @property
    def is_midway(self) -> bool:
        """Whether the peer owes the rest of a message or PDU."""
        return self.is_receiving or self._stream.has_buffered

    @property
    def has_left_over(self) -> bool:
        """Whether there is something for `go_on`."""
        return (
            bool(self._trouble or self._unsent or self._fragments or self._has_command)
            or self.is_receiving
        )

    @property
    def has_more(self) -> bool:
        """Whether `advance` can go on without reading."""
        if self._fragments or self._trouble is not None:
            return True
        try:
            return self._stream.next_pdu() is not None
        except PeerError:
            return True  # `advance` finds it again

    def read(self, length: int) -> None:
        """Take the P-DATA-TF PDU whose header was peeked, and those up to the message's end.

        Raises
        ------
        PeerError
            When the peer broke the protocol, was silent for too long, or has gone.
        """
        self._fragments.extend(iter_fragments(self._stream.take_body(length)))
        self._read_on()

    def go_on(self) -> None:
        """Do what a lane has left to the association's thread, up to the message's end.

        Raises
        ------
        PeerError
            As for `read`.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self._association.send(unsent)
        if self._has_command:
            self._begin()
        if self._is_complete:
            self._answer()
        if self._fragments or self.is_receiving:
            self._read_on()

    def advance(self) -> Progress:
        """Take what is there, without waiting, up to the end of an object."""
        try:
            return self._advanced()
        except PeerError as error:
            self._trouble = error
            return Progress.ELSEWHERE

    def respond(self) -> bool:
        """Answer the object, which is finished, without waiting; tell whether that was possible."""
        response = self._response()
        try:
            sent = self._socket.send(response, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            msg = f"the connection broke: {error.strerror or error}"
            self._trouble = AssociationAbortedError(msg)
            return False
        self._unsent = response[sent:]
        return not self._unsent

    def abandon(self, reason: str) -> None:
        """Forget the object that is being received, if any."""
        receiver, self.receiver, self._request = self.receiver, None, None
        self._assembly = Assembly()
        self._fragments.clear()
        self._is_complete = self._has_command = False
        if receiver is not None:
            receiver.abandon(reason)

    def _advanced(self) -> Progress:
        has_read = False
        while True:
            ending = self._taken()
            if ending is not None:
                return ending
            self._take_pieces()
            pdu = self._stream.next_pdu()
            if pdu is None:
                if has_read or not self._stream.read_ready():
                    if self.is_midway:
                        self._stream.acknowledge()
                    return Progress.WAITS
                has_read = True
            elif pdu[0] is not PduType.P_DATA_TF:
                return Progress.ELSEWHERE
            else:
                self._fragments.extend(iter_fragments(self._stream.take_body(pdu[1])))

    def _taken(self) -> Progress | None:
        """Take the fragments that are there; None when a lane may go on."""
        while self._fragments:
            self._take(self._fragments.popleft())
            if self._has_command:
                if not self._is_store:
                    return Progress.ELSEWHERE
                self._begin()
            if self._is_complete:
                self._association.heard()
                assert self.receiver is not None  # noqa: S101 - it is complete
                return Progress.COMPLETE if self.receiver.prepare() else Progress.ELSEWHERE
        if self.receiver is not None and self.receiver.is_long:
            return Progress.ELSEWHERE
        return None

    def _take_pieces(self) -> None:
        """Take what was read of an object's data set, up to a PDU that is not just a piece of it.

        That is what nearly all bytes are.
        """
        receiver = self.receiver
        if receiver is None or not self._assembly.awaits_data_set:
            return
        context_id = self._assembly.context_id
        while (piece := self._stream.take_piece(context_id)) is not None:
            receiver.write(piece)

    def _read_on(self) -> None:
        """Take fragments and PDUs up to the message's end."""
        while True:
            while self._fragments:
                self._take(self._fragments.popleft())
                if self._has_command:
                    self._begin()
                if self._is_complete:
                    self._answer()
            self._association.heard()
            if self._assembly.is_idle:
                return
            self._take_pieces()
            if self._is_unsaid and self._stream.is_silent(ANNOUNCED_S):
                nothing = memoryview(b"")  # announced, left out: answered as an empty identifier
                self._take(Fragment(self._assembly.context_id, False, True, nothing))  # noqa: FBT003 - fields
                return
            pdu_type, length = self._stream.peek_header()
            if pdu_type is not PduType.P_DATA_TF:
                self.abandon(f"{pdu_type.name} inside a message")
                return
            self._fragments.extend(iter_fragments(self._stream.take_body(length)))

    @property
    def _is_unsaid(self) -> bool:
        """Whether nothing has come of a data set that a message without object announced."""
        return self._assembly.awaits_data_set and self.receiver is None and not self._has_data

    @property
    def _is_store(self) -> bool:
        command = self._assembly.command
        return command is not None and command.command_field == C_STORE_RQ

    def _take(self, fragment: Fragment) -> None:
        """Take one fragment of a message; sets `_has_command` or `_is_complete` at an end."""
        if fragment.context_id not in self._contexts:
            msg = f"presentation context {fragment.context_id} was not accepted"
            raise ProtocolError(msg)
        step = self._assembly.take(fragment)
        if step is Step.COMMAND:
            self._has_command = True
        elif self.receiver is not None:
            self.receiver.write(fragment.data)
            self._is_complete = step is Step.DATA
        elif step is not Step.COMMAND_PART:
            self._has_data = True
            self._association.pass_data(fragment, is_last=step is Step.DATA)

    def _begin(self) -> None:
        """Begin to receive an object, or hand on the command of another message."""
        self._has_command = False
        command, context_id = self._assembly.command, self._assembly.context_id
        assert command is not None  # noqa: S101 - there is one at Step.COMMAND
        if command.command_field == C_STORE_RQ:
            self._request = store_request(command, context_id)
            self.receiver = self._association.begin_object(self._request)
            self._is_complete = not command.has_data_set
            return
        self._has_data = False
        self._association.pass_command(
            context_id, command.command_field, self._assembly.encoded_command
        )

    def _answer(self) -> None:
        self._association.send(self._response())

    def _response(self) -> bytes:
        """Return the response to the object that is complete, storing it if that was not done."""
        receiver, request = self.receiver, self._request
        assert receiver is not None  # noqa: S101 - set together
        assert request is not None  # noqa: S101
        answer = receiver.finish()
        self.is_for_lane = receiver.is_for_lane
        self._is_complete = False
        self.receiver = self._request = None
        telemetry.checkpoint(telemetry.CHECKPOINT_BEFORE_RESPONSE)
        return encode_command(request.context_id, encode_store_response(request, answer))
