"""Objects of several buffers: sent from the file by the kernel, unchanged to the last byte."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.errors import ObjectUnreadableError
from archive.model.coerced_object import Spliced
from archive.model.task import TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, remote_ae
from tests.fix_objects import encoded_dataset, secondary_capture, write
from tests.fix_raw_peer import RawConnection, RawPeer, store_response
from workers.association import Association
from workers.contexts import ProposedContext
from workers.route import Route, TimeLimits
from workers.sending import StoreLoop, StoreRequest

STUDY = "1.2.826.0.1.9.77"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
PDV_HEAD = 6
StartRawPeer = Callable[..., RawPeer]


@pytest.mark.parametrize("max_pdu", [4096, 16384, 131072])
def test_every_byte_arrives(bench: ExportBench, dcmtk: Dcmtk, tmp_path: Path, max_pdu: int) -> None:
    dataset = secondary_capture(STUDY, 1, 1, size=1024)
    dataset.PixelData = os.urandom(1024 * 1024)
    path = write(dataset, tmp_path / "large.dcm")
    bench.store(path)
    peer = dcmtk.storescp("--bit-preserving", "--max-pdu", str(max_pdu))
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    outcome = bench.perform(bench.export_task(STUDY))
    assert outcome.status is TaskStatus.COMPLETED
    (received,) = peer.received().values()
    assert encoded_dataset(received) == encoded_dataset(path)


class Collecting:
    """A script that keeps the data set of a C-STORE and answers it."""

    def __init__(self) -> None:
        self.dataset = b""

    def __call__(self, connection: RawConnection) -> None:
        connection.accept()
        bodies = connection.read_message()
        parts = [body[PDV_HEAD:] for body in bodies if not body[PDV_HEAD - 1] & 1]
        self.dataset = b"".join(parts)
        connection.sock.sendall(store_response(1))
        connection.hold()


def send(port: int, source: object, length: int) -> int:
    """Send one data set and return the status of its response."""
    route = Route(
        "DEST", "DICOMQ", "DEST", "127.0.0.1", port, TimeLimits(response_s=5.0, release_s=0.1)
    )
    with (
        Association(route, [ProposedContext(CT, (EXPLICIT,))]) as association,
        association.exclusive_socket() as sock,
    ):
        loop = StoreLoop(association, sock)
        return loop.send(StoreRequest(1, CT, "1.2.3", length), source).status  # type: ignore[arg-type] # sources of several types


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 262_145, 300_000])
def test_a_new_header_is_followed_by_the_file(
    raw_peer: StartRawPeer, tmp_path: Path, size: int
) -> None:
    header, rest = os.urandom(1000), os.urandom(size)
    path = tmp_path / "rest"
    path.write_bytes(b"old header" + rest)
    script = Collecting()
    peer = raw_peer(script)
    with path.open("rb") as file:
        file.seek(len(b"old header"))
        assert send(peer.port, Spliced(header, file), len(header) + size) == 0
    assert script.dataset == header + rest + b"\0" * (size % 2)


def test_a_file_that_ends_early_is_our_fault(raw_peer: StartRawPeer, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(1 << 20))
    peer = raw_peer(Collecting())
    with path.open("rb") as file, pytest.raises(ObjectUnreadableError, match="ends before the"):
        send(peer.port, file, 2 << 20)
