"""What is measured in the ledger as a whole, beside the loads that `archive.ledger.gates` tells."""

from dataclasses import dataclass

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries


@dataclass(frozen=True, slots=True)
class OpenCommitments:
    """Requests for storage commitment to one destination.

    Attributes
    ----------
    count, oldest_s
        Those that were not reported on yet, and the age of the oldest in seconds.
    overdue
        Those that were not fulfilled when their deadline was over, within the last hour.
    """

    remote_aet: str
    count: int
    oldest_s: float
    overdue: int


def open_commitments(tx: Transaction, device_name: str) -> list[OpenCommitments]:
    """Return what waits for a report of storage commitment (PS3.4 §J.3.3), by destination."""
    rows = tx.execute(load_queries("measures")["open_commitments"], {"device_name": device_name})
    return [OpenCommitments(*row) for row in rows]
