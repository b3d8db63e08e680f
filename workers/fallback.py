"""Work without Redis: a worker that has lost the broker takes due tasks from the ledger itself.

Slower than hints, because every such worker polls, but transfers do not stop with Redis. The same
rules hold: rows are handed over within the queue's limit and claimed under their attempt, so
several workers in this mode, and a dispatcher that still reaches Redis, run no task twice.
"""

import logging
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from archive.errors import DicomqError
from archive.ledger import tasks
from archive.model.task import Hint
from archive.telemetry import log_event
from workers import events
from workers.dispatcher import plan_pass
from workers.queues import PoolKind, kind_of_queue

if TYPE_CHECKING:
    from workers.runtime import Runtime

LOGGER = logging.getLogger(__name__)

PATIENCE_S = 3.0
POLL_S = 1.0
UNCLAIMED_S = 2.0


class Fallback:
    """Performs tasks of a worker's queues while the broker is away.

    Parameters
    ----------
    runtime
        Runtime of the worker process.
    kinds
        Kinds of queues that the worker serves.
    slots
        Number of tasks performed at the same time.
    """

    def __init__(self, runtime: "Runtime", kinds: Collection[PoolKind], *, slots: int) -> None:
        self._runtime = runtime
        self._kinds = kinds
        self._slots = slots
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to take tasks, after a moment: most reconnects are done by then."""
        if self._thread is None:
            self._stopped = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopped,), name="fallback", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Take no more tasks; those under way go on."""
        self._stopped.set()
        self._thread = None

    def close(self) -> None:
        """Take no more tasks and wait for the end of those under way."""
        thread = self._thread
        self.stop()
        if thread is not None:
            thread.join()

    def take(self) -> list[Hint]:
        """Hand due tasks over to this worker, hints that are stuck in the broker among them.

        Raises
        ------
        DicomqError
            When ledger or directory cannot be read.
        """
        device, ledger = self._runtime.settings.device_name, self._runtime.ledger
        snapshot = self._runtime.source.snapshot()
        with ledger.statement() as tx:
            waiting = tasks.waiting_queues(tx, device)
            unclaimed = tasks.unclaimed(tx, device, UNCLAIMED_S)
        taken: list[Hint] = []
        for name in sorted(filter(self._serves, unclaimed)):
            with ledger.statement() as tx:
                taken += tasks.redispatch(tx, device, name, UNCLAIMED_S)
        for queue in plan_pass(snapshot, waiting).open_queues:
            if self._serves(queue.name):
                with ledger.transaction() as tx:
                    taken += tasks.dispatch(tx, device, queue.name, queue.max_tasks_parallel)
        return taken

    def _serves(self, queue_name: str) -> bool:
        return kind_of_queue(queue_name) in self._kinds

    def _run(self, stopped: threading.Event) -> None:
        if stopped.wait(PATIENCE_S) or self._runtime.keeper.shutting_down:
            return
        log_event(LOGGER, events.FALLBACK_STARTED, level=logging.WARNING)
        under_way: set[Future[str]] = set()
        with ThreadPoolExecutor(self._slots, thread_name_prefix="fallback") as pool:
            while not (stopped.is_set() or self._runtime.keeper.shutting_down):
                try:
                    hints = self.take() if len(under_way) < self._slots else []
                except DicomqError:
                    hints = []  # the lease keeper and the queue watch report it
                run = self._runtime.runner.run
                under_way |= {pool.submit(run, hint.task_pk, hint.attempt) for hint in hints}
                under_way = wait(under_way, 0).not_done
                if not hints:
                    stopped.wait(POLL_S)
        log_event(LOGGER, events.FALLBACK_STOPPED)
