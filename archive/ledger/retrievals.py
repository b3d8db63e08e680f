"""Retrieves: staging, what they ask for, how far they are, and what they match."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from archive.errors import NoSuchTaskError
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import InstanceToSend, StoredFile
from archive.model.retrieval import (
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveResult,
    SubOperations,
)
from archive.model.retrieval_plan import MatchedInstance
from archive.model.task import Task, TaskStatus

RETRIEVE_CHANNEL = "dicomq_retrieve"
"""Channel on which each change of a retrieve is told, with the task's primary key."""


class RetrieveRole(StrEnum):
    """On which side of the C-MOVE this archive is."""

    SCP = "SCP"
    SCU = "SCU"


@dataclass(frozen=True, slots=True)
class NewRetrieve:
    """A retrieve to be staged.

    Attributes
    ----------
    local_aet
        Called AE title (SCP), or the AE that asks (SCU).
    remote_aet
        Move destination (SCP), or the archive that is asked (SCU).
    move_originator_aet, move_originator_message_id
        Requestor and Message ID of the C-MOVE that came in; None for SCU.
    priority
        0 medium, 1 high, 2 low (PS3.7 §9.1.4.1.5).
    remaining
        Number of matches, as far as it is known.
    """

    role: RetrieveRole
    identifier: RetrieveIdentifier
    queue_name: str
    device_name: str
    local_aet: str
    remote_aet: str
    destination_aet: str
    move_originator_aet: str | None = None
    move_originator_message_id: int | None = None
    priority: int = 0
    remaining: int | None = None
    batch_id: str | None = None
    due_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """What a RETRIEVE task asks for; see `NewRetrieve`."""

    role: RetrieveRole
    identifier: RetrieveIdentifier
    destination_aet: str
    move_originator_aet: str | None
    move_originator_message_id: int | None
    priority: int


@dataclass(frozen=True, slots=True)
class RetrieveExtent:
    """Where a retrieve brings its objects, and how far it is.

    Attributes
    ----------
    remaining
        None until it is known.
    status
        Status of the latest response (SCU) or of the final one (SCP), if there was one.
    """

    destination_aet: str
    remaining: int | None
    completed: int
    failed: int
    warning: int
    status: int | None
    error_comment: str | None


@dataclass(frozen=True, slots=True)
class RetrieveProgress:
    """How a retrieve stands.

    Attributes
    ----------
    result
        Latest counters; `status` is 0 as long as there is no final one.
    is_settled
        Whether the worker has written a final status.
    error_message
        Why the latest attempt failed, for what no worker could settle.
    """

    task_status: TaskStatus
    attempt: int
    result: RetrieveResult
    is_settled: bool
    error_message: str | None


def stage(tx: Transaction, new: NewRetrieve, *, actor: str, reason: str = "C-MOVE") -> int:
    """Insert a retrieve and return the primary key of its task."""
    parameters = {"x": Jsonb(_staging(new, actor, reason))}
    row = tx.execute(load_queries("retrievals")["stage"], parameters).fetchone()
    assert row is not None  # noqa: S101 - the function always returns a row
    return int(row[0])


def stage_requested(
    tx: Transaction, new: NewRetrieve, *, actor: str, reason: str = "requested"
) -> tuple[int, bool]:
    """Insert a retrieve from another archive unless the same is waiting or under way.

    Returns
    -------
    tuple
        Primary key of the task, and whether it is new. One that is waiting for a later time takes
        over the earlier one.
    """
    parameters = {"x": Jsonb(_staging(new, actor, reason))}
    row = tx.execute(load_queries("retrievals")["stage_requested"], parameters).fetchone()
    assert row is not None  # noqa: S101 - the function always returns a row
    return int(row[0]), bool(row[1])


def count_matches(tx: Transaction, identifier: RetrieveIdentifier) -> int:
    """Return how many instances an identifier covers."""
    row = tx.execute(
        load_queries("retrievals")["count_matches"], _scope_parameters(identifier)
    ).fetchone()
    return int(row[0]) if row else 0


def matches(
    tx: Transaction, identifier: RetrieveIdentifier, storage_ids: Sequence[str]
) -> list[MatchedInstance]:
    """Return the instances that an identifier covers.

    Parameters
    ----------
    storage_ids
        Storages of this device; a file elsewhere is out of reach.
    """
    parameters = {**_scope_parameters(identifier), "storages": list(storage_ids)}
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(load_queries("retrievals")["matches"], parameters).fetchall()
    return [
        MatchedInstance(
            instance_of_row(row),
            str(row["study_instance_uid"]),
            row["external_retrieve_aet"],
            is_elsewhere=row["is_elsewhere"],
        )
        for row in rows
    ]


