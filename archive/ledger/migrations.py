"""Brings a database to the schema this release needs, under a lock, once per process start.

Migrations are ``sql/migrations/NNNN_{pre,post}_name.sql``: `pre` ones may be applied while the
previous release still runs, `post` ones only after it has gone. ``sql/functions*.sql`` are applied
again whenever their text changes.
"""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import LiteralString

import psycopg

_LOCK = 0x0D1C0_0001

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    name         text PRIMARY KEY,
    digest       text NOT NULL,
    applied_time timestamptz NOT NULL DEFAULT now()
)
"""


def migrate(connection: psycopg.Connection) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Concurrent starters wait for each other; the database is left as it was when a script fails.

    Parameters
    ----------
    connection
        An autocommit connection of a role that may create tables.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute(_VERSION_TABLE)
        rows = connection.execute("SELECT name, digest FROM schema_version").fetchall()
        known: dict[str, str] = dict(rows)
        applied = []
        for name, script in _scripts():
            digest = hashlib.sha256(script.encode()).hexdigest()
            if name in known and (known[name] == digest or not _is_repeatable(name)):
                continue
            connection.execute(script)
            connection.execute(
                "INSERT INTO schema_version (name, digest) VALUES (%s, %s) ON CONFLICT (name)"
                " DO UPDATE SET digest = excluded.digest, applied_time = now()",
                (name, digest),
            )
            applied.append(name)
    return applied


def _is_repeatable(name: str) -> bool:
    return name.startswith("functions")


def _scripts() -> list[tuple[str, LiteralString]]:
    sql = files("archive.ledger").joinpath("sql")
    migrations = [each for each in sql.joinpath("migrations").iterdir() if _is_script(each)]
    functions = [each for each in sql.iterdir() if _is_script(each) and _is_repeatable(each.name)]
    ordered = [*sorted(migrations, key=_name), *sorted(functions, key=_name)]
    return [(each.name, each.read_text("utf-8")) for each in ordered]


def _is_script(entry: Traversable) -> bool:
    return entry.name.endswith(".sql")


def _name(entry: Traversable) -> str:
    return entry.name
