"""PDUs from a TCP socket through one buffer of fixed size.

Reads as much as is there, hands out whole PDUs as views of the buffer, and never reserves memory
for a length that a peer announces. A peer has `timeout_s` seconds for each PDU once it is asked
for, whole: dripping single bytes does not extend it.
"""

import contextlib
import select
import socket
import struct
from typing import Final, NoReturn

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import AssociationAbortedError, PeerTimeoutError
from archive.tls.channel import TlsSocket
from scp.pdus import HEADER_LENGTH, HEADERS_LENGTH, PduType, longest, parse_header, whole_piece

_READ_AHEAD: Final = 65536


class PduStream:
    """The receiving side of one association's socket.

    Parameters
    ----------
    max_length
        Maximum length offered to the peer for P-DATA-TF PDUs, bytes.
    timeout_s
        Seconds for one PDU; None waits for ever.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        max_length: int,
        timeout_s: float | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._socket = sock
        self._max_length = max_length
        self._longest = longest(PduType.P_DATA_TF, max_length)
        self._timeout_s = timeout_s
        self._clock = clock
        capacity = HEADER_LENGTH + self._longest + _READ_AHEAD
        self._view = memoryview(bytearray(capacity))
        self._start = 0
        self._end = 0
        prepare(sock, timeout_s)

    @property
    def has_buffered(self) -> bool:
        """Whether bytes were read from the socket that nobody asked for yet."""
        if self._end > self._start:
            return True
        return isinstance(self._socket, TlsSocket) and self._socket.is_buffered()

    @property
    def is_readable(self) -> bool:
        """Whether there is something to read once the socket is; TLS has messages of its own."""
        if not isinstance(self._socket, TlsSocket):
            return True
        return self.has_buffered or self._socket.is_readable()

    def is_silent(self, limit_s: float) -> bool:
        """Wait for bytes, at most a quarter of the time for a PDU; tell whether none came."""
        limit_s = min(limit_s, (self._timeout_s or 4 * limit_s) / 4)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not self.has_buffered and not poll.poll(1000 * limit_s)

    def peek_header(self) -> tuple[PduType, int]:
        """Return type and length of the next PDU without taking it.

        Raises
        ------
        ProtocolError
            When the header is not that of a possible PDU.
        AssociationAbortedError
            When the connection ended.
        PeerTimeoutError
            When the peer did not send it in time.
        """
        self._fill(HEADER_LENGTH)
        return parse_header(self._view[self._start : self._start + HEADER_LENGTH], self._max_length)

    def take_body(self, length: int) -> memoryview:
        """Return the body of a P-DATA-TF PDU whose header was peeked.

        The view is valid until the next call of any method.

        Raises
        ------
        AssociationAbortedError, PeerTimeoutError
            As for `peek_header`.
        """
        self._fill(HEADER_LENGTH + length)
        body = self._start + HEADER_LENGTH
        self._start = body + length
        return self._view[body : self._start]

    def take_piece(self, context_id: int) -> memoryview | None:
        """Return the data of the next PDU if the whole of it was read and it is nothing else.

        That is one further fragment of a data set on the presentation context, not the last one;
        None in all other cases. The view is valid until the next call of any method.
        """
        start = self._start
        length = whole_piece(self._view[: self._end], start, context_id)
        end = start + HEADER_LENGTH + length
        if not length or end > self._end or length > self._longest:
            return None
        self._start = end
        return self._view[start + HEADERS_LENGTH : end]

    def next_pdu(self) -> tuple[PduType, int] | None:
        """Return type and length of the next PDU, None unless the whole of it was read.

        Raises
        ------
        ProtocolError
            As for `peek_header`.
        """
        there = self._end - self._start
        if there < HEADER_LENGTH:
            return None
        pdu = parse_header(self._view[self._start : self._start + HEADER_LENGTH], self._max_length)
        return pdu if there >= HEADER_LENGTH + pdu[1] else None

    def read_ready(self) -> int:
        """Read what is there without waiting, and return how much it was.

        Raises
        ------
        AssociationAbortedError
            When the connection ended.
        ProtocolError
            As for `peek_header`.
        """
        there = self._end - self._start
        size = HEADER_LENGTH
        if there >= HEADER_LENGTH:
            header = self._view[self._start : self._start + HEADER_LENGTH]
            size += parse_header(header, self._max_length)[1]
        self._make_room(size)
        return self._received(socket.MSG_DONTWAIT)

    def take(self, size: int) -> bytearray:
        """Return the next `size` bytes, fewer when the connection ends before.

        Raises
        ------
        PeerTimeoutError
            As for `peek_header`.
        """
        taken = bytearray()
        while len(taken) < size:
            if self._end == self._start:
                try:
                    self._fill(1)
                except AssociationAbortedError:
                    break
            step = min(size - len(taken), self._end - self._start)
            taken += self._view[self._start : self._start + step]
            self._start += step
        return taken

    def discard(self) -> bool:
        """Drop what is there now; return whether the connection still stands."""
        self._start = self._end = 0
        try:
            return self._socket.recv_into(self._view) > 0
        except OSError:
            return False

    def _fill(self, size: int) -> None:
        """Read until `size` bytes from the start are in the buffer."""
        missing = size - (self._end - self._start)
        if missing <= 0:
            return
        self._make_room(size)
        deadline = None
        while missing > 0:
            missing -= self._read_some()
            if missing > 0 and self._timeout_s is not None:
                now = self._clock.monotonic()
                deadline = deadline or now + self._timeout_s
                if now > deadline:
                    self._time_out()

    def _make_room(self, size: int) -> None:
        """Make room for `size` bytes from the start."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size > len(self._view):
            self._move_to_front()

    def _move_to_front(self) -> None:
        length = self._end - self._start
        self._view[:length] = self._view[self._start : self._end]
        self._start, self._end = 0, length

    def acknowledge(self) -> None:
        """Acknowledge what was read: a sender with Nagle's algorithm may wait for that.

        It holds back the end of what it sends, for 40 ms if the kernel takes its time. To be
        called before waiting for more: acknowledging each read costs as much as the read.
        """
        with contextlib.suppress(OSError):  # the next read tells
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _read_some(self) -> int:
        """Read what is there, waiting for the first byte, and return how much it was."""
        count = 0
        if not isinstance(self._socket, TlsSocket):
            count = self._received(socket.MSG_DONTWAIT)
        if not count:
            self.acknowledge()
            count = self._received()
        if not count:
            self._time_out()
        return count

    def _received(self, flags: int = 0) -> int:
        """Read what there is room for; return how many bytes it were, 0 when none came in time."""
        try:
            count = self._socket.recv_into(self._view[self._end :], 0, flags)
        except (BlockingIOError, TimeoutError):
            return 0
        except OSError as error:
            msg = f"the connection broke: {error.strerror or error}"
            raise AssociationAbortedError(msg) from error
        if count == 0:
            msg = "the peer closed the connection"
            raise AssociationAbortedError(msg)
        self._end += count
        return count

    def _time_out(self) -> NoReturn:
        msg = f"the peer sent no whole PDU within {self._timeout_s} s"
        raise PeerTimeoutError(msg)


def prepare(sock: socket.socket, timeout_s: float | None) -> None:
    """Set the options of an accepted socket: no Nagle, time-outs in the kernel."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = timeout_s or 0.0
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
