"""Objects of a bucket: confirmed by the server when committed, in doubt until settled."""

import dataclasses
import hashlib
import io
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from archive.configuration.descriptors import Storage
from archive.errors import ConfigurationError, ObjectUnreadableError, StorageError
from archive.model.entities import ObjectAttributes, StoredFile
from archive.storage.part10 import FileMeta, encode_file_header
from archive.storage.s3 import S3Storage
from archive.storage.s3_incoming import PART_BYTES
from archive.storage.verification import Thoroughness, verify_file
from tests.fix_proxy import Proxy, to_port
from tests.fix_s3 import S3Server

ANY_AGE_S = -2.0  # the server tells times in whole seconds, a new object may be of the next one
TS = "1.2.840.10008.1.2.1"
HEADER = encode_file_header(FileMeta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", TS, "STORESCU"))
OBJECT = ObjectAttributes("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.4", "1.2.5", TS)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A part of the bucket that no other test uses."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def storage(s3_server: S3Server, prefix: str, tmp_path: Path) -> S3Storage:
    return S3Storage(s3_server.descriptor(prefix), tmp_path)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """A way to the server that can be cut."""
    made = Proxy(to_port(s3_server.ports["proxy"]))
    yield made
    made.close()


def store(storage: S3Storage, data: bytes = b"data set") -> StoredFile:
    incoming = storage.create(HEADER, TS)
    incoming.write(data)
    try:
        stored = incoming.commit(OBJECT)
        incoming.settle()
    finally:
        incoming.abort()
    return stored


def nothing_known(_paths: Sequence[str]) -> set[str]:
    return set()


def test_a_stored_object(storage: S3Storage, s3_server: S3Server, prefix: str) -> None:
    incoming = storage.create(HEADER, TS)
    for piece in (b"data", memoryview(b" set")):
        incoming.write(piece)
    assert incoming.read(5, 99) == b"set"
    assert s3_server.keys(prefix) == [], "nothing is visible while it arrives"
    stored = incoming.commit(OBJECT)
    assert len(s3_server.keys(prefix)) == 2, "the object has its final key and is in doubt"
    incoming.settle()
    incoming.abort()
    assert s3_server.keys(prefix) == [f"{prefix}/{stored.storage_path}"]
    assert stored.digest == f"blake3:{blake3(b'data set').hexdigest()}"
    assert (stored.dataset_offset, stored.object_size) == (len(HEADER), len(HEADER) + 8)
    with storage.open(stored.storage_path) as file:
        assert file.read() == HEADER + b"data set"
    assert storage.local_path(stored.storage_path) is None
    verify_file(storage, stored, Thoroughness.CHECKSUM)
    storage.delete(stored.storage_path)
    storage.delete(stored.storage_path)
    assert s3_server.keys(prefix) == []


def test_the_same_object_again_never_takes_the_key_of_the_first(storage: S3Storage) -> None:
    first, second = store(storage, b"one"), store(storage, b"two")
    assert first.storage_path != second.storage_path
    with storage.open(first.storage_path) as file:
        assert file.read().endswith(b"one")


def test_a_large_object_is_never_whole_in_memory(storage: S3Storage) -> None:
    piece, pieces = bytes(range(256)) * 4096, 40
    incoming = storage.create(HEADER, TS)
    tracemalloc.start()
    for _ in range(pieces):
        incoming.write(piece)
    stored = incoming.commit(OBJECT)
    with storage.open(stored.storage_path) as file:
        buffer = bytearray(1 << 18)
        while file.readinto(buffer):  # type: ignore[attr-defined] # it is a raw stream
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * PART_BYTES < stored.object_size
    incoming.settle()
    assert stored.object_size == len(HEADER) + len(piece) * pieces
    verify_file(storage, stored, Thoroughness.CHECKSUM)


def test_reading_goes_anywhere(storage: S3Storage) -> None:
    data = bytes(range(256)) * 1000
    stored = store(storage, data)
    begin = len(HEADER)
    with storage.open(stored.storage_path) as file:
        assert file.seek(0, io.SEEK_END) == stored.object_size
        assert file.read(1) == b""
        for offset in (0, 10, 200_000, 100, 255_990):
            file.seek(begin + offset)
            assert file.read(20) == data[offset : offset + 20]
        assert file.tell() == stored.object_size


def test_an_aborted_object_leaves_nothing(
    storage: S3Storage, s3_server: S3Server, prefix: str
) -> None:
    incoming = storage.create(HEADER, TS)
    incoming.commit(OBJECT)
    incoming.abort()
    incoming.abort()
    assert s3_server.keys(prefix) == []


def test_a_sweep_removes_what_has_no_row_and_keeps_the_rest(
    s3_server: S3Server, prefix: str, tmp_path: Path
) -> None:
    storage = S3Storage(s3_server.descriptor(prefix), tmp_path, ownerless_age_s=ANY_AGE_S)
    kept, lost, gone = (storage.create(HEADER, TS) for _ in range(3))
    with_row = kept.commit(OBJECT).storage_path
    without_row = lost.commit(OBJECT).storage_path
    missing = gone.commit(OBJECT).storage_path
    for incoming in (kept, lost, gone):
        incoming.leave()
    storage.delete(missing)
    client = s3_server.client()
    client.create_multipart_upload(Bucket="dicom", Key=f"{prefix}/half")

    young = S3Storage(s3_server.descriptor(prefix), tmp_path)
    assert young.sweep(nothing_known, 0.0).removed == (), "another process may be at it"

    report = storage.sweep(lambda _: {with_row, missing}, ANY_AGE_S)
    assert set(report.removed) == {without_row, f"{prefix}/half"}
    assert report.confirmed == (with_row,)
    assert report.missing == (missing,)
    assert [key for key in s3_server.keys(prefix) if ".incoming" not in key] == [
        f"{prefix}/{with_row}"
    ]
    assert storage.sweep(lambda _: {missing}, 0.0).removed == ()


@pytest.mark.parametrize(
    "changes",
    [{"identity": "nobody:here", "credential": "wrong-secret"}, {"credential": "wrong-secret"}],
)
def test_a_refusal_names_the_remedy_and_no_secret(
    s3_server: S3Server,
    prefix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str],
) -> None:
    caplog.set_level(logging.DEBUG)
    storage = S3Storage(s3_server.descriptor(prefix, **changes), tmp_path)
    with pytest.raises(StorageError, match="correct the identity or the credential") as caught:
        store(storage)
    assert "wrong-secret" not in f"{caught.value!r}{caplog.text}"
    assert caught.value.retryable


