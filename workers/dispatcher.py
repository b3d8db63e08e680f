"""Hands due tasks over to the workers.

Each pass marks due rows of open queues with an attempt number, as many as the queue's
dcmMaxTasksParallel leaves room for, commits, and publishes their hints. Passes are driven by the
ledger's notifications and by the time the next task is due; polling is only the safety net.

Any number of dispatchers may run. Rows marked by one that died before it published, and hints
that Redis lost, look the same: handed over, not claimed, and Redis holds fewer hints than there
are such rows. They are handed over again under a new attempt number, so that a hint which turns
up after all is stale. While no worker runs Redis holds as many hints as there are rows, and
nothing is published again.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from archive.clock import Clock
from archive.configuration.descriptors import Queue, Snapshot
from archive.configuration.source import SnapshotSource
from archive.errors import DicomqError
from archive.ledger import tasks
from archive.ledger.connection import TASK_CHANNEL, Ledger, Listener
from archive.ledger.migrations import Stage
from archive.model.task import WaitingQueue
from archive.telemetry import checkpoint, log_event
from workers import events
from workers.hints import HintBroker
from workers.metrics import DispatcherMetrics

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """How a dispatcher works.

    Attributes
    ----------
    device_name
        Device whose tasks are dispatched.
    poll_s
        Longest pause between two passes.
    gather_s
        Shortest pause between two passes of a backlog, so that one pass hands many tasks over.
    backlog_passes
        After so many passes in a row that handed something over there is a backlog.
    recall_after_s
        How long a hint may stay unclaimed before its existence is checked.
    recall_every_s
        Pause between two such checks.
    back_off_s
        Pauses after failures in a row; the last one is repeated.
    announce_every_s
        How often workers are told that a queue is in use; far less than they remember it.
    reaction_s
        Longest time until `stop` is noticed.
    """

    device_name: str
    poll_s: float = 5.0
    gather_s: float = 0.025
    backlog_passes: int = 3
    recall_after_s: float = 2.0
    recall_every_s: float = 1.0
    back_off_s: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    announce_every_s: float = 5.0
    reaction_s: float = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass has to do.

    Attributes
    ----------
    open_queues
        Queues with due tasks that may run now.
    idle_s
        Seconds until more may become due, None when nothing waits for a time.
    """

    open_queues: tuple[Queue, ...]
    idle_s: float | None


