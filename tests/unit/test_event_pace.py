"""Task events that gather: none is lost while others are published, or when the broker is away."""

from collections.abc import Callable
from typing import Any

import pytest

from workers.app import WorkerApp


class Broker:
    """Takes the place of a kombu producer, which the dispatcher is given from outside."""

    def __init__(self) -> None:
        self.published: list[list[str]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def publish(self, events: list[dict[str, Any]], **_: object) -> None:
        """Note the tasks of a publication, as they are when it goes out."""
        uuids = [event["uuid"] for event in events]
        self.meanwhile()
        self.published.append(uuids)


def dispatcher_of(app: WorkerApp) -> Any:  # noqa: ANN401 - Celery has no types
    """Return a dispatcher as a worker makes it."""
    return app.events.Dispatcher(app.connection_for_write("memory://"), buffer_group=["task"])


@pytest.fixture
def app() -> WorkerApp:
    """An application of ours."""
    return WorkerApp("events", set_as_current=False)


def test_what_is_sent_during_a_publication_goes_with_the_next(app: WorkerApp) -> None:
    broker, dispatcher = Broker(), dispatcher_of(app)
    dispatcher.producer = broker
    dispatcher.send("task-started", uuid="1")
    broker.meanwhile = lambda: dispatcher.send("task-succeeded", uuid="2")
    dispatcher.flush()
    broker.meanwhile = lambda: None
    dispatcher.flush()
    dispatcher.flush()
    assert broker.published == [["1"], ["2"]]


def test_what_could_not_be_published_is_published_later(app: WorkerApp) -> None:
    broker, dispatcher = Broker(), dispatcher_of(app)
    dispatcher.producer = None  # as after the loss of the connection
    dispatcher.send("task-started", uuid="1")
    dispatcher.flush()
    dispatcher.producer = broker
    dispatcher.flush()
    assert broker.published == [["1"]]


def test_a_new_connection_takes_over_what_has_gathered(app: WorkerApp) -> None:
    broker, before, after = Broker(), dispatcher_of(app), dispatcher_of(app)
    before.send("task-started", uuid="1")
    after.producer = broker
    after.extend_buffer(before)
    after.flush()
    assert broker.published == [["1"]]