def test_a_missing_object_or_bucket(
    storage: S3Storage, s3_server: S3Server, tmp_path: Path
) -> None:
    with pytest.raises(ObjectUnreadableError, match="NoSuchKey"):
        storage.open("no/such/object")
    entry = s3_server.descriptor("x")
    nowhere = S3Storage(_moved(entry, "s3://nowhere"), tmp_path)
    with pytest.raises(StorageError, match="create the bucket, or correct dcmURI") as caught:
        store(nowhere)
    assert not isinstance(caught.value, ObjectUnreadableError)


def test_a_server_that_is_gone_or_silent(
    s3_server: S3Server, prefix: str, proxy: Proxy, tmp_path: Path
) -> None:
    entry = s3_server.descriptor(prefix, f"http://127.0.0.1:{proxy.port}", timeout="0.3")
    storage = S3Storage(entry, tmp_path)
    stored = store(storage)
    for fail in (proxy.cut, proxy.freeze):
        fail()
        incoming = storage.create(HEADER, TS)
        with pytest.raises(StorageError, match="it will be tried again") as caught:
            incoming.commit(OBJECT)
        assert caught.value.retryable
        incoming.abort()
        with pytest.raises(StorageError):
            storage.open(stored.storage_path)
        proxy.cut()
        proxy.mend()
    verify_file(storage, stored, Thoroughness.CHECKSUM)


def test_reading_goes_on_where_the_connection_broke(
    s3_server: S3Server, prefix: str, proxy: Proxy, tmp_path: Path
) -> None:
    data = bytes(range(250)) * 80_000
    entry = s3_server.descriptor(prefix, f"http://127.0.0.1:{proxy.port}")
    storage = S3Storage(entry, tmp_path)
    stored = store(storage, data)
    with storage.open(stored.storage_path) as file:
        first = file.read(1000)
        proxy.cut()
        proxy.mend()
        assert first + file.read() == HEADER + data


@pytest.mark.parametrize(
    ("uri", "properties", "words"),
    [
        ("s3:bucket", {}, "not a usable s3: URI"),
        ("s3:///prefix", {}, "not a usable s3: URI"),
        ("s3://b/../x", {}, "unusable part"),
        ("s3://b", {"endpiont": "x"}, "endpiont is none of"),
        ("s3://b", {"endpoint": "minio:9000"}, "endpoint is no URL"),
        ("s3://b", {"endpoint": "http://me:secret@minio"}, "endpoint is no URL"),
        ("s3://b", {"identity": "x"}, "identity and credential go together"),
        ("s3://b", {"timeout": "never"}, "no time of up to 300 seconds"),
        ("s3://b", {"addressing": "host"}, "is none of auto, path, virtual"),
    ],
)
def test_an_entry_that_cannot_be_used(
    tmp_path: Path, uri: str, properties: dict[str, str], words: str
) -> None:
    entry = Storage("fs1", uri, "", properties=tuple(properties.items()))
    with pytest.raises(ConfigurationError, match=words) as caught:
        S3Storage(entry, tmp_path)
    assert "secret" not in str(caught.value)


def _moved(entry: Storage, uri: str) -> Storage:
    return dataclasses.replace(entry, uri=uri)
