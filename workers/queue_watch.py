"""Which queues a worker has to listen to, learnt from the ledger as soon as they change."""

import contextlib
import logging
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from archive.clock import SYSTEM_CLOCK
from archive.errors import DicomqError
from archive.ledger import tasks
from archive.ledger.connection import QUEUE_CHANNEL, Listener
from archive.ledger.migrations import Stage
from archive.telemetry import log_event
from workers import events
from workers.hints import BrokerUnavailableError
from workers.queues import PoolKind, QueueUse, configured_queues, consumed_queues

if TYPE_CHECKING:
    from workers.runtime import Runtime

LOGGER = logging.getLogger(__name__)

SYNC_S = 2.0
KEEP_S = 60.0


class QueueWatch:
    """Knows which queues a worker has to consume; asks configuration and ledger in a thread.

    A dispatcher announces a queue in the transaction that hands its tasks over. The ledger is
    looked at beside that, for announcements that were lost or came before the worker.

    Parameters
    ----------
    runtime
        Runtime of the worker process.
    kinds
        Kinds of queues that the worker serves.
    wake
        Called from the thread when a queue has to be listened to that was not before.
    """

    def __init__(
        self, runtime: "Runtime", kinds: Collection[PoolKind], wake: Callable[[], None]
    ) -> None:
        self._runtime = runtime
        self._kinds = kinds
        self._wake = wake
        self._stopped = threading.Event()
        self._usable = True
        self._migrated = False
        self._use = QueueUse(KEEP_S)
        self._hinted: frozenset[str] = frozenset()
        self._wanted = consumed_queues(kinds, (), ())
        threading.Thread(target=self._run, name="queues", daemon=True).start()

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the queues to consume, as last seen."""
        return self._wanted

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def refresh(self) -> None:
        """Read the ledger once.

        Raises
        ------
        DicomqError
            When directory or ledger cannot be read; what is known stays valid.
        """
        if not self._migrated:
            self._runtime.ledger.migrate(Stage.PRE)
            self._migrated = True
        device = self._runtime.settings.device_name
        with self._runtime.ledger.statement() as tx:
            self._hinted = frozenset(tasks.unclaimed(tx, device, older_than_s=0))
        self.note(self._hinted)

    def note(self, names: Collection[str]) -> None:
        """Listen to queues that are in use; wake the consumer when one of them is new.

        Raises
        ------
        DicomqError
            When the directory cannot be read.
        """
        now_s = SYSTEM_CLOCK.monotonic()
        self._use.note(names, now_s)
        recent = self._use.recent(configured_queues(self._runtime.source.snapshot()), now_s)
        before, hinted = self._wanted, self._hinted | frozenset(names)
        self._wanted = consumed_queues(self._kinds, hinted, recent)
        if self._wanted - before:
            with contextlib.suppress(BrokerUnavailableError):  # a reconnect reconciles anyway
                self._wake()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._runtime.ledger.listen(QUEUE_CHANNEL) as listener:
                    self._follow(listener)
            except Exception as error:  # noqa: BLE001 - without this thread queues would not change
                self._report(error)
                self._stopped.wait(SYNC_S)

    def _follow(self, listener: Listener) -> None:
        next_look = SYSTEM_CLOCK.monotonic()
        while not self._stopped.is_set():
            if SYSTEM_CLOCK.monotonic() >= next_look:
                self.refresh()
                self._usable = True
                next_look = SYSTEM_CLOCK.monotonic() + SYNC_S
            announced = [name for _, name in listener.wait(SYNC_S)]
            if announced:
                self.note(announced)

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
