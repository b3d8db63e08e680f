"""Numbers that are dear to count and may be some seconds old."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from archive.clock import Clock

T = TypeVar("T")


class Recent:
    """Keeps what was computed for a while; whoever looks at a page meanwhile shares it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, age_s: float, compute: Callable[[], T]) -> T:
        """Return what `compute` returned at most `age_s` seconds ago, or returns now.

        One thread computes at a time; the others wait for what it finds.
        """
        with self._lock:
            time, value = self._kept.get(key, (float("-inf"), None))
            now = self._clock.monotonic()
            if now - time >= age_s:
                value = compute()
                self._kept[key] = (self._clock.monotonic(), value)
            result: T = value
            return result

    def forget(self) -> None:
        """Have everything computed anew, because something was changed."""
        with self._lock:
            self._kept.clear()
