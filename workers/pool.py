"""Celery's thread pool with an event loop that notices at once when a thread becomes free.

With prefetching disabled the worker asks Redis for a hint only when a slot is free, but the end of
a thread's task does not wake its event loop: a slot would stand idle for up to 0.7 s.
"""

import os
from typing import Any

from celery.concurrency.thread import ApplyResult, TaskPool


class HintResult(ApplyResult):
    """A task in the pool."""

    def terminate(self, _signal: int) -> None:
        """Do nothing: a thread is stopped through the ledger's cancel."""


class HintPool(TaskPool):
    """Thread pool that wakes the event loop after each task."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's own
        super().__init__(*args, **kwargs)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def register_with_event_loop(self, hub: Any) -> None:  # noqa: ANN401 - kombu has no types
        """Have `hub` watch for ended tasks; called again after each reconnect to the broker."""
        hub.add_reader(self._reader, self._drain)

    def on_apply(self, *args: Any, **kwargs: Any) -> HintResult:  # noqa: ANN401 - Celery's own
        """Run a task in a thread."""
        future = super().on_apply(*args, **kwargs).f
        future.add_done_callback(self._wake)
        return HintResult(future)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: `task_revoked` cancels the task in the ledger, which stops its thread."""

    def _wake(self, _future: object) -> None:
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the loop has plenty to wake up for

    def _drain(self) -> None:
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return
