"""Forwarded C-MOVEs that bring objects here: who asks for what, and what has arrived.

A worker registers a C-MOVE before it sends it; every SCP that stores an object notes in the same
transaction to which open one it belongs. What arrived before the other archive's final response
is therefore committed when that response is read. A row whose worker died is closed by the next
one that looks for it.
"""

from dataclasses import asdict, dataclass

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.ledger.retrievals import identifier_fields, instance_of_row
from archive.model.entities import ObjectAttributes, Reception
from archive.model.retrieval import RetrieveIdentifier, RetrieveResult, SubOperations
from archive.model.retrieval_plan import MatchedInstance
from archive.model.task import Task

ARRIVAL_CHANNEL = "dicomq_arrival"
"""Channel on which arrivals and ends are told, with the primary key of the forwarded C-MOVE."""


@dataclass(frozen=True, slots=True)
class NewForward:
    """A C-MOVE that is about to be forwarded.

    Attributes
    ----------
    external_aet
        The archive that is asked.
    through_aet
        Local AE to which it sends.
    calling_aet
        Title that it sees, and should send back as Move Originator AE Title.
    store_scu_aets
        Calling AE titles that store on its behalf (dcmCStoreSCUOfCMoveSCP).
    """

    external_aet: str
    through_aet: str
    calling_aet: str
    identifier: RetrieveIdentifier
    store_scu_aets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flight:
    """A forwarded C-MOVE that a worker waits for.

    Attributes
    ----------
    message_id
        Message ID of the C-MOVE-RQ.
    is_leader
        Whether this worker has to send it; else another one has done so.
    """

    pk: int
    message_id: int
    is_leader: bool


@dataclass(frozen=True, slots=True)
class FlightState:
    """How a forwarded C-MOVE stands.

    Attributes
    ----------
    is_over
        No response of the other archive will follow.
    result
        Its latest counters and, when over, its final status; None when it was given up without
        one and has to be sent again.
    entity_key
        What it asks for; those who joined may want less.
    """

    is_over: bool
    result: RetrieveResult | None
    entity_key: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An object that arrived; `pk` grows."""

    pk: int
    match: MatchedInstance


def register(tx: Transaction, task: Task, new: NewForward) -> Flight:
    """Announce a C-MOVE, or join one under way that brings the same objects to the same AE."""
    fields = {
        **identifier_fields(new.identifier),
        "external_aet": new.external_aet,
        "through_aet": new.through_aet,
        "calling_aet": new.calling_aet,
        "store_scu_aets": list(new.store_scu_aets),
    }
    row = tx.execute(
        load_queries("retrievals")["register_forward"],
        {"task_pk": task.pk, "attempt": task.attempt, "x": Jsonb(fields)},
    ).fetchone()
    assert row is not None  # noqa: S101 - the function always returns a row
    return Flight(*row)


def arrivals(tx: Transaction, forward_pk: int, *, after: int = 0) -> list[Arrival]:
    """Return what arrived after the arrival numbered `after`, in order.

    Numbers are given before the commit, so one may become visible later than a higher one; ask
    for all once the C-MOVE is over.
    """
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            load_queries("retrievals")["arrivals"], {"forward_pk": forward_pk, "after": after}
        ).fetchall()
    return [
        Arrival(
            row["arrival_pk"],
            MatchedInstance(instance_of_row(row), str(row["study_instance_uid"])),
        )
        for row in rows
    ]


def count_arrivals(tx: Transaction, forward_pk: int) -> int:
    """Return how many objects arrived for a forwarded C-MOVE."""
    query = load_queries("forwards")["count_arrivals"]
    row = tx.execute(query, {"forward_pk": forward_pk}).fetchone()
    return int(row[0]) if row else 0


def brings(tx: Transaction, reception: Reception, attributes: ObjectAttributes) -> bool:
    """Tell whether a C-MOVE of ours that is under way brings all of an object's series.

    Move Originator AE Title and Message ID have to be its own, and the sender has to be the
    archive that was asked or one that stores on its behalf.
    """
    parameters = {
        "calling_aet": reception.calling_aet,
        "move_originator_aet": reception.move_originator_aet,
        "move_originator_message_id": reception.move_originator_message_id,
        "study": attributes.study_instance_uid,
        "series": attributes.series_instance_uid,
        "patient_id": attributes.patient_id,
    }
    row = tx.execute(load_queries("forwards")["brings"], parameters).fetchone()
    return bool(row and row[0])


def note(tx: Transaction, forward_pk: int, counts: SubOperations) -> None:
    """Write the other archive's latest counters down, for those who joined."""
    parameters = {"forward_pk": forward_pk, **asdict(counts)}
    tx.execute(load_queries("retrievals")["note_forward"], parameters)


def end(tx: Transaction, forward_pk: int, result: RetrieveResult | None) -> None:
    """Close a forwarded C-MOVE; None: it was given up and those who joined ask for themselves."""
    counts = result.counts if result else SubOperations()
    tx.execute(
        load_queries("retrievals")["end_forward"],
        {
            "forward_pk": forward_pk,
            "completed": counts.completed,
            "failed": counts.failed,
            "warning": counts.warning,
            "status": result.status if result else None,
            "error_comment": result.error_comment.replace("\0", "") if result else "",
            "failed_uids": list(result.failed_sop_instance_uids) if result else [],
        },
    )


def state(tx: Transaction, forward_pk: int) -> FlightState:
    """Return how a forwarded C-MOVE stands; one whose worker died counts as given up."""
    with tx.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            load_queries("retrievals")["forward_state"], {"forward_pk": forward_pk}
        ).fetchone()
    if row is None or (not row["ended"] and not row["alive"]):
        return FlightState(is_over=True, result=None)
    if row["ended"] and row["status"] is None:
        return FlightState(is_over=True, result=None)
    counts = SubOperations(row["remaining"], row["completed"], row["failed"], row["warning"])
    result = RetrieveResult(
        row["status"] or 0, counts, tuple(row["failed_sop_instance_uids"]), row["error_comment"]
    )
    return FlightState(row["ended"], result, row["entity_key"])
