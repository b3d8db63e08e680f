"""C-STORE as fast as the network goes: file bytes to the socket in the peer's PDUs.

The loop owns the socket of an established association. Memory is one read buffer whatever the
size of the object; what lies in a file behind the first buffer goes from the file to the socket
in the kernel, where nothing encrypts it. Command set and first data leave in one segment;
TCP_QUICKACK is re-armed while a response is awaited, because a peer with Nagle's algorithm holds
the second half of its response back until the first is acknowledged. Whatever the peer does wrong
ends the association with a typed error that says how many objects it had answered before.
"""

import contextlib
import errno
import io
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import ObjectUnreadableError, PeerError, PeerTimeoutError
from archive.model.coerced_object import Spliced
from archive.tls.channel import TlsSocket
from workers import dimse
from workers.dimse import InvalidMessageError, MoveOriginator, StoreResponse

if TYPE_CHECKING:
    from workers.association import Association

_READ_BUFFER_BYTES = 1 << 18
_MAX_BUFFERS = 1000  # the kernel takes 1024 per call (IOV_MAX)
_RECEIVE_BYTES = 1 << 16
_LONGEST_PDU = 1 << 20
_MAX_MESSAGE_ID = 0xFFFF
_PDU_HEADER = struct.Struct(">BxL")

_Buffers = Sequence[bytes | memoryview]


class ByteSource(Protocol):
    """Where the encoded data set comes from: an open binary file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill `buffer` as far as possible and return the number of bytes, 0 at the end."""
        ...


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """One object to be sent.

    Attributes
    ----------
    context_id
        An accepted context whose transfer syntax is that of the bytes.
    length
        Bytes of the encoded data set; the source has to deliver exactly that many.
    originator
        The C-MOVE that this is a sub-operation of.
    """

    context_id: int
    sop_class_uid: str
    sop_instance_uid: str
    length: int
    originator: MoveOriginator | None = None


