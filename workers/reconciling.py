"""Reconciliation as a service, for the command line, REST and Flower."""

from archive.configuration.descriptors import Snapshot
from archive.configuration.source import SnapshotSource
from archive.ledger import reconciliation
from archive.ledger.connection import Ledger
from archive.model.reconciliation import Expectation, IncompleteStudy, Reconciliation


class Reconciler:
    """Answers how far studies came."""

    def __init__(self, ledger: Ledger, source: SnapshotSource) -> None:
        self._ledger = ledger
        self._source = source

    def study(self, study_instance_uid: str) -> Reconciliation | None:
        """Return how far a study came at every destination; None when there is no such study."""
        expected = expectations(self._source.snapshot())
        with self._ledger.transaction() as tx:
            return reconciliation.reconcile(tx, study_instance_uid, expected)

    def incomplete(self, *, older_than_s: float = 0.0, limit: int = 100) -> list[IncompleteStudy]:
        """Return studies for which something is not done, the oldest first."""
        with self._ledger.statement() as tx:
            return reconciliation.incomplete(tx, older_than_s=older_than_s, limit=limit)


def expectations(snapshot: Snapshot) -> dict[str, Expectation]:
    """Return by exporter what it is configured to see to beyond delivery."""
    return {
        exporter_id: Expectation(exporter.storage_commitment_scp, exporter.ian_destinations)
        for exporter_id, exporter in snapshot.device.exporters.items()
    }
