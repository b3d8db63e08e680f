"""Index of stored objects: patient, study, series, instance, location."""

from collections.abc import Sequence
from dataclasses import asdict

from psycopg.types.json import Jsonb

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import (
    InstanceReference,
    ObjectAttributes,
    Reception,
    StoredFile,
    StoreKind,
    StorePolicy,
    StoreResult,
)
from archive.model.task import ExportIntent

LONGEST_TEXT = 512


def store_object(
    tx: Transaction,
    attributes: ObjectAttributes,
    file: StoredFile,
    reception: Reception,
    *,
    intents: Sequence[ExportIntent],
    policy: StorePolicy,
) -> StoreResult:
    """Index a received object and stage the exports demanded for it, all or nothing.

    Parameters
    ----------
    file
        Where its bytes are durable already.
    intents
        What the export rules demand; those whose `reoccurred` does not fit are left out here,
        where it is known whether the object was seen before.

    Returns
    -------
    StoreResult
        What became of the object. Once the transaction is committed the caller deletes
        `obsolete_files`, and the new file too unless `keep_file`.

    Raises
    ------
    LedgerConflictError
        When a concurrent transaction got in the way; repeat the call.
    LedgerUnavailableError
        When PostgreSQL cannot be reached.
    """
    row = tx.execute(
        load_queries("objects")["store_object"],
        {
            "attributes": Jsonb(_without_nul(asdict(attributes))),
            "file": Jsonb(asdict(file)),
            "reception": Jsonb(_without_nul(asdict(reception))),
            "policy": Jsonb(asdict(policy)),
            "intents": Jsonb([asdict(intent) for intent in intents]),
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - the function always returns one row
    kind, instance_pk, obsolete, staged, patient_conflict = row
    files = tuple(_stored_file(location) for location in obsolete)
    return StoreResult(StoreKind(kind), instance_pk, files, staged, patient_conflict)


def known_paths(tx: Transaction, storage_id: str, paths: Sequence[str]) -> set[str]:
    """Return which of `paths` on a storage belong to an indexed object."""
    rows = tx.execute(
        load_queries("objects")["known_paths"], {"storage_id": storage_id, "paths": list(paths)}
    )
    return {path for (path,) in rows}


def obsolete_files(tx: Transaction, storage_id: str) -> list[StoredFile]:
    """Return files of replaced objects that are still to be deleted on a storage."""
    rows = tx.execute(load_queries("objects")["obsolete_files"], {"storage_id": storage_id})
    return [StoredFile(*row) for row in rows]


def forget_obsolete(tx: Transaction, file: StoredFile) -> None:
    """Note that the file of a replaced object is deleted."""
    values = {"storage_id": file.storage_id, "storage_path": file.storage_path}
    tx.execute(load_queries("objects")["forget_obsolete"], values)


def recent_paths(tx: Transaction, storage_id: str, within_s: float) -> list[tuple[str, str]]:
    """Return (storage path, SOP Instance UID) of what the last `within_s` seconds recorded."""
    rows = tx.execute(
        load_queries("objects")["recent_paths"], {"storage_id": storage_id, "within_s": within_s}
    )
    return [(path, uid) for path, uid in rows]


def instance_references(
    tx: Transaction, study: str, series: str | None = None, sop: str | None = None
) -> list[InstanceReference]:
    """Return the current instances of a study, series or object, in order of reception."""
    rows = tx.execute(
        load_queries("objects")["instance_references"],
        {"study": study, "series": series, "sop": sop},
    )
    return [InstanceReference(*row) for row in rows]


def instance_files(tx: Transaction, instance_pk: int) -> list[StoredFile]:
    """Return the copies of an object."""
    rows = tx.execute(load_queries("objects")["instance_files"], {"instance": instance_pk})
    return [StoredFile(*row) for row in rows]


def count_instances(tx: Transaction, study: str) -> int:
    """Return how many instances of a study the archive holds."""
    row = tx.execute(load_queries("objects")["count_instances"], {"study": study}).fetchone()
    return int(row[0]) if row else 0


def _without_nul(record: dict[str, object]) -> dict[str, object]:
    """Drop from a peer's text what PostgreSQL or its indexes cannot hold: NUL, excess length."""
    return {
        name: value.replace("\0", "")[:LONGEST_TEXT] if isinstance(value, str) else value
        for name, value in record.items()
    }


def _stored_file(location: dict[str, object]) -> StoredFile:
    return StoredFile(
        storage_id=str(location["storage_id"]),
        storage_path=str(location["storage_path"]),
        transfer_syntax_uid=str(location["transfer_syntax_uid"]),
        object_size=int(str(location["object_size"])),
        dataset_offset=int(str(location["dataset_offset"])),
        digest=str(location["digest"]),
    )