class StoreLoop:
    """Sends C-STORE requests over one association, one at a time.

    Parameters
    ----------
    association
        Established, its socket lent for exclusive use.
    sock
        That socket, blocking, with kernel send and receive time-outs.
    """

    def __init__(
        self, association: "Association", sock: socket.socket, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        route = association.route
        self.answered = 0
        self._association = association
        self._socket = sock
        self._clock = clock
        self._limits = route.limits
        self._fragment_length = dimse.fragment_length(
            association.peer_max_pdu_length, route.send_pdu_length
        )
        per_read = min(_READ_BUFFER_BYTES // self._fragment_length, _MAX_BUFFERS // 2 - 2)
        self._buffer = memoryview(bytearray(max(1, per_read) * self._fragment_length))
        self._received = bytearray()
        self._message_id = 0

    def send(self, request: StoreRequest, source: ByteSource) -> StoreResponse:
        """Send one object and return the peer's response.

        Raises
        ------
        ObjectUnreadableError
            When `source` ends early; the association cannot be used any further.
        AssociationAbortedError
            When the peer aborts, asks for release or closes the connection.
        PeerTimeoutError
            When it stops reading or does not respond within the limits.
        InvalidMessageError
            When it sends anything but the response to this request.
        """
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        limits = self._limits
        with self._translated(request, f"took no data for {limits.stall_s:g} s (dcmSendTimeout)"):
            deadline = self._clock.monotonic() + limits.store_s
            for buffers in self._segments(request, source, deadline):
                self._write(buffers, deadline)
        late = f"sent no response within {limits.response_s:g} s (dcmResponseTimeout)"
        with self._translated(request, late):
            response = self._response(request)
        self.answered += 1
        return response

    @contextlib.contextmanager
    def _translated(self, request: StoreRequest, late: str) -> Iterator[None]:
        """Turn the socket's errors into the peer's; `late` says what a time-out means."""
        try:
            yield
        except BlockingIOError as error:
            what = f"during the C-STORE of {request.sop_instance_uid}, {self._progress()}"
            msg = f"{self._association.route} {late} {what}"
            raise PeerTimeoutError(msg) from error
        except OSError as error:
            raise self._broken(request) from error

    def _segments(
        self, request: StoreRequest, source: ByteSource, deadline: float
    ) -> Iterator[_Buffers]:
        """Yield what to write: the command set with the first data, then one buffer at a time.

        Whole fragments that lie in a file are written on the way, all but the last.
        """
        command = dimse.encode_store_request(
            self._message_id, request.sop_class_uid, request.sop_instance_uid, request.originator
        )
        head = tuple(dimse.command_pdus(request.context_id, command, self._fragment_length))
        remaining = request.length
        while remaining > 0:
            chunk = self._fill(min(remaining, len(self._buffer)), source, request)
            remaining -= len(chunk)
            if remaining == 0 and len(chunk) % 2:
                chunk = self._padded(len(chunk))
            yield (*head, *self._data_pdus(request.context_id, chunk, is_end=remaining == 0))
            head = ()
            file = self._file_behind(source)
            if file is not None and remaining > len(self._buffer):
                remaining -= self._pour(request, file, remaining, deadline)

    def _file_behind(self, source: ByteSource) -> io.BufferedReader | None:
        """Return the file that `source` reads, if the kernel may send it as it is."""
        file = source.rest if isinstance(source, Spliced) else source
        is_plain = isinstance(file, io.BufferedReader) and not isinstance(self._socket, TlsSocket)
        return cast("io.BufferedReader", file) if is_plain else None

    def _pour(
        self, request: StoreRequest, file: io.BufferedReader, remaining: int, deadline: float
    ) -> int:
        """Send all fragments but the last from the file; return how many bytes they had."""
        size = self._fragment_length
        header = dimse.pdu_header(request.context_id, size, is_command=False, is_last=False)
        begin = position = file.tell()
        while begin + remaining - position > size:
            self._socket.sendall(header, socket.MSG_MORE)
            position += self._pour_fragment(request, file, position, deadline)
        file.seek(position)
        return position - begin

    def _pour_fragment(
        self, request: StoreRequest, file: io.BufferedReader, position: int, deadline: float
    ) -> int:
        """Send one fragment from the file and return its length."""
        left = self._fragment_length
        while left:
            if self._clock.monotonic() > deadline:
                raise BlockingIOError
            try:
                sent = os.sendfile(self._socket.fileno(), file.fileno(), position, left)
            except OSError as error:
                if error.errno == errno.EIO:
                    raise _unreadable(request, error) from error
                raise
            if not sent:
                raise _ends_early(request)
            position += sent
            left -= sent
        return self._fragment_length

    def _data_pdus(
        self, context_id: int, chunk: memoryview, *, is_end: bool
    ) -> Iterator[bytes | memoryview]:
        """Yield headers and fragments of a piece of the data set, alternating."""
        size = self._fragment_length
        full = dimse.pdu_header(context_id, size, is_command=False, is_last=False)
        for start in range(0, len(chunk), size):
            fragment = chunk[start : start + size]
            is_last = is_end and start + size >= len(chunk)
            if is_last or len(fragment) < size:
                yield dimse.pdu_header(context_id, len(fragment), is_command=False, is_last=is_last)
            else:
                yield full
            yield fragment

    def _padded(self, size: int) -> memoryview:
        """Return `size` bytes of the buffer and a NUL: fragments are even (PS3.8 Annex E).

        Deflated data sets that their writer did not pad (PS3.5 §A.5) are met in practice.
        """
        self._buffer[size] = 0
        return self._buffer[: size + 1]

    def _fill(self, size: int, source: ByteSource, request: StoreRequest) -> memoryview:
        """Read exactly `size` bytes into the buffer."""
        filled = 0
        while filled < size:
            count = _read(source, self._buffer[filled:size], request)
            if not count:
                raise _ends_early(request)
            filled += count
        return self._buffer[:size]

    def _write(self, buffers: _Buffers, deadline: float) -> None:
        """Write all buffers in as few calls as the kernel allows."""
        left = sum(map(len, buffers))
        while True:
            sent = self._socket.sendmsg(buffers)
            left -= sent
            if self._clock.monotonic() > deadline:
                raise BlockingIOError
            if not left:
                return
            buffers = _after(buffers, sent)

    def _response(self, request: StoreRequest) -> StoreResponse:
        """Read PDUs up to the complete response."""
        deadline = self._clock.monotonic() + self._limits.response_s
        assembler = dimse.ResponseAssembler(request.context_id)
        command: dict[int, bytes] | None = None
        try:
            while command is None:
                command = assembler.feed(self._p_data(request, deadline))
            return dimse.read_store_response(command, self._message_id, request.sop_instance_uid)
        except InvalidMessageError as error:
            msg = f"{self._association.route} broke the protocol: {error}, {self._progress()}"
            raise InvalidMessageError(msg) from error

    def _p_data(self, request: StoreRequest, deadline: float) -> bytes:
        """Return the body of the next PDU, which has to be a P-DATA-TF."""
        header = self._take(dimse.PDU_HEADER_LENGTH, request, deadline)
        kind, length = _PDU_HEADER.unpack(header)
        if kind in {dimse.A_ABORT, dimse.A_RELEASE_RQ}:
            raise self._broken(request)
        if kind != dimse.P_DATA_TF or length > _LONGEST_PDU:
            msg = f"received a PDU of type {kind:02X} and length {length} instead of a response"
            raise InvalidMessageError(msg)
        return self._take(length, request, deadline)

    def _take(self, size: int, request: StoreRequest, deadline: float) -> bytes:
        """Return exactly `size` received bytes."""
        while len(self._received) < size:
            if self._clock.monotonic() > deadline:
                raise BlockingIOError
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            piece = self._socket.recv(_RECEIVE_BYTES)
            if not piece:
                raise self._broken(request)
            self._received += piece
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _broken(self, request: StoreRequest) -> PeerError:
        return self._association.broken_error(
            f"during the C-STORE of {request.sop_instance_uid}, {self._progress()}"
        )

    def _progress(self) -> str:
        return f"after {self.answered} answered C-STOREs on this association"


def _ends_early(request: StoreRequest) -> ObjectUnreadableError:
    msg = (
        f"the stored file of {request.sop_instance_uid} ends before the "
        f"{request.length} bytes that the ledger knows: restore it from a copy"
    )
    return ObjectUnreadableError(msg)


def _read(source: ByteSource, buffer: memoryview, request: StoreRequest) -> int:
    """Read from the file; its errors are not to be taken for the socket's.

    Raises
    ------
    ObjectUnreadableError
        When the file cannot be read.
    """
    try:
        return source.readinto(buffer) or 0
    except OSError as error:
        raise _unreadable(request, error) from error


def _unreadable(request: StoreRequest, error: OSError) -> ObjectUnreadableError:
    msg = f"the stored file of {request.sop_instance_uid} cannot be read: {error.strerror}"
    return ObjectUnreadableError(msg)


def _after(buffers: _Buffers, sent: int) -> _Buffers:
    """Return what is left of `buffers` after the first `sent` bytes."""
    for index, buffer in enumerate(buffers):
        if sent < len(buffer):
            return (memoryview(buffer)[sent:], *buffers[index + 1 :])
        sent -= len(buffer)
    return ()
