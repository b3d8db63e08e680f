"""Numbers that are dear to count: shared by all who look, and never waited for long."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from archive.clock import Clock

T = TypeVar("T")
WAIT_S = 0.04
PARALLEL = 3


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What is known of some numbers.

    Attributes
    ----------
    value
        None while they are counted for the first time.
    age_s
        Seconds since they held.
    """

    value: T | None
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Kept:
    time: float
    generation: int
    value: Any


class Recent:
    """Keeps what was counted for a while; whoever looks at a page meanwhile shares it.

    What has become too old is counted anew in the background, once for all who ask. Who asks
    waits for that some hundredths of a second and then sees the older numbers, with their age.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._running: dict[str, Future[None]] = {}
        self._generation = 0
        self._executor = ThreadPoolExecutor(PARALLEL, "recent")

    def get(
        self, key: str, age_s: float, count: Callable[[], T], *, wait_s: float = WAIT_S
    ) -> Known[T]:
        """Return what `count` returned at most `age_s` seconds ago, or the latest that is known.

        Raises
        ------
        DicomqError
            When counting failed while this call waited for it.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept and self._is_recent(kept, age_s):
                return self._known(kept)
            counting = self._running.get(key)
            if counting is None:
                counting = self._executor.submit(self._count, key, count, self._generation)
                self._running[key] = counting
        try:
            counting.result(timeout=wait_s)
        except TimeoutError:
            return self._known(kept)
        return self._known(self._kept.get(key))

    def forget(self) -> None:
        """Have everything counted anew, because something was changed."""
        with self._lock:
            self._generation += 1

    def close(self) -> None:
        """Count nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _is_recent(self, kept: _Kept, age_s: float) -> bool:
        age = self._clock.monotonic() - kept.time
        return kept.generation == self._generation and age < age_s

    def _known(self, kept: _Kept | None) -> Known[Any]:
        if kept is None:
            return Known(None)
        return Known(kept.value, self._clock.monotonic() - kept.time)

    def _count(self, key: str, count: Callable[[], Any], generation: int) -> None:
        """Count in a thread of ours; the time is that of the beginning."""
        started = self._clock.monotonic()
        try:
            value = count()
            with self._lock:
                self._kept[key] = _Kept(started, generation, value)
        finally:
            with self._lock:
                del self._running[key]
