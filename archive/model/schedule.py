"""Schedules: the hours of the week in which something may happen (dcmSchedule).

One value reads `hour=18-6 dayOfWeek=*`; both parts hold for an instant, several values are
alternatives, no value means always. Hours are those of a wall clock, so every question converts
the instant into the schedule's zone first and steps are taken in absolute time: a window keeps
its place when clocks change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from archive.errors import InvalidValueError

_HOURS = 24
_DAYS = 7
_FORM = "write hour=18-6 dayOfWeek=0,6 (hours 0-23, Sunday is day 0, one blank between the parts)"
_LONGEST_WINDOW = timedelta(days=15)


@dataclass(frozen=True, slots=True)
class Window:
    """A period in which a schedule is open; `end` is exclusive, None when it never closes."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Hours:
    """One value of a schedule: hours 0-23 and days of the week 0-6 (Sunday is 0), ANDed."""

    hours: frozenset[int]
    days: frozenset[int]

    def contains(self, local: datetime) -> bool:
        """Tell whether the wall-clock time `local` lies inside."""
        return local.hour in self.hours and local.isoweekday() % _DAYS in self.days


@dataclass(frozen=True, slots=True)
class Schedule:
    """Alternatives of hours and days; without any it is always open.

    Attributes
    ----------
    alternatives
        The values, ORed.
    zone
        Zone of the wall clock; None is the zone of the machine.
    text
        The values as written, for display.
    """

    alternatives: tuple[Hours, ...] = ()
    zone: ZoneInfo | None = None
    text: tuple[str, ...] = ()

    @classmethod
    def parse(cls, values: Iterable[str]) -> "Schedule":
        """Read the values of a dcmSchedule attribute.

        Raises
        ------
        InvalidValueError
            When a value has another form; the message names each bad value.
        """
        texts = tuple(sorted(values))
        alternatives, errors = [], []
        for text in texts:
            try:
                alternatives.append(_parse_hours(text))
            except InvalidValueError as error:
                errors.append(str(error))
        if errors:
            raise InvalidValueError("; ".join(errors))
        return cls(tuple(alternatives), text=texts)

    def in_zone(self, zone: ZoneInfo | None) -> "Schedule":
        """Return the same hours on the wall clock of `zone` (None: the machine's)."""
        return replace(self, zone=zone)

    @property
    def is_always(self) -> bool:
        """Whether the schedule is never closed."""
        return not self.alternatives or any(
            len(hours.hours) == _HOURS and len(hours.days) == _DAYS for hours in self.alternatives
        )

    def contains(self, instant: datetime) -> bool:
        """Tell whether the schedule is open at `instant` (timezone-aware)."""
        if self.is_always:
            return True
        local = instant.astimezone(self.zone)
        return any(hours.contains(local) for hours in self.alternatives)

    def ceil(self, instant: datetime) -> datetime:
        """Return the first instant not before `instant` at which the schedule is open.

        Parameters
        ----------
        instant
            Timezone-aware.

        Returns
        -------
        datetime
            `instant` itself when it is inside; otherwise the start of the next open hour, in the
            zone of `instant`. The result always lies inside the schedule.
        """
        if self.contains(instant):
            return instant
        step = instant.astimezone(UTC)
        while not self.contains(step):
            step = self._next_hour(step)
        return step.astimezone(instant.tzinfo)

    def next_windows(self, instant: datetime, count: int) -> tuple[Window, ...]:
        """Return the first `count` periods, from `instant` on, in which the schedule is open.

        The first one starts at `instant` when that lies inside.
        """
        windows: list[Window] = []
        start = instant
        while len(windows) < count:
            start = self.ceil(start)
            end = self._close(start)
            windows.append(Window(start, end))
            if end is None:
                break
            start = end
        return tuple(windows)

    def _close(self, start: datetime) -> datetime | None:
        """Return the end of the window that is open at `start`, None if it never ends."""
        step = start.astimezone(UTC)
        limit = step + _LONGEST_WINDOW
        while self.contains(step):
            if self.is_always or step > limit:
                return None
            step = self._next_hour(step)
        return step.astimezone(start.tzinfo)

    def _next_hour(self, instant: datetime) -> datetime:
        """Return the next instant (UTC) at which a wall clock in the zone shows a full hour."""
        local = instant.astimezone(self.zone)
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return instant + timedelta(hours=1) - past


def _parse_hours(text: str) -> Hours:
    parts = {"hour": "*", "dayOfWeek": "*"}
    seen = set()
    for token in text.split(" "):
        key, separator, value = token.partition("=")
        if key not in parts or not separator or key in seen:
            msg = f"schedule {text[:80]!r} is not understood at {token[:40]!r}; {_FORM}"
            raise InvalidValueError(msg)
        seen.add(key)
        parts[key] = value
    hours = _parse_numbers(parts["hour"], _HOURS, text)
    return Hours(hours, _parse_numbers(parts["dayOfWeek"], _DAYS, text))


def _parse_numbers(value: str, size: int, text: str) -> frozenset[int]:
    """Return the numbers 0 to `size`-1 that a list of numbers and wrapping ranges names."""
    if value == "*":
        return frozenset(range(size))
    numbers: set[int] = set()
    for item in value.split(","):
        ends = item.split("-")
        if not all(_is_below(end, size) for end in ends) or len(ends) > 2:  # noqa: PLR2004 - a range has two ends
            msg = f"schedule {text[:80]!r} has {item[:20]!r}, allowed is 0-{size - 1}; {_FORM}"
            raise InvalidValueError(msg)
        first, last = int(ends[0]), int(ends[-1])
        numbers.update((first + offset) % size for offset in range((last - first) % size + 1))
    return frozenset(numbers)


def _is_below(text: str, size: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 2 and int(text) < size  # noqa: PLR2004 - two digits
