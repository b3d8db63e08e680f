"""What a worker process shares between its tasks: ledger, configuration, leases and the runner."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource, open_source
from archive.ledger.connection import Ledger
from archive.ledger.reloads import following_reloads
from archive.model.task import TaskKind
from workers.kept import KeptAssociations
from workers.leases import LeaseConfig, LeaseKeeper
from workers.metrics import WorkerMetrics, served
from workers.processor import Processor
from workers.runner import Runner, RunnerServices

MAX_CONNECTIONS = 16
"""As many threads as that claim or finish at the same time, and share a flush of the WAL."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The long-lived objects of a worker process."""

    settings: Settings
    ledger: Ledger
    source: ConfigurationSource
    keeper: LeaseKeeper
    runner: Runner
    serving: ExitStack

    def close(self) -> None:
        """End the threads and connections of this process."""
        self.serving.close()
        self.keeper.close()
        self.ledger.close()


def open_runtime(
    settings: Settings, processors: Mapping[TaskKind, Processor], *, worker: str
) -> Runtime:
    """Open what a worker process needs; PostgreSQL is connected to in the background.

    Parameters
    ----------
    worker
        Name under which the process claims tasks, unique among the running ones.
    """
    ledger = Ledger(settings.database_url, max_connections=MAX_CONNECTIONS)
    source = open_source(settings)
    config = LeaseConfig(lease_s=settings.lease_s, heartbeat_s=settings.heartbeat_s)
    keeper = LeaseKeeper(ledger, config, SYSTEM_CLOCK)
    metrics = WorkerMetrics()
    serving = ExitStack()
    serving.enter_context(following_reloads(ledger, source.reload))
    serving.enter_context(served(metrics.registry, settings))
    kept = KeptAssociations(settings.association_idle_s)
    serving.callback(kept.close)
    services = RunnerServices(
        ledger=ledger,
        source=source,
        processors=processors,
        settings=settings,
        clock=SYSTEM_CLOCK,
        worker=worker,
        metrics=metrics,
        kept=kept,
    )
    return Runtime(settings, ledger, source, keeper, Runner(services, keeper), serving)
