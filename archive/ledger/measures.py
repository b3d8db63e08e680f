"""What is measured in the ledger as a whole, beside the loads that `archive.ledger.gates` tells."""

from dataclasses import dataclass

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries


@dataclass(frozen=True, slots=True)
class OpenCommitments:
    """Requests for storage commitment to one destination that were not reported on yet."""

    remote_aet: str
    count: int
    oldest_s: float


def open_commitments(tx: Transaction, device_name: str) -> list[OpenCommitments]:
    """Return what waits for a report of storage commitment (PS3.4 §J.3.3), by destination."""
    rows = tx.execute(load_queries("measures")["open_commitments"], {"device_name": device_name})
    return [OpenCommitments(*row) for row in rows]
