"""What the pages and REST work with, made once per Flower process."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from archive.clock import Clock
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.ledger import commitments
from archive.ledger.commitments import CommitmentGauges
from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from archive.model.task_filter import TaskFilter
from workers.gatekeeping import Gatekeeper, Loads
from workers.monitor.access import Roles
from workers.monitor.bulk_jobs import BulkJobs
from workers.monitor.recent import WAIT_S, Known, Recent
from workers.operations import Operations
from workers.ordering import Orders

THREADS = 8
REST_THREADS = 32
COUNTS_AGE_S = 4.0


@dataclass(frozen=True, slots=True)
class Services:
    """Ledger, configuration and threads of the control room.

    Attributes
    ----------
    executor
        Threads for the pages' waiting for PostgreSQL, the directory or a peer: the I/O loop never
        waits.
    rest_executor
        Threads for REST, of which some answer only when a transfer has ended.
    """

    settings: Settings
    ledger: Ledger
    source: ConfigurationSource
    clock: Clock
    executor: ThreadPoolExecutor
    rest_executor: ThreadPoolExecutor
    jobs: BulkJobs
    recent: Recent
    roles: Roles
    rest_prefix: str

    def operations(self, actor: str) -> Operations:
        """Return the operations on tasks, on behalf of `actor`."""
        return Operations(self.ledger, self.source, actor=actor)

    def orders(self, actor: str) -> Orders:
        """Return the exports by hand, on behalf of `actor`."""
        return Orders(self.ledger, self.source, actor=actor)

    def start_counting(self) -> None:
        """Have counted side by side what is too old of the following."""
        for count in (self.counts, self.loads, self.gauges):
            count(wait_s=0)

    def loads(self, wait_s: float = WAIT_S) -> Known[Loads]:
        """Return how many tasks of queues and destinations are unfinished, some seconds ago."""
        return self.recent.get("loads", COUNTS_AGE_S, self.gatekeeper().loads, wait_s=wait_s)

    def counts(self, wait_s: float = WAIT_S) -> Known[dict[TaskStatus, int]]:
        """Return how many tasks stand in each status, some seconds ago."""
        count = partial(self.operations("").count_by_status, TaskFilter())
        return self.recent.get("counts", COUNTS_AGE_S, count, wait_s=wait_s)

    def gauges(self, wait_s: float = WAIT_S) -> Known[CommitmentGauges]:
        """Return what needs attention of storage commitments, some seconds ago."""
        return self.recent.get("commitments", COUNTS_AGE_S, self._gauges, wait_s=wait_s)

    def _gauges(self) -> CommitmentGauges:
        with self.ledger.statement() as tx:
            return commitments.gauges(tx, self.settings.device_name)

    def gatekeeper(self, actor: str = "") -> Gatekeeper:
        """Return the gates of queues and destinations, on behalf of `actor`."""
        name = self.settings.device_name
        return Gatekeeper(self.ledger, self.source, self.clock, device_name=name, actor=actor)
