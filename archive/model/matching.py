"""From keys to the criteria of a query of the index (PS3.4 §C.2.2.2). Pure.

C-FIND as SCP and the REST interface match alike.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from archive.model.json_path import json_path
from archive.model.query import (
    ATTRIBUTES,
    AnyBelow,
    AnyLike,
    AnyNumber,
    AnyOf,
    Attribute,
    Between,
    Computed,
    Criterion,
    JsonMatch,
    Level,
    MomentBetween,
)
from archive.model.query_key import Key
from archive.model.time_ranges import Span, date_span, time_span
from archive.model.wildcards import is_universal, is_wildcard, like_pattern, name_criterion

_FOLDED_COLUMNS: Final = frozenset({"study_description", "series_description"})
_MOMENTS: Final = (
    (0x00080020, 0x00080030),
    (0x00400244, 0x00400245),
    (0x00080023, 0x00080033),
)


def criteria(keys: Iterable[Key], level: Level, *, combined: bool) -> Iterator[Criterion]:
    """Yield what the keys demand; an attribute below the level demands nothing."""
    reached = {
        key.tag: key
        for key in keys
        if key.tag in ATTRIBUTES and ATTRIBUTES[key.tag].level in level.reached
    }
    if combined:
        for date_tag, time_tag in _MOMENTS:
            moment = _moment(reached.get(date_tag), reached.get(time_tag))
            if moment is not None:
                del reached[date_tag], reached[time_tag]
                yield moment
    for key in reached.values():
        criterion = _criterion(ATTRIBUTES[key.tag], key)
        if criterion is not None:
            yield criterion


def _moment(date: Key | None, time: Key | None) -> MomentBetween | None:
    """Return the combined criterion of a date key and a time key that both restrict."""
    if date is None or time is None or len(date.values) != 1 or len(time.values) != 1:
        return None
    days, times = date_span(date.values[0]), time_span(time.values[0])
    if days is None or times is None:
        return None
    high = (days.high, times.high or "~")
    return MomentBetween(ATTRIBUTES[date.tag], ATTRIBUTES[time.tag], (days.low, times.low), high)


def _criterion(attribute: Attribute, key: Key) -> Criterion | None:
    """Return what one key demands, None when it matches everything."""
    if attribute.computed is not None:
        return _below(attribute.computed, key)
    if not attribute.column:
        path = json_path(key)
        return JsonMatch(attribute.level, path) if path else None
    if not key.values or any(map(is_universal, key.values)):
        return None
    return _column_criterion(attribute, key)


def _column_criterion(attribute: Attribute, key: Key) -> Criterion | None:
    """Return what a key that restricts a column demands, by the VR of the attribute."""
    match attribute.vr:
        case "PN":
            return name_criterion(attribute, key.values)
        case "DA" | "TM":
            return _span(attribute, key)
        case "IS" | "US":
            numbers = tuple(int(each) for each in key.values if _is_number(each))
            return AnyNumber(attribute, numbers) if numbers else None
        case "UI":
            return AnyOf(attribute, key.values)
        case _:
            return _text(attribute, key.values)


def _below(computed: Computed, key: Key) -> AnyBelow | None:
    if computed not in {Computed.MODALITIES, Computed.SOP_CLASSES}:
        return None
    if not key.values or any(map(is_universal, key.values)):
        return None
    return AnyBelow(computed, tuple(map(like_pattern, key.values)))


def _text(attribute: Attribute, values: tuple[str, ...]) -> Criterion:
    if attribute.column in _FOLDED_COLUMNS:
        return AnyLike(attribute, tuple(like_pattern(each.lower()) for each in values), folded=True)
    if any(map(is_wildcard, values)):
        return AnyLike(attribute, tuple(map(like_pattern, values)))
    return AnyOf(attribute, values)


def _span(attribute: Attribute, key: Key) -> Criterion | None:
    """Return the criterion of a date or time: a range, a pattern, or single values."""
    if len(key.values) > 1:
        return AnyLike(attribute, tuple(f"{like_pattern(each)}%" for each in key.values))
    if is_wildcard(key.values[0]):
        return AnyLike(attribute, (like_pattern(key.values[0]),))
    span: Span | None = (date_span if attribute.vr == "DA" else time_span)(key.values[0])
    return Between(attribute, span.low, span.high) if span else None


def _is_number(text: str) -> bool:
    return text.lstrip("+-").isdecimal() and text.isascii() and len(text) <= 12  # noqa: PLR2004 - IS
