"""Files of a storage: durable when committed, in doubt until settled, swept after a crash."""

import errno
import hashlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from blake3 import blake3
from typing_extensions import override

from archive.errors import (
    ConfigurationError,
    InvalidValueError,
    ObjectUnreadableError,
    StorageError,
    StorageFullError,
)
from archive.model.digests import new_digest
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.base import IncomingFile
from archive.storage.directories import Names, device_of, file_system_of, names_on
from archive.storage.filesystem import FileStorage, root_of
from archive.storage.incoming import BUFFERED_BYTES
from archive.storage.long_files import LongWriter
from archive.storage.marks import INCOMING, claim_name
from archive.storage.part10 import FileMeta, encode_file_header
from archive.storage.sweeping import SweepReport
from archive.storage.syncs import Syncs
from archive.storage.verification import Thoroughness, verify_file
from tests.fix_objects import is_idle_mark, stored_files
from tests.fix_process import wait_until

TS = "1.2.840.10008.1.2.1"
HEADER = encode_file_header(FileMeta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", TS, "STORESCU"))
OBJECT = ObjectAttributes("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.4", "1.2.5", TS)


@dataclass(frozen=True)
class Descriptor:
    uri: str
    storage_id: str = "fs1"
    path_format: str = ""
    digest_algorithm: str | None = None
    check_mount_file: str | None = None
    read_only: bool = False


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    return FileStorage(Descriptor(f"file://{tmp_path}/fs1/"), tmp_path)


def store(storage: FileStorage, data: bytes = b"data set") -> StoredFile:
    incoming = storage.create(HEADER, TS)
    incoming.write(data)
    stored = incoming.commit(OBJECT)
    incoming.settle()
    return stored


def everything(storage: FileStorage) -> list[str]:
    return [str(path.relative_to(storage.root)) for path in stored_files(storage.root)]


def idle_marks(storage: FileStorage) -> list[Path]:
    return list(filter(is_idle_mark, (storage.root / INCOMING).iterdir()))


def nothing_known(_paths: Sequence[str]) -> set[str]:
    return set()


def test_a_stored_file(storage: FileStorage) -> None:
    incoming = storage.create(HEADER, TS)
    for piece in (b"data", memoryview(b" set")):
        incoming.write(piece)
    assert incoming.read(5, 99) == b"set"
    stored = incoming.commit(OBJECT)
    assert len(everything(storage)) == 2, "the file has its final name and is in doubt"
    incoming.settle()
    incoming.abort()
    assert everything(storage) == [stored.storage_path]
    assert stored.digest == f"blake3:{blake3(b'data set').hexdigest()}"
    assert (stored.dataset_offset, stored.object_size) == (len(HEADER), len(HEADER) + 8)
    with storage.open(stored.storage_path) as file:
        assert file.read() == HEADER + b"data set"
    storage.delete(stored.storage_path)
    storage.delete(stored.storage_path)
    assert everything(storage) == []


@pytest.mark.parametrize("when", ["empty", "written", "committed"])
def test_abort_leaves_nothing(storage: FileStorage, when: str) -> None:
    incoming = storage.create(HEADER, TS)
    if when != "empty":
        incoming.write(b"x")
    if when == "committed":
        incoming.commit(OBJECT)
    incoming.abort()
    incoming.abort()
    assert everything(storage) == []


@pytest.mark.parametrize("count", [1, 511, 512, 2000])
def test_many_small_pieces(storage: FileStorage, count: int) -> None:
    pieces = [bytes([number % 251]) * 3 for number in range(count)]
    incoming = storage.create(HEADER, TS)
    for piece in pieces:
        incoming.write(piece)
    assert incoming.read(1, 1) == pieces[0][1:2]
    assert incoming.read(3 * count - 2, 99) == b"".join(pieces)[-2:]
    stored = incoming.commit(OBJECT)
    incoming.settle()
    assert storage.local_path(stored.storage_path).read_bytes() == HEADER + b"".join(pieces)


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("count", [3, 5, 50, 100])
def test_a_long_object(storage: FileStorage, count: int, is_read: bool) -> None:
    pieces = [bytes([number]) * (BUFFERED_BYTES // 2 + 1) for number in range(count)]
    incoming = storage.create(HEADER, TS)
    for number, piece in enumerate(pieces):
        incoming.write(piece)
        if (number + 1) * len(piece) <= BUFFERED_BYTES:
            assert everything(storage) == []
    if count >= 50:  # more than there are blocks of memory
        assert len(everything(storage)) == 1
    assert incoming.read(5, 3) == pieces[0][:3]
    if is_read:
        data = b"".join(pieces)
        for start in (len(pieces[0]) - 1, BUFFERED_BYTES - 1, len(data) - 3):
            assert incoming.read(start, 99) == data[start : start + 99]
        assert len(everything(storage)) == 1
    stored = incoming.commit(OBJECT)
    incoming.settle()
    assert storage.local_path(stored.storage_path).read_bytes() == HEADER + b"".join(pieces)
    assert stored.digest == f"blake3:{blake3(b''.join(pieces)).hexdigest()}"
    verify_file(storage, stored, Thoroughness.CHECKSUM)


def test_a_long_object_that_is_given_up(storage: FileStorage) -> None:
    incoming = storage.create(HEADER, TS)
    for _ in range(3):
        incoming.write(bytes(BUFFERED_BYTES))
    incoming.abort()
    incoming.abort()
    assert everything(storage) == []
    assert not any(thread.name.startswith("storage-") for thread in threading.enumerate())


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 20 * BUFFERED_BYTES + 11])
@pytest.mark.parametrize("begin", [0, 1, 352, 4096])
def test_blocks_of_a_long_writer(tmp_path: Path, begin: int, size: int) -> None:
    header, data = os.urandom(begin), os.urandom(size)
    (tmp_path / "file").touch()
    digest = new_digest("blake3")
    writer = LongWriter(str(tmp_path / "file"), header, digest)
    for start in range(0, len(data), 70_001):
        writer.write(data[start : start + 70_001])
    writer.finish()
    assert (tmp_path / "file").read_bytes() == header + data
    assert digest.hexdigest() == blake3(data).hexdigest()


def test_file_system_of_a_device(tmp_path: Path) -> None:
    device = device_of(tmp_path)
    line = f"36 35 {device} /root /mnt rw,noatime master:1 - xfs /dev/root rw,errors=continue"
    other = f"36 35 0:{device} / / rw - ext4 /dev/x rw"
    assert file_system_of(device, f"{other}\n{line}\n") == "xfs"
    assert not file_system_of(device, other)
    assert names_on(Path("/proc")) is Names.ONE_BY_ONE


def test_a_taken_path_is_never_overwritten(storage: FileStorage) -> None:
    first, second, third = (store(storage, data) for data in (b"1", b"2", b"3"))
    assert len({first.storage_path, second.storage_path, third.storage_path}) == 3
    for stored, data in ((first, b"1"), (second, b"2"), (third, b"3")):
        assert storage.local_path(stored.storage_path).read_bytes().endswith(data)
        assert stored.storage_path.rpartition("/")[0] == first.storage_path.rpartition("/")[0]


def test_sweep_confirms_or_removes(storage: FileStorage) -> None:
    settled = store(storage, b"settled")
    orphan, known, temporary = (storage.create(HEADER, TS) for _ in range(3))
    orphan_path = orphan.commit(OBJECT).storage_path
    kept = known.commit(OBJECT)
    temporary.write(bytes(BUFFERED_BYTES + 1))
    assert storage.sweep(nothing_known, 0).removed == (), "the files have a living owner"
    for each in (orphan, known, temporary):
        each.leave()
    assert storage.sweep(nothing_known, 3600).removed == (), "the files are young"
    report = storage.sweep(lambda paths: {kept.storage_path} & set(paths), 0)
    assert report.confirmed == (kept.storage_path,)
    assert len(report.removed) == 2
    assert orphan_path in report.removed
    assert everything(storage) == sorted([settled.storage_path, kept.storage_path])
    assert storage.sweep(nothing_known, 0).removed == ()


@pytest.mark.parametrize("size", [1, BUFFERED_BYTES + 1])
def test_sweep_reports_a_known_file_that_is_gone(storage: FileStorage, size: int) -> None:
    incoming = storage.create(HEADER, TS)
    incoming.write(bytes(size))
    stored = incoming.commit(OBJECT)
    incoming.leave()
    storage.delete(stored.storage_path)
    assert storage.sweep(set, 0).missing == (stored.storage_path,)
    marks = everything(storage)
    assert len(marks) == (size > BUFFERED_BYTES), "only a mark that still has the bytes stays"


def test_a_mark_never_takes_the_file_of_another_process(storage: FileStorage) -> None:
    stale = storage.create(HEADER, TS)
    path = stale.commit(OBJECT).storage_path
    stale.leave()
    storage.delete(path)
    other = storage.create(HEADER, TS)
    assert other.commit(OBJECT).storage_path == path
    assert storage.sweep(nothing_known, 0) == SweepReport(), "it is in use"
    other.settle()
    assert storage.sweep(set, 0).confirmed == (path,)
    assert everything(storage) == [path]


def test_marks_of_an_older_version(storage: FileStorage) -> None:
    """Each is the file itself under a second name."""
    stored = store(storage)
    final = storage.local_path(stored.storage_path)
    orphan = final.with_name("ORPHAN")
    path = str(orphan.relative_to(storage.root))
    for file, marked in ((orphan, path), (final, stored.storage_path)):
        file.write_bytes(b"object")
        (storage.root / INCOMING / claim_name("77-ab", marked)).hardlink_to(file)
    taken = storage.root / INCOMING / claim_name("77-cd", stored.storage_path)
    taken.write_bytes(b"another object, whose path was taken")
    report = storage.sweep(lambda paths: {stored.storage_path} & set(paths), 0)
    assert report.removed == (path,)
    assert everything(storage) == [stored.storage_path]


def test_marks_are_used_again(storage: FileStorage) -> None:
    store(storage)
    (mark,) = idle_marks(storage)
    store(storage)
    assert idle_marks(storage) == [mark]
    assert storage.sweep(nothing_known, 0) == SweepReport()
    mark.unlink()
    store(storage)
    (other,) = idle_marks(storage)
    assert other != mark


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.integration.test_storage_filesystem import *
storage = FileStorage(Descriptor("file:fs1"), Path({directory!r}))
incoming = storage.create(HEADER, TS)
incoming.write(bytes(BUFFERED_BYTES + 1))
assert incoming.read(BUFFERED_BYTES, 1) == bytes(1), "all of it was written"
if {committed!r}:
    incoming.commit(OBJECT)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("committed", [False, True])
def test_files_of_a_living_process_are_left_alone(tmp_path: Path, committed: bool) -> None:
    storage = FileStorage(Descriptor("file:fs1"), tmp_path)
    root = str(Path(__file__).parents[2])
    code = CHILD.format(root=root, directory=str(tmp_path), committed=committed)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    before = everything(storage)
    assert storage.sweep(nothing_known, 0).removed == ()
    assert everything(storage) == before
    child.kill()
    child.communicate()
    wait_until(lambda: storage.sweep(nothing_known, 0).removed, what="the lock to go")
    assert everything(storage) == []


def fill(incoming: IncomingFile, size: int) -> None:
    for _ in range(size // 50_000 + 1):
        incoming.write(bytes(50_000))
    incoming.commit(OBJECT)


@pytest.mark.parametrize("size", [100_000, BUFFERED_BYTES + 1, 10 * BUFFERED_BYTES])
def test_full_disk(tmp_path: Path, size: int) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(mount)], check=False
    )
    if done.returncode != 0:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        storage = FileStorage(Descriptor(f"file:{mount}"), tmp_path)
        incoming = storage.create(HEADER, TS)
        with pytest.raises(StorageFullError, match="fs1"):
            fill(incoming, size)
        incoming.abort()
        assert everything(storage) == []
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)  # marks are kept open