def get(tx: Transaction, task_pk: int) -> RetrieveRequest:
    """Return what a retrieve asks for.

    Raises
    ------
    NoSuchTaskError
        When the task is no retrieve.
    """
    with tx.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(load_queries("retrievals")["get"], {"task_pk": task_pk}).fetchone()
    if row is None:
        msg = f"task {task_pk} is not a retrieve or was deleted"
        raise NoSuchTaskError(msg)
    return RetrieveRequest(
        role=RetrieveRole(row["role"]),
        identifier=RetrieveIdentifier(
            RetrieveLevel(row["retrieve_level"]),
            tuple(row["study_instance_uids"]),
            tuple(row["series_instance_uids"]),
            tuple(row["sop_instance_uids"]),
            row["patient_id"],
            row["issuer_of_patient_id"],
        ),
        destination_aet=row["destination_aet"],
        move_originator_aet=row["move_originator_aet"],
        move_originator_message_id=row["move_originator_message_id"],
        priority=row["priority"],
    )


def begin(tx: Transaction, task: Task) -> RetrieveRequest:
    """Start an attempt: what an earlier one counted is forgotten.

    Raises
    ------
    NoSuchTaskError
        When the task is no retrieve.
    """
    tx.execute(load_queries("retrievals")["begin"], {"task_pk": task.pk, "attempt": task.attempt})
    return get(tx, task.pk)


def note(tx: Transaction, task: Task, result: RetrieveResult, *, status: int | None) -> None:
    """Write down how far a retrieve is; changes nothing once the claim is lost.

    Parameters
    ----------
    status
        None while sub-operations go on.
    """
    tx.execute(
        load_queries("retrievals")["note"],
        {
            "task_pk": task.pk,
            "attempt": task.attempt,
            **asdict(result.counts),
            "status": status,
            "error_comment": result.error_comment.replace("\0", "") or None,
            "failed_uids": list(result.failed_sop_instance_uids),
        },
    )


def progress(tx: Transaction, task_pk: int) -> RetrieveProgress:
    """Return how a retrieve stands.

    Raises
    ------
    NoSuchTaskError
        When the task was deleted.
    """
    with tx.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            load_queries("retrievals")["progress"], {"task_pk": task_pk}
        ).fetchone()
    if row is None:
        msg = f"retrieve {task_pk} was deleted"
        raise NoSuchTaskError(msg)
    counts = SubOperations(row["remaining"] or 0, row["completed"], row["failed"], row["warning"])
    return RetrieveProgress(
        TaskStatus(row["task_status"]),
        row["attempt"],
        RetrieveResult(
            row["status"] or 0,
            counts,
            tuple(row["failed_sop_instance_uids"]),
            row["error_comment"],
        ),
        is_settled=row["status"] is not None,
        error_message=row["error_message"],
    )


def extents(tx: Transaction, task_pks: Sequence[int]) -> dict[int, RetrieveExtent]:
    """Return by primary key what is known of those of some tasks that are retrieves."""
    rows = tx.execute(load_queries("retrievals")["extents"], {"task_pks": list(task_pks)})
    return {pk: RetrieveExtent(*extent) for pk, *extent in rows}


def _staging(new: NewRetrieve, actor: str, reason: str) -> dict[str, Any]:
    identifier = new.identifier
    fields = asdict(new)
    del fields["identifier"]
    return {
        **fields,
        **identifier_fields(identifier),
        "study_instance_uid": _only(identifier.study_instance_uids),
        "series_instance_uid": _only(identifier.series_instance_uids),
        "sop_instance_uid": _only(identifier.sop_instance_uids),
        "actor": actor,
        "reason": reason,
    }


def identifier_fields(identifier: RetrieveIdentifier) -> dict[str, Any]:
    """Return an identifier as the ledger's functions take it."""
    return {
        "retrieve_level": identifier.level,
        "entity_key": identifier.entity_key,
        "patient_id": identifier.patient_id,
        "issuer_of_patient_id": identifier.issuer_of_patient_id,
        "study_instance_uids": list(identifier.study_instance_uids),
        "series_instance_uids": list(identifier.series_instance_uids),
        "sop_instance_uids": list(identifier.sop_instance_uids),
    }


def _only(uids: Sequence[str]) -> str | None:
    """Return the first of the UIDs, by which the task is found; the detail row has them all."""
    return uids[0] if uids else None


def _scope_parameters(identifier: RetrieveIdentifier) -> dict[str, Any]:
    return {
        "studies": list(identifier.study_instance_uids),
        "series": list(identifier.series_instance_uids),
        "sops": list(identifier.sop_instance_uids),
        "patient_id": identifier.patient_id,
        "issuer": identifier.issuer_of_patient_id,
    }


def instance_of_row(row: Mapping[str, Any]) -> InstanceToSend:
    """Make an instance of a row with the columns of instance and location."""
    file = None
    if row["storage_id"] is not None:
        file = StoredFile(
            storage_id=row["storage_id"],
            storage_path=row["storage_path"],
            transfer_syntax_uid=row["transfer_syntax_uid"],
            object_size=row["object_size"],
            dataset_offset=row["dataset_offset"],
            digest=row["digest"],
        )
    return InstanceToSend(
        instance_pk=row["instance_pk"],
        version=row["version"],
        sop_class_uid=row["sop_class_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        series_instance_uid=row["series_instance_uid"],
        sending_aet=row["sending_aet"],
        file=file,
        coercions=row.get("coercions"),
    )
