"""Which queues a worker consumes, kept equal to those in use while it runs."""

import logging
import os
from collections.abc import Collection
from typing import Any

from celery import bootsteps
from kombu import Consumer, Exchange, Queue

from archive.telemetry import log_event
from workers import events
from workers.fallback import Fallback
from workers.hints import HintBroker
from workers.queue_watch import SYNC_S, QueueWatch
from workers.queues import PoolKind, parse_kinds

LOGGER = logging.getLogger(__name__)


class QueueSync(bootsteps.StartStopStep):
    """Keeps the consumed queues equal to those that have, or lately had, hints.

    It does so also after a reconnect to the broker and needs no list of queues on the command
    line; one given with -Q is left as it is.

    The worker waits for hints in a BRPOP of up to a second, which names the queues it had when it
    began. A queue of this process alone is among them: a message in it ends the wait, so that a
    queue that has just got its first hint is listened to at once.
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
        kinds = kind or parse_kinds(())
        self._wake_queue = f"dicomq.wake.{consumer.hostname}.{os.getpid()}"
        self._broker = HintBroker(consumer.app)
        self._watch = QueueWatch(runtime, kinds, lambda: self._broker.wake(self._wake_queue))
        slots = consumer.controller.concurrency
        self._fallback = Fallback(runtime, kinds, slots=slots)
        self._fallback.start()
        self._timer: Any = None
        self._waker: Any = None

    def include_if(self, consumer: Any) -> bool:  # noqa: ANN401
        """Tell whether the queues were left to us."""
        queues = consumer.app.amqp.queues
        return queues.consume_from is queues

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Begin to reconcile; called again after each reconnect to the broker."""
        self._fallback.stop()
        self._waker = Consumer(
            consumer.task_consumer.channel,
            [_queue(self._wake_queue)],
            no_ack=True,
            on_message=lambda _message: self.reconcile(consumer),
        )
        self._waker.consume()
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
            declared.select_add(_queue(name))
            consumer.add_task_queue(name)
        for name in canceled:
            consumer.cancel_task_queue(name)
        log_event(
            LOGGER,
            events.QUEUES_CHANGED,
            added=", ".join(added) or None,
            canceled=", ".join(canceled) or None,
        )


def _queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)
