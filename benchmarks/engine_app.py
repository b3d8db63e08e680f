"""Applications of the engine's benchmark: ours with processors that do nothing, and bare Celery.

Bare Celery runs a task that only counts itself. It gets no result backend and a pool of the same
kind and size; all else is as Celery has it by default, apart from the events that we need too.
"""

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from celery import Celery
from typing_extensions import override

from archive.model.task import Outcome, Task, TaskKind, TaskStatus
from workers.app import WorkerApp, prepare_app
from workers.processor import Processor, TaskContext


class NoProcessor:
    """Performs nothing, with success."""

    def perform(self, task: Task, context: TaskContext) -> Outcome:  # noqa: ARG002 - the protocol
        """Return at once."""
        return Outcome(TaskStatus.COMPLETED, "nothing to do")


class NoopApp(WorkerApp):
    """The application with processors that do nothing."""

    @override
    def processors(self) -> Mapping[TaskKind, Processor]:
        """Return the processors."""
        return dict.fromkeys(TaskKind, NoProcessor())


class Tally:
    """Counts the tasks of bare Celery and writes when the first began and the last ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._began = 0.0

    def note(self, total: int, path: str) -> None:
        """Count one of `total` tasks; the last one writes seconds to `path`."""
        with self._lock:
            if self._count == 0:
                self._began = time.monotonic()
            self._count += 1
            if self._count == total:
                self._count = 0
                Path(path).write_text(str(time.monotonic() - self._began))


def bare_app(broker: str) -> Celery:
    """Return an application of bare Celery with the task `bare.noop`."""
    celery = Celery("bare", broker=broker, set_as_current=False)
    celery.conf.update(
        task_ignore_result=True,
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
    )
    tally = Tally()
    celery.task(tally.note, name="bare.noop")
    return celery


app = prepare_app(NoopApp("dicomq-noop", set_as_current=True))
bare = bare_app(os.environ.get("REDIS_URL", ""))
