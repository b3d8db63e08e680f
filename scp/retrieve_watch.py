"""Wakes whoever waits for a retrieve when its row changes.

One connection per process listens. While it is broken the waiting threads go on by polling; it
is opened again as soon as PostgreSQL answers.
"""

import contextlib
import itertools
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator

from archive.errors import LedgerError
from archive.ledger.connection import Ledger, Listener
from archive.ledger.retrievals import RETRIEVE_CHANNEL
from archive.telemetry import LEDGER_UNAVAILABLE, log_event

_LOOK_S = 1.0
_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


class RetrieveWatch:
    """Listens for changes of retrieves, from the first time somebody waits for one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: defaultdict[int, list[threading.Event]] = defaultdict(list)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, *task_pks: int) -> Iterator[threading.Event]:
        """Yield an event that is set whenever one of the retrieves has changed."""
        changed = threading.Event()
        with self._lock:
            for task_pk in task_pks:
                self._waiting[task_pk].append(changed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="retrieves", daemon=True)
                self._thread.start()
        try:
            yield changed
        finally:
            with self._lock:
                for task_pk in task_pks:
                    self._waiting[task_pk].remove(changed)
                    if not self._waiting[task_pk]:
                        del self._waiting[task_pk]

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self) -> None:
        reachable = True
        while not self._stopped.is_set():
            try:
                with self._ledger.listen(RETRIEVE_CHANNEL) as listener:
                    self._wake_all()
                    reachable = True
                    self._listen(listener)
            except LedgerError as error:
                if reachable:
                    log_event(_log, LEDGER_UNAVAILABLE, level=logging.WARNING, message=str(error))
                reachable = False
                self._stopped.wait(_AGAIN_S)

    def _listen(self, listener: Listener) -> None:
        while not self._stopped.is_set():
            for _, payload in listener.wait(_LOOK_S):
                with self._lock:
                    waiting = tuple(self._waiting.get(int(payload), ()))
                for changed in waiting:
                    changed.set()

    def _wake_all(self) -> None:
        """Have everybody look: what happened before listening began was not heard."""
        with self._lock:
            for changed in itertools.chain.from_iterable(self._waiting.values()):
                changed.set()
