"""How templates word and spell things: pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from archive.model.task import Task, TaskStatus

_TONES = {
    TaskStatus.SCHEDULED: "waiting",
    TaskStatus.SCHEDULED_FOR_RETRY: "retry",
    TaskStatus.IN_PROCESS: "active",
    TaskStatus.COMPLETED: "good",
    TaskStatus.WARNING: "warn",
    TaskStatus.FAILED: "bad",
    TaskStatus.CANCELED: "gone",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def tone(status: str) -> str:
    """Return the CSS class of a status."""
    return _TONES[TaskStatus(status)]


def number(value: int) -> str:
    """Return a number with thousands set apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def clock_time(time: datetime | None) -> str:
    """Return a time in the zone of the machine, to the second."""
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def iso_time(time: datetime) -> str:
    """Return a time for ``<time datetime>``."""
    return time.astimezone(UTC).isoformat(timespec="seconds")


def span(seconds: float, units: int = 2) -> str:
    """Return a length of time in its coarsest units."""
    left = round(abs(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == units:
            break
    return " ".join(parts) or "0 s"


def relative(time: datetime | None, now: datetime, units: int = 2) -> str:
    """Return how long ago a time was, or how far ahead it is."""
    if time is None:
        return ""
    seconds = (now - time).total_seconds()
    if abs(seconds) < 1:
        return "now"
    length = span(seconds, units)
    return f"{length} ago" if seconds > 0 else f"in {length}"


def date(value: str | None) -> str:
    """Return a DA value (PS3.5 §6.2) with hyphens."""
    if value and len(value) == len("YYYYMMDD") and value.isdecimal():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value or ""


def destination(task: Task) -> str:
    """Return through what and where a task goes."""
    names = [name for name in (task.exporter_id, task.remote_aet) if name]
    return " \N{RIGHTWARDS ARROW} ".join(dict.fromkeys(names))


def query(arguments: Mapping[str, Sequence[str]], **changes: str | None) -> str:
    """Return a query string with some arguments changed; None takes one away."""
    changed: dict[str, Sequence[str]] = {
        name: values for name, values in arguments.items() if name not in changes
    }
    changed |= {name: (value,) for name, value in changes.items() if value is not None}
    return urlencode(changed, doseq=True)


def segment(text: str) -> str:
    """Return a text as a segment of a path."""
    return quote(text, safe="")


def hexadecimal(status: int | None) -> str:
    """Return a DIMSE status as the standard writes it."""
    return "" if status is None else f"{status:04X}H"


def listed(counts: Iterable[tuple[str, int]]) -> str:
    """Return counts as a text."""
    return ", ".join(f"{number(count)} {name}" for name, count in counts)


def short(text: str, most: int = 200) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
