"""What other AEs want committed: requests to this archive, and what it holds of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from archive.errors import NoSuchTaskError
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.commitment import SopReference
from archive.model.entities import StoredFile


@dataclass(frozen=True, slots=True)
class Verification:
    """What an STGCMT_SCP task has to verify.

    Attributes
    ----------
    same_association_s
        How long, in seconds from its staging, the report may go over the association of the
        request.
    """

    transaction_uid: str
    references: tuple[SopReference, ...]
    same_association_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """What the archive has of an instance."""

    sop_class_uid: str
    external_retrieve_aet: str | None
    retrieve_aets: tuple[str, ...]
    files: tuple[StoredFile, ...]


def stage_verification(
    tx: Transaction,
    request: Verification,
    *,
    device_name: str,
    queue_name: str,
    local_aet: str,
    remote_aet: str,
) -> int:
    """Stage the task that verifies what another AE wants committed, and reports to it.

    Parameters
    ----------
    local_aet, remote_aet
        AE that was asked, and the one that asked and gets the report.
    """
    row = tx.execute(
        load_queries("commitments")["stage_verification"],
        {
            "transaction_uid": request.transaction_uid,
            "sop_class_uids": [each.sop_class_uid for each in request.references],
            "sop_instance_uids": [each.sop_instance_uid for each in request.references],
            "device_name": device_name,
            "queue_name": queue_name,
            "local_aet": local_aet,
            "remote_aet": remote_aet,
            "same_association_s": request.same_association_s,
        },
    ).fetchone()
    return int(row[0]) if row else 0


def verification(tx: Transaction, task_pk: int) -> Verification:
    """Return what an STGCMT_SCP task has to verify.

    Raises
    ------
    NoSuchTaskError
        When the task has no such details.
    """
    query = load_queries("commitments")["verification"]
    row = tx.execute(query, {"task_pk": task_pk}).fetchone()
    if row is None:
        msg = f"task {task_pk} verifies nothing or was deleted"
        raise NoSuchTaskError(msg)
    transaction_uid, classes, uids = row
    return Verification(transaction_uid, tuple(map(SopReference, classes, uids)))


def note_verification(tx: Transaction, task_pk: int, num_failed: int) -> None:
    """Note how many instances a report says are not committed."""
    parameters = {"task_pk": task_pk, "num_failed": num_failed}
    tx.execute(load_queries("commitments")["note_verification"], parameters)


def holdings(tx: Transaction, uids: Sequence[str]) -> dict[str, HeldInstance]:
    """Return by SOP Instance UID what the archive has of some instances."""
    rows = tx.execute(load_queries("commitments")["holdings"], {"uids": list(uids)})
    held: dict[str, HeldInstance] = {}
    for uid, sop_class, external, retrieve_aets, *location in rows:
        known = held.get(uid)
        files = () if location[0] is None else (StoredFile(*location),)
        held[uid] = HeldInstance(
            sop_class, external, tuple(retrieve_aets), (known.files if known else ()) + files
        )
    return held


def committed_by(tx: Transaction, uids: Sequence[str], exporter_ids: Sequence[str]) -> set[str]:
    """Return which instances the commitment SCPs of all these exporters keep."""
    rows = tx.execute(
        load_queries("commitments")["committed_by"],
        {"uids": list(uids), "exporter_ids": list(exporter_ids)},
    )
    return {uid for (uid,) in rows}
