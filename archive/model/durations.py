"""Durations as the directory spells them: days, hours, minutes and seconds of ISO 8601."""

import re

from archive.errors import InvalidValueError

_DURATION = re.compile(
    r"P(?=[0-9T])(?:(?P<days>[0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:(?P<hours>[0-9]{1,9})H)?(?:(?P<minutes>[0-9]{1,9})M)?"
    r"(?:(?P<seconds>[0-9]{1,12}(?:[.,][0-9]{0,9})?)S)?)?",
    re.IGNORECASE,
)
_UNIT_S = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
LONGEST_S = 36525 * 86400.0


def parse_duration(text: str) -> float:
    """Return the length of a duration such as `PT5M` or `P1DT12H`.

    Parameters
    ----------
    text
        `PnDTnHnMnS` with at least one part, in either case; only seconds may have a fraction.
        There are no years, months, weeks and no negative durations.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    InvalidValueError
        When `text` has another form or is longer than 100 years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"{text[:40]!r} is not a duration; write days, hours, minutes, seconds as P1DT2H3M4S"
        raise InvalidValueError(msg)
    parts = {unit: part for unit, part in match.groupdict().items() if part}
    total = sum(float(part.replace(",", ".")) * _UNIT_S[unit] for unit, part in parts.items())
    if total > LONGEST_S:
        msg = f"{text[:40]!r} is longer than 100 years"
        raise InvalidValueError(msg)
    return total


def format_duration(seconds: float) -> str:
    """Return the shortest spelling that `parse_duration` reads as `seconds`.

    Parameters
    ----------
    seconds
        Not negative; rounded to microseconds.
    """
    minutes, rest = divmod(round(seconds, 6), 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    fraction = f"{rest:.6f}".rstrip("0").rstrip(".")
    date = f"{days}D" if days else ""
    time = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes)
    time += f"{fraction}S" if fraction != "0" else ""
    if not date and not time:
        return "PT0S"
    return f"P{date}T{time}" if time else f"P{date}"
