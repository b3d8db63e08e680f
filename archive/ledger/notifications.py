"""Availability notifications: what they announce, fixed at the first attempt."""

from collections.abc import Callable

from archive.errors import NoSuchTaskError
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import FixedNotification
from archive.model.task import IanDetails


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
    retrieve_aets, availability, location_uid, exporter_id, sop_instance_uid, dataset = row
    if sop_instance_uid is not None:
        return FixedNotification(sop_instance_uid, dataset)
    fixed = build(IanDetails(tuple(retrieve_aets), availability, location_uid, exporter_id))
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
