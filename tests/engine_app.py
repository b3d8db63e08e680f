"""Celery application of the engine's tests: the real one, with processors that follow a script.

The task's exporter ID is its script: ``noop``; ``steps:SECONDS`` works in steps of 50 ms and asks
between them whether to stop; ``hang`` blocks until it is aborted; ``transient``, ``permanent`` and
``bug`` fail; ``poison`` kills its worker.
"""

import os
import signal
import threading
from collections.abc import Mapping
from typing import NoReturn

from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.errors import NoAcceptedContextError, PeerUnreachableError
from archive.model.task import Outcome, Task, TaskKind, TaskStatus
from workers.app import WorkerApp, prepare_app
from workers.processor import Processor, TaskContext

STEP_S = 0.05


class ScriptedProcessor:
    """Performs the script of a task and records when it did."""

    def perform(self, task: Task, context: TaskContext) -> Outcome:
        """Perform the script."""
        path = context.settings.data_dir / "runs.log"
        with path.open("ab", buffering=0) as log:
            log.write(_line("start", task))
            try:
                return _play(task.exporter_id or "noop", context)
            finally:
                log.write(_line("end", task))


def _line(word: str, task: Task) -> bytes:
    now = SYSTEM_CLOCK.monotonic()
    return f"{word} {task.pk} {task.attempt} {os.getpid()} {now}\n".encode()


def _play(script: str, context: TaskContext) -> Outcome:
    name, _, argument = script.partition(":")
    match name:
        case "steps":
            return _steps(round(float(argument) / STEP_S), context)
        case "hang":
            _hang(context)
        case "transient":
            msg = "STORESCP refused the connection"
            raise PeerUnreachableError(msg)
        case "permanent":
            msg = "STORESCP accepts no CT images"
            raise NoAcceptedContextError(msg)
        case "bug":
            msg = "a defect"
            raise RuntimeError(msg)
        case "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            pass
    return Outcome(TaskStatus.COMPLETED, "1 of 1 delivered")


def _steps(count: int, context: TaskContext) -> Outcome:
    pause = threading.Event()  # libfaketime knows waiting, but not the sleep of Python
    for step in range(count):
        if context.cancelled():
            return Outcome(TaskStatus.CANCELED, f"{step} of {count} delivered")
        pause.wait(STEP_S)
    return Outcome(TaskStatus.COMPLETED, f"{count} of {count} delivered")


def _hang(context: TaskContext) -> NoReturn:
    broken = threading.Event()
    with context.on_abort(broken.set):
        broken.wait()
    msg = "the connection to STORESCP broke"
    raise PeerUnreachableError(msg)


class ScriptedApp(WorkerApp):
    """The application with scripted processors for every kind of task."""

    @override
    def processors(self) -> Mapping[TaskKind, Processor]:
        """Return the scripted processors."""
        return dict.fromkeys(TaskKind, ScriptedProcessor())


app = prepare_app(ScriptedApp("dicomq-test", set_as_current=True))