def plan_pass(snapshot: Snapshot, waiting: Iterable[WaitingQueue]) -> Plan:
    """Decide which queues with waiting tasks are served now, and when to look again."""
    open_queues: list[Queue] = []
    pauses: list[float] = []
    for each in waiting:
        queue = snapshot.queue(each.name)
        if not queue.installed:
            continue
        opens_in_s = (queue.schedule.ceil(each.now) - each.now).total_seconds()
        if each.due_in_s <= 0 and opens_in_s <= 0:
            open_queues.append(queue)
        else:
            pauses.append(max(each.due_in_s, opens_in_s))
    return Plan(tuple(open_queues), min(pauses, default=None))


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass did.

    Attributes
    ----------
    dispatched
        Number of tasks handed over.
    idle_s
        Seconds until more may become due, None when nothing waits for a time.
    """

    dispatched: int
    idle_s: float | None


class Dispatcher:
    """Hands due tasks over; see the module."""

    def __init__(
        self,
        ledger: Ledger,
        source: SnapshotSource,
        broker: HintBroker,
        *,
        clock: Clock,
        config: DispatcherConfig,
        metrics: DispatcherMetrics | None = None,
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._broker = broker
        self._clock = clock
        self._config = config
        self._metrics = metrics or DispatcherMetrics()
        self._failures = 0
        self._migrated = False
        self._announced_at: dict[str, float] = {}

    def run_once(self) -> Pass:
        """Make one pass over all queues.

        Raises
        ------
        BrokerUnavailableError
            When hints could not be published; `recall` takes care of their rows later.
        LedgerUnavailableError
            When PostgreSQL cannot be reached.
        """
        with self._ledger.statement() as tx:
            waiting = tasks.waiting_queues(tx, self._config.device_name)
        plan = plan_pass(self._source.snapshot(), waiting)
        dispatched = sum(self._hand_over(queue) for queue in plan.open_queues)
        return Pass(dispatched, plan.idle_s)

    def recall(self) -> int:
        """Hand tasks over again whose hints are not in Redis any more; return how many.

        Raises
        ------
        BrokerUnavailableError, LedgerUnavailableError
            As `run_once`.
        """
        after_s, device = self._config.recall_after_s, self._config.device_name
        with self._ledger.statement() as tx:
            overdue = tasks.unclaimed(tx, device, after_s)
        recalled = 0
        for name, count in overdue.items():
            if self._broker.waiting(name) >= count:
                continue
            with self._ledger.statement() as tx:
                hints = tasks.redispatch(tx, device, name, after_s)
            self._broker.publish(name, hints)
            recalled += len(hints)
            self._metrics.recalled.labels(name).inc(len(hints))
            log_event(LOGGER, events.TASKS_RECALLED, queue=name, count=len(hints))
        return recalled

    def run(self, stop: threading.Event) -> None:
        """Dispatch until `stop` is set, through failures of PostgreSQL and Redis."""
        log_event(LOGGER, events.DISPATCHER_STARTED, device=self._config.device_name)
        while not stop.is_set():
            try:
                with self._ledger.listen(TASK_CHANNEL) as listener:
                    self._serve(listener, stop)
            except DicomqError as error:
                self._report(error)
                pauses = self._config.back_off_s
                stop.wait(pauses[min(self._failures, len(pauses)) - 1])
        self._broker.close()
        log_event(LOGGER, events.DISPATCHER_STOPPED)

    def _serve(self, listener: Listener, stop: threading.Event) -> None:
        """Make passes, each after a notification, when something is due, or to be safe."""
        if not self._migrated:
            self._ledger.migrate(Stage.PRE)
            self._migrated = True
        self._broker.ping()
        next_pass = next_recall = self._clock.monotonic()
        busy_passes = 0
        while not stop.is_set():
            began = self._clock.monotonic()
            if began >= next_pass:
                done = self.run_once()
                self._metrics.last_pass.set(self._clock.now().timestamp())
                busy_passes = busy_passes + 1 if done.dispatched else 0
                pause_s = self._config.poll_s if done.idle_s is None else done.idle_s
                next_pass = self._clock.monotonic() + min(pause_s, self._config.poll_s)
            if self._clock.monotonic() >= next_recall:
                self.recall()
                next_recall = self._clock.monotonic() + self._config.recall_every_s
            if self._failures:
                log_event(LOGGER, events.DISPATCHER_RECOVERED)
                self._failures = 0
            if self._wait(listener, min(next_pass, next_recall), stop):
                next_pass = began
            if busy_passes >= self._config.backlog_passes:
                stop.wait(max(0.0, began + self._config.gather_s - self._clock.monotonic()))

    def _wait(self, listener: Listener, until: float, stop: threading.Event) -> bool:
        """Wait for a notification, until a time or `stop`; return whether there was one."""
        while not stop.is_set():
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                return False
            if listener.wait(min(left_s, self._config.reaction_s)):
                return True
        return False

    def _hand_over(self, queue: Queue) -> int:
        with self._ledger.transaction() as tx:
            hints = tasks.dispatch(
                tx, self._config.device_name, queue.name, queue.max_tasks_parallel
            )
            if hints and self._must_announce(queue.name):
                tasks.announce(tx, queue.name)
        checkpoint(events.CHECKPOINT_MARKED)
        self._broker.publish(queue.name, hints)
        checkpoint(events.CHECKPOINT_PUBLISHED)
        self._metrics.dispatched.labels(queue.name).inc(len(hints))
        return len(hints)

    def _must_announce(self, queue_name: str) -> bool:
        """Tell whether workers may have stopped to listen to a queue."""
        now = self._clock.monotonic()
        last = self._announced_at.get(queue_name)
        if last is not None and now - last < self._config.announce_every_s:
            return False
        self._announced_at[queue_name] = now
        return True

    def _report(self, error: DicomqError) -> None:
        """Log the first of several failures in a row."""
        self._failures += 1
        if self._failures > 1:
            return
        log_event(LOGGER, events.DISPATCHER_HALTED, level=logging.WARNING, message=str(error))
