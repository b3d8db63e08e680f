"""The least that a durable receiver in Python does: read, write a file, flush it, commit a row.

``python -m benchmarks.floor PORT DIRECTORY DATABASE_URL`` takes C-STOREs of CT images in Explicit
VR Little Endian and believes everything it is sent: nothing is checked, decoded, indexed, hashed
or logged, and a crash leaves behind whatever it likes. Each association has a thread, and a
connection to PostgreSQL that another one used before it.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
from pathlib import Path

import psycopg
from psycopg import errors, pq

from scp.dimse import StoreAnswer, decode_command, encode_store_response, store_request
from scp.pdus import PduType, encode_command
from tests.fix_scp import EXPLICIT

MAX_LENGTH = 131072
_HEADERS = 12
_INSERT = b"INSERT INTO floor (sop, size) VALUES ($1, $2)"


def accepted(request: bytes) -> bytes:
    """Return the A-ASSOCIATE-AC that accepts presentation context 1 (PS3.8 §9.3.3)."""
    syntax = _item(0x40, EXPLICIT.encode())
    user = _item(0x51, struct.pack(">L", MAX_LENGTH))
    items = (
        _item(0x10, b"1.2.840.10008.3.1.1.1"),
        _item(0x21, b"\1\0\0\0" + syntax),
        _item(0x50, user),
    )
    body = b"".join((request[:68], *items))
    return struct.pack(">BBL", PduType.A_ASSOCIATE_AC, 0, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


class Database:
    """Connections that nobody uses."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.idle: list[pq.abc.PGconn] = []

    def take(self) -> pq.abc.PGconn:
        """Return a connection on which the statement is prepared."""
        try:
            return self.idle.pop()
        except IndexError:
            connection = pq.PGconn.connect(self._url.encode())
            connection.prepare(b"floor", _INSERT)
            return connection


class Receiver:
    """Serves one association."""

    def __init__(self, sock: socket.socket, directory: str, database: "Database") -> None:
        self._sock = sock
        self._directory = directory
        self._database = database
        self._connection = database.take()
        self._view = memoryview(bytearray(MAX_LENGTH + _HEADERS))

    def serve(self) -> None:
        """Receive objects until the peer releases the association or goes."""
        with self._sock, contextlib.closing(self):
            while (pdu := self._next()) is not None:
                if pdu[0] == PduType.A_ASSOCIATE_RQ:
                    self._sock.sendall(accepted(bytes(pdu[6:])))
                elif pdu[0] == PduType.P_DATA_TF:
                    self._receive(bytes(pdu[_HEADERS:]))
                else:
                    self._sock.sendall(struct.pack(">BBLL", PduType.A_RELEASE_RP, 0, 4, 0))
                    return

    def close(self) -> None:
        """Leave the connection to another association."""
        self._database.idle.append(self._connection)

    def _receive(self, command: bytes) -> None:
        """Receive the object that a C-STORE-RQ announces, and answer."""
        request = store_request(decode_command(command), 1)
        path = f"{self._directory}/{request.sop_instance_uid}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        size = 0
        while (pdu := self._next()) is not None:
            size += os.write(descriptor, pdu[_HEADERS:])
            if pdu[_HEADERS - 1] & 2:
                break
        os.fdatasync(descriptor)
        os.close(descriptor)
        values = [request.sop_instance_uid.encode(), b"%d" % size]
        result = self._connection.exec_prepared(b"floor", values)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)
        self._sock.sendall(encode_command(1, encode_store_response(request, StoreAnswer(0))))

    def _next(self) -> memoryview | None:
        """Return the next PDU, valid until the one after it; None at the end."""
        if not self._fill(0, 6):
            return None
        (length,) = struct.unpack_from(">L", self._view, 2)
        return self._view[: 6 + length] if self._fill(6, 6 + length) else None

    def _fill(self, start: int, end: int) -> bool:
        while start < end:
            count = self._sock.recv_into(self._view[start:end])
            if count == 0:
                return False
            start += count
        return True


def main() -> None:
    """Serve for ever."""
    port, directory, url = sys.argv[1:]
    Path(directory).mkdir(exist_ok=True)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (sop text PRIMARY KEY, size bigint)")
    database = Database(url)
    with socket.create_server(("127.0.0.1", int(port)), backlog=64) as server:
        while True:
            sock, _ = server.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            receiver = Receiver(sock, directory, database)
            threading.Thread(target=receiver.serve, daemon=True).start()


if __name__ == "__main__":
    main()
