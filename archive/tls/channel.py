"""A socket that encrypts: used in place of a plain one, with the same time-outs and errors.

The records of TLS go through buffers of OpenSSL; the socket itself stays blocking, so that the
time-outs that the kernel keeps (SO_RCVTIMEO, SO_SNDTIMEO) hold as they do without TLS, and end in
a BlockingIOError. `is_readable` tells whether there is data, which `select` cannot: a readable
socket may hold half a record, or one that is none of ours.
"""

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from archive.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

_RECORD_BYTES: Final = 1 << 14
_RECEIVE_BYTES: Final = 1 << 16
_SEND_BYTES: Final = 1 << 17


class TlsSocket(socket.socket):
    """A connected socket with TLS on it.

    One thread may read and another write at a time; `shutdown` may be called by any.

    Attributes
    ----------
    heard
        Whether the peer has sent anything.
    fault
        What ended the use of TLS, None as long as nothing did.
    send_limit_s
        Seconds in which the peer has to take what one call sends; None leaves it to the kernel's
        time-out of each write.
    """

    heard: bool = False
    fault: OSError | None = None
    send_limit_s: float | None = None

    def secure(
        self, context: ssl.SSLContext, *, server_side: bool = False, host: str | None = None
    ) -> None:
        """Prepare TLS; `handshake` begins it.

        Parameters
        ----------
        host
            Whom a client calls.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=host
        )
        self._ahead = bytearray()
        self._guard = threading.Lock()
        self._sending = threading.Lock()

    def handshake(self, limit_s: float) -> None:
        """Agree on keys with the peer.

        Raises
        ------
        OSError
            An `ssl.SSLError` when that fails, a TimeoutError when it takes longer than `limit_s`.
        """
        deadline = SYSTEM_CLOCK.monotonic() + limit_s
        timeout_s = self.gettimeout()
        try:
            while not self._shake():
                self._settle(deadline)
                self._feed(super().recv(_RECEIVE_BYTES))
            self._settle(deadline)
        except OSError as error:
            self.fault = error
            with contextlib.suppress(OSError):
                self._flush(socket.MSG_DONTWAIT)  # an alert tells the peer why
            raise
        self.settimeout(timeout_s)

    def is_readable(self) -> bool:
        """Tell whether a read would return at once: with data, or with the connection's end."""
        while not self.is_buffered():
            try:
                data = super().recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True
            self._feed(data)
        return True

    def is_buffered(self) -> bool:
        """Tell whether a read would return without asking the network."""
        if self._ahead:
            return True
        try:
            data = self._decrypted(_RECORD_BYTES)
        except OSError:
            return True
        if data:
            self._ahead += data
        return data is not None

    @override
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return up to `bufsize` bytes, none at the connection's end."""
        if self._ahead:
            data = bytes(self._ahead[:bufsize])
            del self._ahead[:bufsize]
            return data
        while (decrypted := self._decrypted(bufsize)) is None:
            self._feed(super().recv(_RECEIVE_BYTES, flags))
        return decrypted

    @override
    def recv_into(self, buffer: "Buffer", nbytes: int = 0, flags: int = 0) -> int:
        """Fill `buffer` with what is there and return how much it was, 0 at the end."""
        view = memoryview(buffer)
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    @override
    def send(self, data: "Buffer", flags: int = 0, /) -> int:
        """Encrypt and send all of `data`."""
        view = memoryview(data)
        with self._sending:
            try:
                with self._guard:
                    self._tls.write(view)
            except ssl.SSLError as error:
                self.fault = self.fault or error
                raise
            self._flush(flags)
        return len(view)

    @override
    def sendall(self, data: "Buffer", flags: int = 0, /) -> None:
        """Encrypt and send all of `data`."""
        self.send(data, flags)

    @override
    def sendmsg(
        self,
        buffers: "Iterable[Buffer]",
        ancdata: "Iterable[tuple[int, int, Buffer]]" = (),
        flags: int = 0,
        address: object = None,
        /,
    ) -> int:
        """Encrypt and send the first of `buffers`, and return how many bytes of them that were."""
        return self.send(_first(buffers), flags)

    @override
    def shutdown(self, how: int, /) -> None:
        """Tell the peer that nothing more comes, as far as it can be told, and end both ways."""
        if self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError, ValueError):
                    with self._guard:
                        self._closing()
                    self._flush(socket.MSG_DONTWAIT)
            finally:
                self._sending.release()
        super().shutdown(how)

    def _closing(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def _shake(self) -> bool:
        """Go on with the handshake; return whether it is over."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _settle(self, deadline: float) -> None:
        """Send what the handshake has to say, and leave it the time until `deadline`."""
        remaining_s = deadline - SYSTEM_CLOCK.monotonic()
        if remaining_s <= 0:
            msg = "timed out"
            raise TimeoutError(msg)
        self.settimeout(remaining_s)
        self._flush()

    def _feed(self, data: bytes) -> None:
        with self._guard:
            if data:
                self.heard = True
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _decrypted(self, size: int) -> bytes | None:
        """Return data that is there, b"" at the end, None when the network has to be asked."""
        data: bytes | None = None
        try:
            with self._guard:
                data = self._tls.read(size)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            self.fault = error
            raise
        if self._outgoing.pending:  # an answer of TLS itself
            with self._sending:
                self._flush()
        return data

    def _flush(self, flags: int = 0) -> None:
        """Send what is encrypted."""
        view = memoryview(self._outgoing.read())
        if self.send_limit_s is None:
            super().sendall(view, flags)
            return
        deadline = SYSTEM_CLOCK.monotonic() + self.send_limit_s
        while view:
            view = view[super().send(view, flags) :]
            if view and SYSTEM_CLOCK.monotonic() > deadline:
                raise BlockingIOError


def _first(buffers: "Iterable[Buffer]") -> bytes:
    """Return the beginning of `buffers` in one piece of bounded length."""
    pieces: list[memoryview] = []
    left = _SEND_BYTES
    for buffer in buffers:
        piece = memoryview(buffer)[:left]
        pieces.append(piece)
        left -= len(piece)
        if not left:
            break
    return b"".join(pieces)
