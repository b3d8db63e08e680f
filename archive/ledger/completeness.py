"""What is known of studies and series that were fetched from the fallback archive.

A row is made before anything is fetched, so that a worker that dies leaves the study as UNKNOWN
and the next C-MOVE asks again.
"""

from collections.abc import Sequence

from psycopg.rows import dict_row

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.completeness import Completeness, Holding
from archive.model.retrieval import RetrieveIdentifier, RetrieveLevel


def holdings(tx: Transaction, identifier: RetrieveIdentifier) -> list[Holding]:
    """Return what is known of the studies or series that an identifier asks for.

    None for other levels: an object is there or it is not, and whose studies a patient has
    elsewhere is not known here.
    """
    if identifier.level not in {RetrieveLevel.STUDY, RetrieveLevel.SERIES}:
        return []
    is_series = identifier.level is RetrieveLevel.SERIES
    parameters = {
        "studies": list(identifier.study_instance_uids),
        "series": list(identifier.series_instance_uids) if is_series else [],
    }
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(load_queries("completeness")["holdings"], parameters).fetchall()
    return [
        Holding(
            row["study_instance_uid"],
            row["series_instance_uid"],
            row["instances"],
            row["study_date"],
            Completeness(row["state"]) if row["state"] else None,
            row["failed_retrieves"],
            row["has_grown"],
        )
        for row in rows
    ]


def set_out(tx: Transaction, study_instance_uids: Sequence[str]) -> list[str]:
    """Note that studies are about to be fetched; return those of which nothing was known."""
    query = load_queries("completeness")["set_out"]
    rows = tx.execute(query, {"studies": list(study_instance_uids)}).fetchall()
    return [str(uid) for (uid,) in rows]


def settle(
    tx: Transaction, study_instance_uid: str, series_instance_uid: str, state: Completeness
) -> None:
    """Note how complete a study (empty Series Instance UID) or series is after a fetch."""
    keys = {"study": study_instance_uid, "series": series_instance_uid, "state": state}
    tx.execute(load_queries("completeness")["settle"], keys)
    if not series_instance_uid and state is not Completeness.UNKNOWN:
        tx.execute(load_queries("completeness")["forget_series"], {"study": study_instance_uid})


def forget(tx: Transaction, study_instance_uids: Sequence[str]) -> None:
    """Take back that studies were about to be fetched: nothing of them came."""
    tx.execute(load_queries("completeness")["forget"], {"studies": list(study_instance_uids)})
