"""The only place that asks the operating system for the time or sleeps.

Deadlines that several hosts must agree on are taken from the database instead; this clock serves
local waiting and schedule windows.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Source of time handed to whatever needs it."""

    def now(self) -> datetime:
        """Return the present instant, timezone-aware in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread for `seconds`."""
        ...


class SystemClock:
    """The operating system's clock."""

    def now(self) -> datetime:
        """Return the present instant, timezone-aware in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread for `seconds`."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
