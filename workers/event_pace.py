"""Publishes Celery's task events a few times a second instead of once for each pass of its loop.

Each publication waits for Redis in the event loop of the worker, which hands out no hints
meanwhile: with short tasks it was a third of what the process did. Flower shows no difference.
"""

from functools import partial
from typing import Any

from celery import bootsteps
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from typing_extensions import override

FLUSH_S = 0.2
BUFFER_LIMIT = 1000


class GatheringDispatcher(EventDispatcher):
    """Celery's dispatcher, which loses no event that a thread sends while others are published.

    Celery empties the list that it has just published, or could not publish, of whatever it holds
    by then. Here only what was published leaves the list; threads add to its end meanwhile.
    """

    @override
    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Publish what could not go out before (`errors`) and what has gathered (`groups`)."""
        super().flush(errors=errors, groups=False)
        if groups:
            with self.mutex:
                for group, gathered in tuple(self._group_buffer.items()):
                    self._publish_group(group, gathered)

    def _publish_group(self, group: str, gathered: list[Any]) -> None:
        published = gathered.copy()
        if published:
            self._publish(published, self.producer, f"{group}.multi")
            del gathered[: len(published)]

    @override
    def extend_buffer(self, other: Any) -> None:
        """Take over what another dispatcher, whose connection broke, has not published."""
        super().extend_buffer(other)
        for group, gathered in tuple(other._group_buffer.items()):  # noqa: SLF001 - of the same class
            self._group_buffer[group].extend(gathered)


class GatheringEvents(Events):
    """Has Celery make dispatchers of that class."""

    dispatcher_cls = GatheringDispatcher


class EventPace(bootsteps.StartStopStep):
    """Lets task events gather for `FLUSH_S` seconds before they are published."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: object) -> None:  # noqa: ANN401 - Celery has no types
        super().__init__(consumer, **kwargs)
        self._is_due = False

    def include_if(self, consumer: Any) -> bool:  # noqa: ANN401
        """Tell whether the worker has an event loop; without one Celery gathers nothing."""
        return consumer.hub is not None

    def start(self, consumer: Any) -> None:  # noqa: ANN401
        """Begin; called again after each reconnect to the broker."""
        self._is_due = False
        dispatcher = consumer.event_dispatcher
        dispatcher.buffer_limit = BUFFER_LIMIT
        dispatcher.on_send_buffered = partial(self._note, consumer)

    def shutdown(self, consumer: Any) -> None:  # noqa: ANN401
        """Publish what is left."""
        self._flush(consumer)

    def _note(self, consumer: Any) -> None:  # noqa: ANN401
        """See to it that an event is published soon; called by the thread that sent it."""
        if not self._is_due:
            self._is_due = True
            consumer.hub.call_soon(consumer.timer.call_after, FLUSH_S, self._flush, (consumer,))

    def _flush(self, consumer: Any) -> None:  # noqa: ANN401
        self._is_due = False
        if consumer.event_dispatcher:
            consumer.event_dispatcher.flush()
