"""Work that is put off a little, to be done in groups by a thread of its own."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

GROUP: Final = 32
"""Most items of a group; as many as this are not put off."""

GATHER_S: Final = 0.02
"""How long the first item of a group is put off, seconds."""

MOST_WAITING: Final = 64
"""Whoever adds more waits."""

_log = logging.getLogger(__name__)


class Gathering(Generic[T]):
    """Items in the order in which they were added; for any number of threads.

    Parameters
    ----------
    work
        Does the work of a group and answers for all of its errors.
    """

    def __init__(self, work: Callable[[Sequence[T]], None]) -> None:
        self._work = work
        lock = threading.Lock()
        self._news = threading.Condition(lock)
        self._progress = threading.Condition(lock)
        self._waiting: deque[T] = deque()
        self._added = self._done = self._urgent = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def add(self, item: T) -> int:
        """Add an item, as soon as there is room; return its number, for `settle`."""
        with self._progress:
            self._progress.wait_for(lambda: len(self._waiting) < MOST_WAITING)
            self._waiting.append(item)
            self._added += 1
            if len(self._waiting) in {1, GROUP}:
                self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self.run, name="gathering", daemon=True)
                self._thread.start()
            return self._added

    def settle(self, number: int) -> None:
        """Wait until the work of the item `number`, and of those before it, is done."""
        with self._progress:
            if self._done < number:
                self._urgent = max(self._urgent, number)
                self._news.notify()
                self._progress.wait_for(lambda: self._done >= number)

    def close(self) -> None:
        """Do what is waiting, then end; nothing may be added any more."""
        with self._news:
            self._is_closed = True
            self._news.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def run(self) -> None:
        """Do the work, group by group, until `close`."""
        while group := self._next():
            try:
                self._work(group)
            except Exception:  # noqa: BLE001 - the next group is to be dealt with all the same
                _log.exception("defect while a group was being dealt with")
            with self._progress:
                self._done += len(group)
                self._progress.notify_all()

    def _next(self) -> list[T]:
        """Return the next group, empty at the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._is_closed)
            self._news.wait_for(self._is_due, GATHER_S)
            group = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
            self._progress.notify_all()
            return group

    def _is_due(self) -> bool:
        return self._is_closed or len(self._waiting) >= GROUP or self._urgent > self._done
