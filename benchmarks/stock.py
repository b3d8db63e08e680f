"""A stock of synthetic studies: two series of one object each, loaded in bulk."""

import contextlib

import psycopg

from archive.ledger.connection import Ledger
from benchmarks.find import FILL, ROOT

_LOCATIONS = b"""
INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size,
                      dataset_offset, digest, created_time)
SELECT i.pk, 'fs1', '2000/01/01/' || upper(to_hex(hashtext(i.sop_instance_uid))) || '/' || i.pk,
       '1.2.840.10008.1.2.1', 500000, 500, 'sha256:' || repeat('0', 64), '2000-01-01'
FROM instance i
"""
_TABLES = ("patient", "study", "series", "instance", "location")
_INDEXES = b"""
SELECT format('DROP INDEX %%I', c.relname), pg_get_indexdef(i.indexrelid)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY (%s::regclass[])
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
"""
# Foreign keys hold by the way the rows are made; indexes are made anew when all rows are there.
_IN_BULK = (
    b"SET session_replication_role = replica",
    b"SET synchronous_commit = off",
    b"SET maintenance_work_mem = '512MB'",
)


def stock(url: str, studies: int) -> None:
    """Migrate an empty database and fill its index with studies; their files do not exist.

    Parameters
    ----------
    url
        Database; the user has to be a superuser.
    """
    with contextlib.closing(Ledger(url, max_connections=1)) as ledger:
        ledger.migrate()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _IN_BULK:
            connection.execute(statement)
        indexes = connection.execute(_INDEXES, [list(_TABLES)]).fetchall()
        for drop, _ in indexes:
            connection.execute(drop)
        for statement in FILL:
            values = {"first": 1, "last": studies, "root": ROOT}
            connection.execute(statement.encode(), values)
        connection.execute(_LOCATIONS)
        for _, create in indexes:
            connection.execute(create)
        connection.execute(b"VACUUM ANALYZE " + ", ".join(_TABLES).encode())
        connection.execute(b"CHECKPOINT")


def size_bytes(url: str) -> int:
    """Return what the index takes on disk, its own indexes included."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(t::regclass))::bigint FROM unnest(%s::text[]) t",
            [list(_TABLES)],
        ).fetchone()
    return int(row[0]) if row else 0
