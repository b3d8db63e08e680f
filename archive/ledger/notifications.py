"""Availability notifications: what they announce, fixed at the first attempt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archive.errors import NoSuchTaskError
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import AnnouncedInstance, FixedNotification, InstanceReference
from archive.model.task import IanDetails, Task


def load_or_fix(
    tx: Transaction, task_pk: int, build: Callable[[IanDetails], FixedNotification | None]
) -> FixedNotification | None:
    """Return the N-CREATE of an IAN task, building it if no attempt has done so.

    Parameters
    ----------
    build
        Makes the SOP Instance UID and data set from the task's details, or returns None when
        there is nothing to announce (which is not remembered).

    Raises
    ------
    NoSuchTaskError
        When the task has no notification details.
    """
    row = tx.execute(load_queries("notifications")["load"], {"task_pk": task_pk}).fetchone()
    if row is None:
        msg = f"task {task_pk} is not a notification or was deleted"
        raise NoSuchTaskError(msg)
    *values, sop_instance_uid, dataset = row
    if sop_instance_uid is not None:
        return FixedNotification(sop_instance_uid, dataset)
    fixed = build(_details(values))
    if fixed is not None:
        tx.execute(
            load_queries("notifications")["fix"],
            {
                "task_pk": task_pk,
                "sop_instance_uid": fixed.sop_instance_uid,
                "dataset": fixed.dataset_json,
            },
        )
    return fixed


def _details(values: list[Any]) -> IanDetails:
    """Make details of the columns in their order, arrays as tuples."""
    plain: list[Any] = [tuple(each) if isinstance(each, list) else each for each in values]
    return IanDetails(*plain)


def announced(tx: Transaction, task: Task, details: IanDetails) -> list[AnnouncedInstance]:
    """Return what a notification that no exporter caused names, series by series."""
    rows = tx.execute(
        load_queries("notifications")["announced"],
        {
            "study": task.study_instance_uid,
            "series": task.series_instance_uid,
            "sop": task.sop_instance_uid,
            "sop_instance_uids": list(details.sop_instance_uids),
            "unavailable": list(details.unavailable_sop_instance_uids),
        },
    )
    return [
        AnnouncedInstance(InstanceReference(series, sop_class, uid), availability)
        for series, sop_class, uid, availability, *_ in rows
    ]


def trigger_studies(tx: Transaction, device_name: str, limit: int = 100) -> int:
    """Stage the notifications of studies whose quiet time is over; return of how many."""
    query = load_queries("notifications")["due_studies"]
    return tx.execute(query, {"device_name": device_name, "limit": limit}).rowcount


@dataclass(frozen=True, slots=True)
class EndedWait:
    """A procedure step that is not waited for any longer.

    Attributes
    ----------
    present, expected
        Instances that are here, and that it produced.
    staged
        Notifications that announce those that are here.
    """

    mpps_sop_instance_uid: str
    present: int
    expected: int
    staged: int


def trigger_procedure_steps(
    tx: Transaction, device_name: str, limit: int = 1000
) -> list[EndedWait]:
    """Stage the notifications of procedure steps that are complete, or whose time is over."""
    query = load_queries("notifications")["ready_procedure_steps"]
    rows = tx.execute(query, {"device_name": device_name, "limit": limit})
    return [EndedWait(*row) for row in rows]