def test_not_mounted_and_read_only(tmp_path: Path) -> None:
    (tmp_path / "fs1").mkdir()
    storage = FileStorage(Descriptor("file:fs1", check_mount_file="NO_MOUNT"), tmp_path)
    store(storage)
    (tmp_path / "fs1" / "NO_MOUNT").touch()
    with pytest.raises(StorageError, match="not mounted"):
        storage.create(HEADER, TS)
    with pytest.raises(StorageError, match="read-only"):
        FileStorage(Descriptor("file:fs1", read_only=True), tmp_path).create(HEADER, TS)


def test_unreadable_and_escaping_paths(storage: FileStorage) -> None:
    with pytest.raises(ObjectUnreadableError, match="nowhere"):
        storage.open("nowhere")
    for path in ("../x", "/etc/passwd", ".incoming/x"):
        with pytest.raises(InvalidValueError):
            storage.local_path(path)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("file:///srv/dicom/", "/srv/dicom"),
        ("file:/srv/dicom", "/srv/dicom"),
        ("file://localhost/srv/a%20b", "/srv/a b"),
        ("file:fs1", "/data/fs1"),
        ("file:a/b/", "/data/a/b"),
    ],
)
def test_uris(uri: str, wanted: str) -> None:
    assert root_of(uri, Path("/data")) == Path(wanted)


