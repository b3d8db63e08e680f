"""Which queues a worker consumes, kept equal to the configuration while it runs."""

import logging
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from kombu import Exchange, Queue

from archive.errors import DicomqError
from archive.ledger import tasks
from archive.telemetry import log_event
from workers import events
from workers.fallback import Fallback
from workers.queues import PoolKind, configured_queues, consumed_queues, parse_kinds

if TYPE_CHECKING:
    from workers.runtime import Runtime

LOGGER = logging.getLogger(__name__)

SYNC_S = 2.0


class QueueWatch:
    """Knows which queues a worker has to consume; asks configuration and ledger in a thread.

    Parameters
    ----------
    runtime
        Runtime of the worker process.
    kinds
        Kinds of queues that the worker serves.
    """

    def __init__(self, runtime: "Runtime", kinds: Collection[PoolKind]) -> None:
        self._runtime = runtime
        self._kinds = kinds
        self._stopped = threading.Event()
        self._usable = True
        self._migrated = False
        self._waiting: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()
        try:
            self._wanted = self._decide()
        except DicomqError as error:
            self._report(error)
        threading.Thread(target=self._run, name="queues", daemon=True).start()

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the queues to consume, as last seen."""
        return self._wanted

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def refresh(self) -> None:
        """Read configuration and ledger once.

        Raises
        ------
        DicomqError
            When directory or ledger cannot be read; what is known stays valid.
        """
        self._wanted = self._decide()
        if not self._migrated:
            self._runtime.ledger.migrate()
            self._migrated = True
        device = self._runtime.settings.device_name
        with self._runtime.ledger.statement() as tx:
            waiting = [queue.name for queue in tasks.waiting_queues(tx, device)]
            handed_over = tasks.unclaimed(tx, device, older_than_s=0)
        self._waiting = frozenset((*waiting, *handed_over))
        self._wanted = self._decide()

    def _decide(self) -> frozenset[str]:
        configured = configured_queues(self._runtime.source.snapshot())
        return consumed_queues(self._kinds, configured, self._waiting)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.refresh()
                self._usable = True
            except Exception as error:  # noqa: BLE001 - without this thread queues would not change
                self._report(error)
            self._stopped.wait(SYNC_S)

    def _report(self, error: Exception) -> None:
        """Log the first of several failures in a row."""
        if self._usable:
            log_event(
                LOGGER,
                events.QUEUES_UNKNOWN,
                level=logging.WARNING,
                exc_info=not isinstance(error, DicomqError),
                message=str(error),
            )
        self._usable = False


class QueueSync(bootsteps.StartStopStep):
    """Keeps the consumed queues equal to those of the configuration.

    It does so also after a reconnect to the broker and needs no list of queues on the command
    line; one given with -Q is left as it is.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(
        self,
        consumer: Any,  # noqa: ANN401 - Celery has no types
        kind: Collection[PoolKind] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(consumer, **kwargs)
        runtime = consumer.app.runtime()
        self._watch = QueueWatch(runtime, kind or parse_kinds(()))
        slots = consumer.controller.concurrency
        self._fallback = Fallback(runtime, lambda: self._watch.wanted, slots=slots)
        self._fallback.start()
        self._timer: Any = None

    def include_if(self, consumer: Any) -> bool:  # noqa: ANN401
        """Tell whether the queues were left to us."""
        queues = consumer.app.amqp.queues
        return queues.consume_from is queues

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Begin to reconcile; called again after each reconnect to the broker."""
        self._fallback.stop()
        self._timer = consumer.timer.call_repeatedly(SYNC_S, self.reconcile, (consumer,))
        self.reconcile(consumer)

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002
        """Work without the broker while there is no connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fallback.start()

    def shutdown(self, consumer: Any) -> None:  # noqa: ANN401, ARG002
        """End with the worker."""
        self._watch.stop()
        self._fallback.close()

    def reconcile(self, consumer: Any) -> None:  # noqa: ANN401
        """Add and cancel queues; runs in the worker's event loop and asks nobody but the watch."""
        if consumer.task_consumer is None:
            return
        consumed = {queue.name for queue in consumer.task_consumer.queues}
        wanted = self._watch.wanted
        if consumed == wanted:
            return
        added, canceled = sorted(wanted - consumed), sorted(consumed - wanted)
        declared = consumer.app.amqp.queues
        for name in added:
            declared.select_add(Queue(name, Exchange(""), routing_key=name))
            consumer.add_task_queue(name)
        for name in canceled:
            consumer.cancel_task_queue(name)
        log_event(
            LOGGER,
            events.QUEUES_CHANGED,
            added=", ".join(added) or None,
            canceled=", ".join(canceled) or None,
        )
