"""Brings a database to the schema this release needs, under a lock, once per process start.

Migrations are ``sql/migrations/NNNN_{pre,post}_name.sql``: `pre` ones may be applied while the
previous release still runs, `post` ones only after it has gone. ``sql/functions*.sql`` are applied
again whenever their text changes.

A process that starts applies what is `pre`, because others may still run the previous release. A
database that has no tables yet gets everything at once; else `post` is for whoever knows that the
previous release is gone: ``make run``, which runs alone, and ``celery -A workers schema``.
"""

import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
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


class Stage(StrEnum):
    """Which scripts are applied."""

    PRE = "pre"
    ALL = "all"


def missing(
    known: Mapping[str, str], digests: Iterable[tuple[str, str]], stage: Stage
) -> list[str]:
    """Return the names of the scripts to apply, in order.

    Parameters
    ----------
    known
        Name and digest of what was applied.
    digests
        Name and digest of the scripts of this release, in order.
    stage
        `Stage.PRE` leaves out `post` migrations, unless nothing was applied yet.
    """
    names = []
    for name, digest in digests:
        if name in known and (known[name] == digest or not _is_repeatable(name)):
            continue
        if stage is Stage.PRE and known and _is_post(name):
            continue
        names.append(name)
    return names


def migrate(connection: psycopg.Connection, stage: Stage = Stage.ALL) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Concurrent starters wait for each other; the database is left as it was when a script fails.

    Parameters
    ----------
    connection
        An autocommit connection of a role that may create tables.
    stage
        `Stage.PRE` for what the previous release can live with, which may still run.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute(_VERSION_TABLE)
        scripts = dict(_scripts())
        digests = {name: _digest(script) for name, script in scripts.items()}
        names = missing(_known(connection), digests.items(), stage)
        for name in names:
            connection.execute(scripts[name])
            connection.execute(
                "INSERT INTO schema_version (name, digest) VALUES (%s, %s) ON CONFLICT (name)"
                " DO UPDATE SET digest = excluded.digest, applied_time = now()",
                (name, digests[name]),
            )
    return names


def pending(connection: psycopg.Connection) -> list[str]:
    """Return the names of the scripts of this release that are not applied, in order."""
    exists = connection.execute("SELECT to_regclass('schema_version') IS NOT NULL").fetchone()
    known = _known(connection) if exists == (True,) else {}
    return missing(known, ((name, _digest(text)) for name, text in _scripts()), Stage.ALL)


def _known(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, digest FROM schema_version").fetchall())


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _is_post(name: str) -> bool:
    return name[4:].startswith("_post_")


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