@pytest.mark.parametrize("uri", ["s3:bucket", "file:", "file://host/x", "file:${x}/y", "/srv"])
def test_impossible_uris(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        root_of(uri, Path("/data"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("MD5", hashlib.md5(b"data", usedforsecurity=False).hexdigest()),
        ("SHA-1", hashlib.sha1(b"data", usedforsecurity=False).hexdigest()),
        ("SHA-256", hashlib.sha256(b"data").hexdigest()),
        ("SHA-384", hashlib.sha384(b"data").hexdigest()),
        ("SHA-512", hashlib.sha512(b"data").hexdigest()),
        ("blake3", blake3(b"data").hexdigest()),
        (None, blake3(b"data").hexdigest()),
    ],
)
def test_digests(tmp_path: Path, name: str | None, wanted: str) -> None:
    storage = FileStorage(Descriptor("file:fs1", digest_algorithm=name), tmp_path)
    stored = store(storage, b"data")
    algorithm, _, digits = stored.digest.partition(":")
    assert algorithm == (name or "blake3").lower().replace("-", "")
    assert digits == wanted
    verify_file(storage, stored, Thoroughness.CHECKSUM)
    storage.local_path(stored.storage_path).write_bytes(HEADER + b"Data")
    with pytest.raises(ObjectUnreadableError, match=algorithm):
        verify_file(storage, stored, Thoroughness.CHECKSUM)
    with pytest.raises(ConfigurationError, match="CRC"):
        FileStorage(Descriptor("file:fs1", digest_algorithm="CRC"), tmp_path)


def test_synced_by_the_kernel(storage: FileStorage) -> None:
    syncs = Syncs()
    assert syncs.descriptor is not None
    syncs.progress()
    files = [storage.create(HEADER, TS) for _ in range(5)]
    for each in files:
        each.write(bytes(100_000))
        each.place(OBJECT)
        each.begin_sync(syncs)
    ready = select.poll()
    ready.register(syncs.descriptor, select.POLLIN)
    while any(each.is_syncing for each in files):
        ready.poll()
        syncs.progress()
    for each in files:
        each.sync()
        each.settle()
    assert len(everything(storage)) == 5


def test_an_error_of_the_kernel_is_not_forgotten(storage: FileStorage) -> None:
    """The kernel tells it once: another fsync of the same file would succeed."""

    class Failing(Syncs):
        @override
        def begin(self, descriptor: int, done: Callable[[int], None]) -> bool:
            done(errno.EIO)
            return False

    incoming = storage.create(HEADER, TS)
    incoming.write(b"x")
    incoming.place(OBJECT)
    incoming.begin_sync(Failing())
    for _ in range(2):
        with pytest.raises(StorageError, match="Input/output error"):
            incoming.sync()
    incoming.abort()
    assert everything(storage) == []


def test_an_error_of_fsync_is_not_forgotten(storage: FileStorage) -> None:
    incoming = storage.create(HEADER, TS)
    incoming.write(b"x")
    path = storage.local_path(incoming.place(OBJECT).storage_path)
    opened = {each.path: each.fd for each in psutil.Process().open_files()}
    descriptor = opened[str(path.resolve())]
    kept, unfit = os.dup(descriptor), os.open("/dev/null", os.O_WRONLY)
    os.dup2(unfit, descriptor)
    with pytest.raises(StorageError, match="make the file durable"):
        incoming.sync()
    os.dup2(kept, descriptor)
    with pytest.raises(StorageError, match="make the file durable"):
        incoming.sync()
    os.close(kept)
    os.close(unfit)
    incoming.abort()
    assert everything(storage) == []


def test_what_the_kernel_does_not_sync() -> None:
    errors: list[int] = []
    syncs = Syncs()
    assert syncs.begin(os.eventfd(0), errors.append) is False, "it knows no fsync"
    assert syncs.begin(-1 & 0xFFFF, errors.append) is False, "not open"
    assert errors == []


@pytest.mark.parametrize("refusal", [NotImplementedError, OverflowError, SystemError])
def test_a_kernel_that_refuses(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch, refusal: type[Exception]
) -> None:
    """A container may forbid the call, other processes may have taken all there is of it."""

    def refuse(_count: int) -> None:
        raise refusal

    monkeypatch.setattr("archive.storage.syncs.linux_aio.Context", refuse)
    syncs = Syncs()
    assert syncs.descriptor is None
    incoming = storage.create(HEADER, TS)
    incoming.place(OBJECT)
    incoming.begin_sync(syncs)
    assert not incoming.is_syncing
    incoming.sync()
    incoming.settle()
    syncs.progress()
    assert len(everything(storage)) == 1
