"""Hints in Redis: the one place that publishes to the broker or counts what waits there.

A hint is a Celery message for the task `dicomq.run` in the Celery queue of the same name as the
ledger's queue. It goes to the default exchange, which needs no bindings in Redis: a flushed Redis
is as good as a new one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import ChannelError, OperationalError

from archive.errors import Blame, DicomqError
from archive.model.task import Hint

RUN_TASK = "dicomq.run"
_TRANSIENT = 1


class BrokerUnavailableError(DicomqError):
    """Redis cannot be reached or refused a command; no task is lost by that."""

    retryable = True
    blame = Blame.OPERATOR


class HintBroker:
    """Publishes hints over a connection of its own, opened when first needed.

    Parameters
    ----------
    app
        Celery application that names the broker.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def ping(self) -> None:
        """Make sure that the broker answers.

        Raises
        ------
        BrokerUnavailableError
            When it does not.
        """
        with self._open() as producer:
            producer.channel.client.ping()

    def publish(self, queue_name: str, hints: Iterable[Hint]) -> None:
        """Put hints into the queue called `queue_name`, in order.

        Raises
        ------
        BrokerUnavailableError
            When the broker failed; some of the hints may have been published.
        """
        with self._open() as producer:
            for hint in hints:
                message = self._app.amqp.as_task_v2(
                    f"{hint.task_pk}.{hint.attempt}",
                    RUN_TASK,
                    args=(hint.task_pk, hint.attempt),
                    ignore_result=True,
                )
                producer.publish(
                    message.body,
                    exchange="",
                    routing_key=queue_name,
                    serializer="json",
                    delivery_mode=_TRANSIENT,
                    headers=message.headers,
                    retry=False,
                    **message.properties,
                )

    def wake(self, wake_queue: str) -> None:
        """Put an empty message into a worker's own queue, which ends its wait for hints.

        Raises
        ------
        BrokerUnavailableError
            When the broker failed.
        """
        with self._open() as producer:
            producer.publish(
                {}, exchange="", routing_key=wake_queue, serializer="json", retry=False
            )

    def waiting(self, queue_name: str) -> int:
        """Return how many messages wait in the queue called `queue_name`.

        Raises
        ------
        BrokerUnavailableError
            When the broker failed.
        """
        with self._open() as producer:
            try:
                declared = producer.channel.queue_declare(queue=queue_name, passive=True)
            except ChannelError:  # there is no such list, which is how Redis keeps an empty one
                return 0
            return int(declared.message_count)

    def close(self) -> None:
        """Drop the connection; the next call opens another one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.collect()

    @contextmanager
    def _open(self) -> Iterator[Producer]:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        failures = (
            OperationalError,
            *self._connection.connection_errors,
            *self._connection.channel_errors,
        )
        try:
            if self._producer is None:
                # A channel of its own: the default one would be waited for, again and again.
                channel = self._connection.channel()
                self._producer = self._app.amqp.Producer(channel, auto_declare=False)
            yield self._producer
        except failures as error:
            broker = self._connection.as_uri()
            self.close()
            reason = str(error).rstrip(".")
            msg = (
                f"the broker {broker} cannot be used: {reason}; start Redis or correct REDIS_URL,"
                " or maxmemory of a full one. Tasks wait in PostgreSQL and go on by themselves"
            )
            raise BrokerUnavailableError(msg) from error
