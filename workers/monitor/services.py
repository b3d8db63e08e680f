"""What the pages and REST work with, made once per Flower process."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from archive.clock import Clock
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.ledger.connection import Ledger
from workers.gatekeeping import DestinationView, Gatekeeper, QueueView
from workers.monitor.access import Roles
from workers.monitor.bulk_jobs import BulkJobs
from workers.monitor.recent import Recent
from workers.operations import Operations
from workers.ordering import Orders

THREADS = 8
REST_THREADS = 32
GATES_AGE_S = 4.0


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

    def queues(self) -> list[QueueView]:
        """Return how the queues stand, at most some seconds ago."""
        return self.recent.get("queues", GATES_AGE_S, self.gatekeeper().queues)

    def destinations(self) -> list[DestinationView]:
        """Return how the destinations stand, at most some seconds ago."""
        return self.recent.get("destinations", GATES_AGE_S, self.gatekeeper().destinations)

    def gatekeeper(self, actor: str = "") -> Gatekeeper:
        """Return the gates of queues and destinations, on behalf of `actor`."""
        name = self.settings.device_name
        return Gatekeeper(self.ledger, self.source, self.clock, device_name=name, actor=actor)
