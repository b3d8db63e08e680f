"""Celery's task events, which Flower shows: they gather for a moment and are published."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu import Connection

from archive.model.task import TaskStatus
from tests.fix_engine import Engine
from tests.fix_process import wait_until


@contextmanager
def events_of(engine: Engine) -> Iterator[list[str]]:
    """Collect the ids of tasks whose success is announced."""
    seen: list[str] = []
    app = Celery("observer", broker=engine.redis.url, set_as_current=False)
    ready = threading.Event()

    def listen(connection: Connection) -> None:
        handlers = {
            "task-succeeded": lambda event: seen.append(event["uuid"]),
            "worker-heartbeat": lambda _event: ready.set(),
        }
        receiver = app.events.Receiver(connection, handlers=handlers)
        receivers.append(receiver)
        receiver.capture(limit=None, timeout=None, wakeup=False)

    receivers: list[object] = []
    with app.connection_for_read() as connection:
        thread = threading.Thread(target=listen, args=(connection,), daemon=True)
        thread.start()
        assert ready.wait(30), "the worker is not heard of"
        try:
            yield seen
        finally:
            receivers[0].should_stop = True  # type: ignore[attr-defined] # Celery has no types
            thread.join(10)


def test_events_arrive_also_those_before_the_end(engine: Engine) -> None:
    engine.start_dispatcher()
    worker = engine.start_worker("-E")
    with events_of(engine) as seen:
        first = engine.stage()
        wait_until(lambda: str(first) in map(_task, tuple(seen)), what="the event of a task")
        last = engine.stage()
        engine.await_status(last, TaskStatus.COMPLETED)
        worker.stop()
        wait_until(lambda: str(last) in map(_task, tuple(seen)), what="the event of the last task")
    # One event for each attempt, and nothing of tasks that are not ours.
    assert sorted(seen) == sorted(f"{pk}.1" for pk in (first, last))


def _task(event_id: str) -> str:
    """Return the task of an event; what follows is its attempt."""
    return event_id.partition(".")[0]
