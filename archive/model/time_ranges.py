"""Dates and times of queries as spans of text that sorts like time (PS3.4 §C.2.2.2.5). Pure."""

import re
from dataclasses import dataclass
from typing import Final

_AFTER_ANY_DIGIT: Final = "~"
_ZEROES: Final = re.compile(r"(?<=\d\d)(?:00)*(?:\.0*)?$")


@dataclass(frozen=True, slots=True)
class Span:
    """First and last text; an empty one is an open end."""

    low: str
    high: str


def date_span(text: str) -> Span | None:
    """Return the days that a key of VR DA means: one day, or a range with a hyphen.

    The form of ACR-NEMA with dots is understood. None when both ends are open.
    """
    low, high = _ends(text.replace(".", ""))
    return Span(low, high) if low or high else None


def time_span(text: str) -> Span | None:
    """Return the times that a key of VR TM means; a time of hours means the whole hour.

    Stored times have any precision, so the first end is cut to its last digits that matter and
    the last end reaches to everything that begins with it.
    """
    low, high = _ends(text.replace(":", ""))
    if not low and not high:
        return None
    return Span(_ZEROES.sub("", low), high + _AFTER_ANY_DIGIT if high else "")


def _ends(text: str) -> tuple[str, str]:
    low, hyphen, high = (part.strip() for part in text.partition("-"))
    return (low, high) if hyphen else (low, low)
