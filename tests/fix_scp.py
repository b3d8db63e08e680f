"""A running SCP process on a fresh ledger, and a peer that says exactly what a test tells it."""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Self

import psutil
import pytest

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger.connection import Ledger
from scp.dimse import CommandElement, decode_command
from scp.pdus import PduType, encode_command, encode_fragment
from tests.fix_objects import stored_files
from tests.fix_process import RunningProcess, free_port, start_process, wait_until
from tests.fix_system import ARCHIVE, port_change

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

Contexts = Mapping[int, tuple[str, Sequence[str]]]
STORAGE_CONTEXTS: Contexts = {
    1: (SECONDARY_CAPTURE, [EXPLICIT]),
    3: (CT, [EXPLICIT]),
    5: (VERIFICATION, [IMPLICIT]),
}


@dataclass
class StoreReply:
    """A C-STORE-RSP."""

    status: int
    comment: str
    message_id: int


@dataclass
class RawPeer:
    """A requestor that writes PDUs as told, right or wrong (PS3.8 §9.3)."""

    port: int
    timeout_s: float = 20.0
    sock: socket.socket = field(init=False)
    message_id: int = 0
    max_length: int = 16384

    def __post_init__(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU, (0, b"") when the connection is closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def associate(
        self,
        contexts: Contexts = STORAGE_CONTEXTS,
        *,
        calling_aet: str = "RAWPEER",
        called_aet: str = "DCM4CHEE",
    ) -> dict[int, tuple[int, str]]:
        """Request an association and return result and transfer syntax by context ID."""
        self.send(associate_request(contexts, calling_aet, called_aet))
        kind, body = self.receive()
        if kind != PduType.A_ASSOCIATE_AC:
            msg = f"PDU {kind:02X} {body.hex()} instead of an A-ASSOCIATE-AC"
            raise ConnectionError(msg)
        self.max_length = _max_length(body) or 1 << 20
        return dict(_results(body))

    def begin_store(
        self, sop_uid: str, *, context_id: int = 1, sop_class: str | None = None
    ) -> None:
        """Send the command of a C-STORE."""
        self.message_id += 1
        sop_class = sop_class or STORAGE_CONTEXTS[context_id][0]
        command = store_command(self.message_id, sop_class, sop_uid)
        self.send(encode_command(context_id, command))

    def store(
        self,
        sop_uid: str,
        dataset: bytes,
        *,
        context_id: int = 1,
        sop_class: str | None = None,
        step: int = 16000,
    ) -> StoreReply:
        """Send an object in fragments of `step` bytes and return the response."""
        self.begin_store(sop_uid, context_id=context_id, sop_class=sop_class)
        for start in range(0, len(dataset) or 1, step):
            piece = dataset[start : start + step]
            is_last = start + step >= len(dataset)
            self.send(encode_fragment(context_id, piece, control=2 if is_last else 0))
        return self.reply()

    def reply(self) -> StoreReply:
        """Return the next C-STORE-RSP."""
        kind, body = self.receive()
        if kind != PduType.P_DATA_TF:
            msg = f"PDU {kind:02X} {body.hex()} instead of a response"
            raise ConnectionError(msg)
        elements = decode_command(body[6:]).elements
        return StoreReply(
            status=int.from_bytes(elements[CommandElement.STATUS], "little"),
            comment=elements.get(CommandElement.ERROR_COMMENT, b"").decode().strip(),
            message_id=int.from_bytes(
                elements[CommandElement.MESSAGE_ID_BEING_RESPONDED_TO], "little"
            ),
        )

    def release(self) -> None:
        """Release the association (PS3.8 §9.3.6)."""
        self.send(struct.pack(">BxLL", PduType.A_RELEASE_RQ, 4, 0))
        kind, _ = self.receive()
        assert kind == PduType.A_RELEASE_RP

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                part = self.sock.recv(size - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                return data
            data += part
        return data


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def associate_request(contexts: Contexts, calling_aet: str, called_aet: str) -> bytes:
    """Return an A-ASSOCIATE-RQ PDU (PS3.8 §9.3.2)."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for context_id, (abstract, transfers) in contexts.items():
        value = struct.pack(">BxBx", context_id, 0) + _item(0x30, abstract.encode())
        value += b"".join(_item(0x40, each.encode()) for each in transfers)
        items.append(_item(0x20, value))
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4")
    items.append(_item(0x50, user))
    body = struct.pack(
        ">H2x16s16s32x", 1, *(each.encode().ljust(16) for each in (called_aet, calling_aet))
    )
    body += b"".join(items)
    return struct.pack(">BxL", PduType.A_ASSOCIATE_RQ, len(body)) + body


def _max_length(body: bytes) -> int:
    """Return the Maximum Length that an A-ASSOCIATE-AC offers, 0 for no limit (PS3.8 §D.1)."""
    position = body.index(b"\x51\x00\x00\x04")
    return int.from_bytes(body[position + 4 : position + 8], "big")


def _results(body: bytes) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield context ID, result and transfer syntax from the body of an A-ASSOCIATE-AC."""
    position = 68
    while position < len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        value = body[position + 4 : position + 4 + length]
        if kind == 0x21:
            yield value[0], (value[2], value[8:].decode())
        position += 4 + length


def store_command(message_id: int, sop_class: str, sop_uid: str, *, has_data: bool = True) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 §9.3.1.1)."""
    elements = [
        (0x0002, _even(sop_class)),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0 if has_data else 0x0101)),
        (0x1000, _even(sop_uid)),
    ]
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _even(text: str) -> bytes:
    value = text.encode("latin-1")
    return value + b"\0" if len(value) % 2 else value


def element(tag: int, vr: str, value: bytes | str) -> bytes:
    """Return an element in Explicit VR Little Endian with a short or long length."""
    data = value.encode() if isinstance(value, str) else value
    data += (b"\0" if vr in {"UI", "OB"} else b" ") * (len(data) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in {"OB", "OW", "SQ", "UN", "UT"}:
        return head + struct.pack("<2xL", len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def small_dataset(
    sop_uid: str,
    *,
    study: str | None = "1.2.3.4",
    series: str | None = "1.2.3.4.1",
    sop_class: str = SECONDARY_CAPTURE,
    pixels: int = 256,
) -> bytes:
    """Return an encoded object, Explicit VR Little Endian; None leaves a UID out."""
    elements = [element(0x00080016, "UI", sop_class), element(0x00080018, "UI", sop_uid)]
    elements += [element(0x00080060, "CS", "OT"), element(0x00100010, "PN", "Raw^Peer")]
    elements += [element(0x00100020, "LO", "RAW1")]
    elements += [element(0x0020000D, "UI", study)] if study is not None else []
    elements += [element(0x0020000E, "UI", series)] if series is not None else []
    elements += [element(0x7FE00010, "OB", bytes(pixels))] if pixels else []
    return b"".join(elements)


@dataclass
class Site:
    """A configured directory and ledger with SCP processes.

    Attributes
    ----------
    environment
        Variables with which the processes are started, to be added to.
    """

    data: Path
    ledger: Ledger
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    processes: list[RunningProcess] = field(default_factory=list)

    def configure(self, *ldif: str) -> None:
        """Apply change records to the directory."""
        target = EmbeddedDirectory(self.data / "directory.ldif")
        for text in ldif:
            for record in parse_ldif(dedent(text).encode()).records:
                target.apply(record)

    def modify(self, dn: str, **attributes: str) -> None:
        """Replace attributes of an entry."""
        lines = [f"dn: {dn}", "changetype: modify"]
        for name, value in attributes.items():
            lines += [f"replace: {name}", f"{name}: {value}", "-"]
        self.configure("\n".join([*lines, ""]))

    def start(self, **environment: str) -> RunningProcess:
        """Start another SCP process on the port and wait until it listens."""
        log = self.data.parent / f"scp-{len(self.processes)}.log"
        process = start_process(
            [sys.executable, "-m", "scp"], log=log, env={**self.environment, **environment}
        )
        self.processes.append(process)
        wait_until(partial(_listening, process), what="scp.listening")
        return process

    def peer(self) -> RawPeer:
        """Connect a raw peer."""
        return RawPeer(self.port)

    def files(self) -> list[Path]:
        """Return every file on the storage, in-doubt and temporary ones included."""
        return stored_files(self.data / "fs1")

    def log(self) -> str:
        """Return what all processes have said."""
        return "".join(process.output() for process in self.processes)

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self.ledger.statement() as tx:
            row = tx.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608
        return int(row[0]) if row else 0

    def resident_bytes(self) -> int:
        """Return the resident memory of the first process."""
        return int(psutil.Process(self.processes[0].pid).memory_info().rss)

    def thread_count(self) -> int:
        """Return the number of threads of the first process."""
        return int(psutil.Process(self.processes[0].pid).num_threads())

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.kill()


def _listening(process: RunningProcess) -> bool:
    if not process.is_alive():
        msg = f"scp ended with {process.popen.returncode}:\n{process.output()}"
        raise RuntimeError(msg)
    return "scp.listening" in process.output()


@pytest.fixture
def site(tmp_path: Path, ledger_url: str) -> Iterator[Site]:
    """The default directory on a free port with a fresh ledger; no process runs yet."""
    data = tmp_path / "data"
    data.mkdir()
    EmbeddedDirectory(data / "directory.ldif").create(default_entries())
    environment = {"DATABASE_URL": ledger_url, "DICOMQ_DATA": str(data)}
    with contextlib.closing(Ledger(ledger_url, max_connections=2)) as ledger:
        place = Site(data, ledger, environment)
        place.configure(port_change(f"cn=dicom,{ARCHIVE}", place.port))
        yield place
        place.stop()


@pytest.fixture
def scp(site: Site) -> Site:
    """A site with one running SCP process."""
    site.start()
    return site
