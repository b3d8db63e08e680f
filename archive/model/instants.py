"""Points and spans of time as people and DICOM write them: pure.

A value is a DT (PS3.5 §6.2: ``20261121``, ``2026112110+0100``), ISO 8601 (``2026-11-21T10:30``),
or relative (``2h``: two hours ago, ``+2h``: in two hours; units w, d, h, m, s). Without a zone it
is local time. A DT or ISO value means the whole of its precision: a day, an hour, a minute.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from archive.errors import InvalidValueError
from archive.model.task_filter import TimeRange

_DT = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:(?P<hour>\d\d)(?P<rest>"
    r"(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)(?P<zone>[+-]\d{4})?)?)?)?",
    re.ASCII,
)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[T ](?P<hour>\d\d):(?P<minute>\d\d)"
    r"(?P<second>:\d\d(?:\.\d{1,6})?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_RELATIVE = re.compile(r"(?P<sign>\+?)(?P<number>\d{1,6})(?P<unit>[wdhms])", re.ASCII)
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_FORM = "write 20261121, 2026112110, 2026-11-21T10:30, 2h (ago) or +2h (ahead)"
_RANGE_FORM = "write a-b, a- (from), -b (until), or one value"
_MONTHS = 12


@dataclass(frozen=True, slots=True)
class _Span:
    """From `start` until before `end`; None where it is open."""

    start: datetime
    end: datetime | None


def parse_instant(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Return the point in time that `text` names, in the future where it is relative.

    Parameters
    ----------
    now
        The present, aware.
    zone
        Zone of values without one; None for that of the machine.

    Raises
    ------
    InvalidValueError
        When `text` has another form or names no existing time.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    if relative is not None:
        return now + _length(relative)
    span = _absolute(text.strip(), zone)
    if span is None:
        msg = f"{text[:40]!r} is not a time; {_FORM}"
        raise InvalidValueError(msg)
    return span.start


def parse_range(text: str, now: datetime, zone: tzinfo | None = None) -> TimeRange:
    """Return the span of time that `text` names.

    Raises
    ------
    InvalidValueError
        When `text` has another form, or ends before it begins.
    """
    value = text.strip()
    for since_text, until_text in _readings(value):
        since = _span(since_text, now, zone) if since_text else None
        until = _span(until_text, now, zone) if until_text else None
        if (since is None) == bool(since_text) or (until is None) == bool(until_text):
            continue
        return _range(text, since, until, is_single=since_text == until_text == value)
    msg = f"{text[:80]!r} is not a range of time: {_RANGE_FORM}; as value {_FORM}"
    raise InvalidValueError(msg)


def _readings(value: str) -> list[tuple[str, str]]:
    """Return the ways to read a range as (since, until), the whole as one value first."""
    if not value:
        return []
    whole = [(value, value)]
    separators = [index for index, letter in enumerate(value) if letter in "-/"]
    splits = [(value[:index].strip(), value[index + 1 :].strip()) for index in separators]
    return whole + [split for split in splits if any(split)]


def _range(text: str, since: _Span | None, until: _Span | None, *, is_single: bool) -> TimeRange:
    if is_single and since is not None:
        return TimeRange(since.start, since.end)
    start = since.start if since is not None else None
    end = (until.end or until.start) if until is not None else None
    if start is not None and end is not None and start >= end:
        msg = f"{text[:80]!r} ends before it begins"
        raise InvalidValueError(msg)
    return TimeRange(start, end)


def _span(text: str, now: datetime, zone: tzinfo | None) -> _Span | None:
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        length = _length(relative)
        return _Span(now + length if relative["sign"] else now - length, None)
    return _absolute(text, zone)


def _length(relative: re.Match[str]) -> timedelta:
    return timedelta(**{_UNITS[relative["unit"]]: int(relative["number"])})


def _absolute(text: str, zone: tzinfo | None) -> _Span | None:
    """Return the span of a DT or ISO value, None when it is neither or does not exist."""
    try:
        if match := _DT.fullmatch(text):
            return _of_dt(match, zone)
        if match := _ISO.fullmatch(text):
            return _of_iso(match, zone)
    except (ValueError, OverflowError):
        return None
    return None


def _of_dt(match: re.Match[str], zone: tzinfo | None) -> _Span:
    year, month, day, hour = (match[name] for name in ("year", "month", "day", "hour"))
    rest = match["rest"] or ""
    time = f"{hour or '00'}:{rest[:2] or '00'}:{rest[2:] or '00'}{match['zone'] or ''}"
    start = _aware(f"{year}-{month or '01'}-{day or '01'}T{time}", zone)
    if month is None:
        return _Span(start, _aware(f"{int(year) + 1:04}-01-01T00:00:00", zone))
    if day is None:
        years, following = divmod(int(month), _MONTHS)
        return _Span(start, _aware(f"{int(year) + years:04}-{following + 1:02}-01T00:00:00", zone))
    if hour is None:
        return _Span(start, _next_day(f"{year}-{month}-{day}", zone))
    return _Span(start, start + _precision(rest))


def _precision(rest: str) -> timedelta:
    """Return the length of what minutes, seconds and their fraction, as far as given, name."""
    if len(rest) <= len("MM"):
        return timedelta(minutes=1) if rest else timedelta(hours=1)
    return timedelta(seconds=1) if "." not in rest else timedelta(microseconds=1)


def _of_iso(match: re.Match[str], zone: tzinfo | None) -> _Span:
    if match["hour"] is None:
        return _Span(_aware(match["date"], zone), _next_day(match["date"], zone))
    second = match["second"] or ":00"
    time = f"{match['hour']}:{match['minute']}{second}{match['zone'] or ''}"
    rest = match["minute"] + (match["second"] or "").removeprefix(":")
    start = _aware(f"{match['date']}T{time}", zone)
    return _Span(start, start + _precision(rest))


def _next_day(date: str, zone: tzinfo | None) -> datetime:
    """Return the next midnight, which may be 23 or 25 hours away."""
    midnight = datetime.fromisoformat(date)
    return _aware((midnight + timedelta(days=1)).isoformat(), zone)


def _aware(iso: str, zone: tzinfo | None) -> datetime:
    instant = datetime.fromisoformat(iso)
    if instant.tzinfo is not None:
        return instant
    return instant.astimezone() if zone is None else instant.replace(tzinfo=zone)
