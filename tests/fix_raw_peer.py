"""A scripted DICOM peer over a bare socket, for what no well-behaved library does."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

Script = Callable[["RawConnection"], None]

RECEIVE_LIMIT_S = 20.0


def pdu(kind: int, body: bytes) -> bytes:
    """Return a PDU with its header (PS3.8 §9.3.1)."""
    return struct.pack(">BxL", kind, len(body)) + body


def store_response(
    message_id: int = 1,
    status: int = 0,
    *,
    command_field: int = 0x8001,
    sop_instance_uid: str = "",
    context_id: int = 1,
) -> bytes:
    """Return a P-DATA-TF with a C-STORE-RSP."""
    elements = [
        _element(0x0100, command_field.to_bytes(2, "little")),
        _element(0x0120, message_id.to_bytes(2, "little")),
        _element(0x0800, (0x0101).to_bytes(2, "little")),
        _element(0x0900, status.to_bytes(2, "little")),
    ]
    if sop_instance_uid:
        uid = sop_instance_uid.encode()
        elements.append(_element(0x1000, uid + b"\0" * (len(uid) % 2)))
    return p_data(b"".join(elements), context_id=context_id)


def p_data(value: bytes, *, context_id: int = 1, control: int = 3) -> bytes:
    """Return a P-DATA-TF with one PDV; `control` 3 is the last fragment of a command."""
    return pdu(4, struct.pack(">LBB", len(value) + 2, context_id, control) + value)


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


@dataclass
class RawConnection:
    """One accepted connection."""

    sock: socket.socket
    max_pdu: int = 16384

    def read_pdu(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU."""
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def read_message(self) -> list[bytes]:
        """Read P-DATA-TF PDUs to the end of a data set and return their bodies."""
        bodies: list[bytes] = []
        while True:
            kind, body = self.read_pdu()
            if kind != 4:
                msg = f"PDU of type {kind}"
                raise ConnectionError(msg)
            bodies.append(body)
            if body[5] == 2:  # last fragment of a data set
                return bodies

    def accept(self) -> None:
        """Answer an A-ASSOCIATE-RQ: every context accepted with its first transfer syntax."""
        kind, body = self.read_pdu()
        assert kind == 1
        user = struct.pack(">BxHBxHL", 0x50, 8, 0x51, 4, self.max_pdu)
        answer = body[:68] + _item(0x10, b"1.2.840.10008.3.1.1.1") + _contexts(body[68:]) + user
        self.sock.sendall(pdu(2, answer))

    def hold(self) -> None:
        """Stay silent until the other side closes."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            piece = self.sock.recv(size - len(received))
            if not piece:
                msg = "closed by the other side"
                raise ConnectionError(msg)
            received += piece
        return received


def _contexts(items: bytes) -> bytes:
    """Return the presentation context items of an A-ASSOCIATE-AC for those of a request."""
    answer = b""
    position = 0
    while position < len(items):
        kind, length = struct.unpack_from(">BxH", items, position)
        body = items[position + 4 : position + 4 + length]
        position += 4 + length
        if kind == 0x20:
            abstract_length = struct.unpack_from(">H", body, 6)[0]
            start = 8 + abstract_length
            syntax_length = struct.unpack_from(">H", body, start + 2)[0]
            syntax = body[start + 4 : start + 4 + syntax_length]
            answer += _item(0x21, bytes([body[0], 0, 0, 0]) + _item(0x40, syntax))
    return answer


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


@dataclass
class RawPeer:
    """Plays one script per accepted connection, the last one again and again."""

    port: int
    connections: int = 0
    errors: list[Exception] = field(default_factory=list)


@pytest.fixture
def raw_peer() -> Iterator[Callable[..., RawPeer]]:
    """Start scripted peers: ``raw_peer(first_script, second_script, ...)``."""
    with contextlib.ExitStack() as stack:

        def start(*scripts: Script) -> RawPeer:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            peer = RawPeer(listener.getsockname()[1])
            thread = threading.Thread(target=_accept, args=(listener, scripts, peer))
            thread.start()
            stack.callback(thread.join, RECEIVE_LIMIT_S)
            stack.callback(_close, listener)
            return peer

        yield start


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, scripts: tuple[Script, ...], peer: RawPeer) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            script = scripts[min(peer.connections, len(scripts) - 1)]
            peer.connections += 1
            sock.settimeout(RECEIVE_LIMIT_S)
            with sock:
                _play(script, sock, peer)


def _play(script: Script, sock: socket.socket, peer: RawPeer) -> None:
    try:
        script(RawConnection(sock))
    except (OSError, AssertionError) as error:
        peer.errors.append(error)
