"""Puts right what nobody else can: tasks of lost workers, and done tasks past their time."""

import logging
import threading
from dataclasses import dataclass

from archive.clock import Clock
from archive.configuration.descriptors import Queue
from archive.configuration.source import SnapshotSource
from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import Task, TaskStatus
from archive.telemetry import log_event
from workers import events
from workers.conclusion import Settle, conclude, outcome_of_lost_worker
from workers.looking import NowAndThen, look_again_and_again
from workers.metrics import DispatcherMetrics
from workers.processor import StopReason

LOGGER = logging.getLogger(__name__)

ACTOR = "rescuer"


@dataclass(frozen=True, slots=True)
class RescuerConfig:
    """How often the rescuer looks.

    Attributes
    ----------
    device_name
        Device whose tasks are looked after.
    rescue_every_s, purge_every_s
        Seconds between looks at leases, and at done tasks.
    purge_chunk
        Tasks that one statement deletes.
    """

    device_name: str
    rescue_every_s: float = 2.0
    purge_every_s: float = 60.0
    purge_chunk: int = 1000


def purge_delays(queue: Queue) -> dict[TaskStatus, float]:
    """Return the statuses whose tasks `queue` does not keep for ever, with how long in seconds."""
    delays = {
        TaskStatus.COMPLETED: queue.purge_completed_s,
        TaskStatus.WARNING: queue.purge_warning_s,
        TaskStatus.FAILED: queue.purge_failed_s,
        TaskStatus.CANCELED: queue.purge_canceled_s,
    }
    return {status: delay_s for status, delay_s in delays.items() if delay_s is not None}


class Rescuer:
    """Looks after leases and purge delays; any number may run side by side."""

    def __init__(
        self,
        ledger: Ledger,
        source: SnapshotSource,
        clock: Clock,
        *,
        config: RescuerConfig,
        metrics: DispatcherMetrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._config = config
        self._metrics = metrics or DispatcherMetrics()

    def run_once(self) -> int:
        """Give tasks whose lease ran out to the retry policy of their queue; return how many."""
        with self._ledger.transaction() as tx:
            lapsed = tasks.lapsed(tx, self._config.device_name)
            for task in lapsed:
                settled = self._settled(task)
                tasks.finish(tx, task, settled.outcome, settled.decision, actor=ACTOR)
        for task in lapsed:
            self._metrics.rescued.labels(task.queue_name).inc()
            log_event(
                LOGGER,
                events.TASKS_RESCUED,
                level=logging.WARNING,
                task=task.pk,
                attempt=task.attempt,
                worker=task.worker,
            )
        return len(lapsed)

    def purge_once(self, stop: threading.Event) -> int:
        """Delete done tasks past their queue's purge delays, in chunks; return how many."""
        purged = 0
        for queue in self._source.snapshot().device.queues.values():
            for status, delay_s in purge_delays(queue).items():
                purged += self._purge(queue.name, status, delay_s, stop=stop)
        if purged:
            log_event(LOGGER, events.TASKS_PURGED, count=purged)
        return purged

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        purge = NowAndThen(self._clock, self._config.purge_every_s, lambda: self.purge_once(stop))

        def look() -> None:
            while self.run_once():
                pass
            purge()

        look_again_and_again(stop, self._config.rescue_every_s, look, LOGGER)

    def _settled(self, task: Task) -> Settle:
        policy = self._source.snapshot().queue(task.queue_name).retry
        reason = StopReason.CANCELED if task.cancel_requested else None
        conclusion = conclude(outcome_of_lost_worker(task), reason, policy, failures=task.failures)
        assert isinstance(conclusion, Settle)  # noqa: S101 - neither lost nor shutting down
        return conclusion

    def _purge(
        self, queue_name: str, status: TaskStatus, delay_s: float, *, stop: threading.Event
    ) -> int:
        purged = 0
        while not stop.is_set():
            with self._ledger.statement() as tx:
                count = tasks.purge(
                    tx,
                    self._config.device_name,
                    queue_name,
                    status,
                    older_than_s=delay_s,
                    limit=self._config.purge_chunk,
                )
            purged += count
            if count < self._config.purge_chunk:
                break
        return purged
