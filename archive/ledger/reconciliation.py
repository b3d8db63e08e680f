"""Reconciliation of studies with their destinations, and which studies are not complete."""

from collections.abc import Mapping

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.reconciliation import (
    Expectation,
    IncompleteStudy,
    InstanceProgress,
    LatestTask,
    Reconciliation,
    Records,
    destination_states,
)


def reconcile(
    tx: Transaction, study_instance_uid: str, expectations: Mapping[str, Expectation]
) -> Reconciliation | None:
    """Return how far a study came at every destination; None when there is no such study.

    Parameters
    ----------
    expectations
        By exporter, what it is configured to see to beyond delivery.
    """
    queries = load_queries("reconciliation")
    parameters = {"study": study_instance_uid}
    row = tx.execute(queries["study"], parameters).fetchone()
    if row is None:
        return None
    created_time, received, rejected = row
    progress = [InstanceProgress(*each) for each in tx.execute(queries["instances"], parameters)]
    return Reconciliation(
        study_instance_uid=study_instance_uid,
        created_time=created_time,
        received=received,
        rejected=rejected,
        destinations=destination_states(progress, _records(tx, study_instance_uid), expectations),
    )


def _records(tx: Transaction, study_instance_uid: str) -> Records:
    queries = load_queries("reconciliation")
    parameters = {"study": study_instance_uid}
    latest = [LatestTask(*each) for each in tx.execute(queries["tasks"], parameters)]
    notified: dict[tuple[str | None, str], set[str]] = {}
    for exporter_id, aet, uid in tx.execute(queries["notified"], parameters):
        notified.setdefault((exporter_id, aet), set()).add(uid)
    return Records(latest, notified)


def incomplete(
    tx: Transaction, *, older_than_s: float = 0.0, limit: int = 100
) -> list[IncompleteStudy]:
    """Return studies for which something is not done, the oldest first.

    Parameters
    ----------
    older_than_s
        Only studies whose first object came longer ago than so many seconds.
    """
    rows = tx.execute(
        load_queries("reconciliation")["incomplete"],
        {"older_than_s": older_than_s, "limit": limit},
    )
    return [IncompleteStudy(*row) for row in rows]
