"""A real object store with the S3 protocol: OpenStack Swift, as Debian has it, on loopback ports.

It is the one server of its kind in Debian: what it has acknowledged lies on the disk, so it can
be killed and started again.
"""

import os
import pwd
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from archive.configuration.descriptors import Storage
from tests.fix_process import RunningProcess, free_port, missing, start_process, wait_until

IDENTITY, CREDENTIAL = "hospital:archive", "s3-secret-of-the-tests"
KINDS = ("account", "container", "object", "proxy")

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(sys.argv[2::2], sys.argv[3::2]):
    builder = RingBuilder(4, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "id": 0,
                     "device": "sda", "weight": 1.0, "replication_ip": "127.0.0.1",
                     "replication_port": int(port)})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
_SERVER = """
    [DEFAULT]
    swift_dir = {directory}
    devices = {directory}/nodes
    mount_check = false
    bind_ip = 127.0.0.1
    bind_port = {port}
    workers = 0
    user = {user}
    [pipeline:main]
    pipeline = {kind}-server
    [app:{kind}-server]
    use = egg:swift#{kind}
"""
_PROXY = """
    [DEFAULT]
    swift_dir = {directory}
    bind_ip = 127.0.0.1
    bind_port = {port}
    workers = 0
    user = {user}
    [pipeline:main]
    pipeline = catch_errors cache s3api tempauth slo proxy-server
    [app:proxy-server]
    use = egg:swift#proxy
    account_autocreate = true
    [filter:catch_errors]
    use = egg:swift#catch_errors
    [filter:cache]
    use = egg:swift#memcache
    memcache_servers = 127.0.0.1:1
    [filter:s3api]
    use = egg:swift#s3api
    [filter:tempauth]
    use = egg:swift#tempauth
    user_hospital_archive = {credential} .admin
    [filter:slo]
    use = egg:swift#slo
"""
_SWIFT = """
    [swift-hash]
    swift_hash_path_suffix = tests
    swift_hash_path_prefix = tests
    [storage-policy:0]
    name = one
    default = yes
"""


@dataclass
class S3Server:
    """The four processes of a Swift with one disk."""

    directory: Path
    ports: dict[str, int] = field(default_factory=lambda: {kind: free_port() for kind in KINDS})
    processes: list[RunningProcess] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.ports['proxy']}"

    def configure(self) -> None:
        """Write the configuration and the rings."""
        (self.directory / "nodes" / "sda").mkdir(parents=True)
        (self.directory / "swift.conf").write_text(textwrap.dedent(_SWIFT))
        for kind, port in self.ports.items():
            text = (_PROXY if kind == "proxy" else _SERVER).format(
                directory=self.directory,
                port=port,
                kind=kind,
                user=pwd.getpwuid(os.geteuid()).pw_name,
                credential=CREDENTIAL,
            )
            (self.directory / f"{kind}.conf").write_text(textwrap.dedent(text))
        pairs = [str(part) for kind in KINDS[:-1] for part in (kind, self.ports[kind])]
        argv = ["/usr/bin/python3", "-c", _RINGS, str(self.directory), *pairs]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        """Start all processes and wait until a bucket can be made."""
        log = self.directory / "swift.log"
        self.processes = [
            start_process([f"swift-{kind}-server", self.directory / f"{kind}.conf"], log=log)
            for kind in KINDS
        ]
        wait_until(lambda: self.make_bucket("dicom"), what="the S3 server")

    def kill(self) -> None:
        """End all processes with KILL."""
        for process in self.processes:
            process.kill()

    def make_bucket(self, name: str) -> bool:
        """Make a bucket unless there is one; return whether it is there."""
        try:
            self.client().create_bucket(Bucket=name)
        except ClientError as error:
            return str(error.response["Error"]["Code"]) == "BucketAlreadyOwnedByYou"
        except BotoCoreError:
            return False
        return True

    def keys(self, prefix: str = "", bucket: str = "dicom") -> list[str]:
        """Return the keys that begin with `prefix`."""
        answer = self.client().list_objects_v2(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for each in answer.get("Contents", ())]

    def client(self):  # type: ignore[no-untyped-def]  # noqa: ANN201 - botocore makes its classes as it runs
        """Return a client of our own."""
        return Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=IDENTITY,
            aws_secret_access_key=CREDENTIAL,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                read_timeout=10,
                request_checksum_calculation="when_required",
            ),
        )

    def descriptor(self, prefix: str, endpoint: str | None = None, **changes: str) -> Storage:
        """Return a dcmStorage entry `fs1` for a part of the bucket."""
        properties = {
            "endpoint": endpoint or self.endpoint,
            "identity": IDENTITY,
            "credential": CREDENTIAL,
            **changes,
        }
        return Storage("fs1", f"s3://dicom/{prefix}", "", properties=tuple(properties.items()))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for all tests, each of which uses a prefix of its own."""
    server = _configured(tmp_path_factory.mktemp("swift"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def private_s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that the test may kill."""
    directory = tmp_path / "swift"
    directory.mkdir()
    server = _configured(directory)
    server.start()
    yield server
    server.kill()


def _configured(directory: Path) -> S3Server:
    for kind in KINDS:
        if shutil.which(f"swift-{kind}-server") is None:
            missing(f"swift-{kind} is not installed (apt-get install swift-{kind})")
    server = S3Server(directory)
    server.configure()
    return server
