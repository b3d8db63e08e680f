"""From the identifier of a C-FIND-RQ to a query of the index (PS3.4 §C.2.2.2, §C.4.1). Pure.

Checks come in the order and with the statuses of the standard; a key that this index does not
know never restricts the answer and comes back empty (PS3.4 §C.2.2.1.3).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pydicom.dataset import Dataset

from archive.errors import DatasetError
from archive.model.query import (
    ATTRIBUTES,
    UNIQUE_KEYS,
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
    Query,
    known,
)
from scp.json_path import json_path
from scp.patterns import is_universal, is_wildcard, like_pattern, name_criterion
from scp.query_keys import Key, character_set_terms, read_keys
from scp.time_ranges import Span, date_span, time_span

QUERY_RETRIEVE_LEVEL: Final = 0x00080052
_CHARACTER_SET: Final = 0x00080005
_RETRIEVE_AET: Final = 0x00080054
_AVAILABILITY: Final = 0x00080056
_PRIVATE_7777: Final = 0x7777
_GROUP_LENGTH: Final = 0x0000

MODELS: Final[dict[str, tuple[Level, ...]]] = {
    "1.2.840.10008.5.1.4.1.2.1.1": tuple(Level),
    "1.2.840.10008.5.1.4.1.2.2.1": (Level.STUDY, Level.SERIES, Level.IMAGE),
    "1.2.840.10008.5.1.4.1.2.3.1": (Level.PATIENT, Level.STUDY),
}
"""Levels by information model: Patient Root, Study Root, Patient/Study Only FIND."""

_FOLDED_COLUMNS: Final = frozenset({"study_description", "series_description"})
_MOMENTS: Final = (
    (0x00080020, 0x00080030),
    (0x00400244, 0x00400245),
    (0x00080023, 0x00080033),
)


class FindStatus(IntEnum):
    """Statuses of C-FIND responses (PS3.4 Table C.4-1)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    IDENTIFIER_MISMATCH = 0xA900
    UNABLE_TO_PROCESS = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00


class RefusedQueryError(DatasetError):
    """A query is refused.

    Parameters
    ----------
    offending
        Tags for Offending Element (0000,0901).
    """

    def __init__(self, status: FindStatus, message: str, offending: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.offending = tuple(offending)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an association queries.

    Attributes
    ----------
    relational
        Relational queries were negotiated (PS3.4 §C.5.1.1) or are taken without.
    combined
        Combined date-time matching was negotiated.
    limit
        Most matches without a unique key, 0 for any number (dcmQueryMaxNumberOfResults).
    """

    relational: bool = False
    combined: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class FindPlan:
    """What is asked of the index and what goes into each response.

    Attributes
    ----------
    keys
        Keys of the identifier that responses repeat.
    character_set
        Defined terms of the identifier's Specific Character Set.
    is_unique
        Whether a unique key restricts the matches to a few.
    """

    query: Query
    keys: tuple[Key, ...]
    character_set: tuple[str, ...] = ()
    is_unique: bool = False

    @property
    def level(self) -> Level:
        """Level of the query."""
        return self.query.level


def plan_find(identifier: Dataset, sop_class_uid: str, terms: Terms) -> FindPlan:
    """Return the plan for an identifier.

    Raises
    ------
    RefusedQueryError
        A900 when the level is missing or not of the information model, or when a unique key of
        an upper level is missing or not a single value.
    """
    by_tag = {key.tag: key for key in read_keys(identifier)}
    level = _level(by_tag.get(QUERY_RETRIEVE_LEVEL), sop_class_uid)
    if not terms.relational:
        _check_upper_keys(by_tag, level, MODELS[sop_class_uid])
    keys = tuple(key for key in by_tag.values() if _is_repeated(key))
    tags = {key.tag for key in keys} | {UNIQUE_KEYS[each].tag for each in level.reached}
    if level is not Level.PATIENT:
        tags |= {_RETRIEVE_AET, _AVAILABILITY}
    unique = by_tag.get(UNIQUE_KEYS[level].tag)
    is_unique = bool(unique and unique.values and not any(map(is_wildcard, unique.values)))
    query = Query(
        level,
        tuple(criteria(keys, level, combined=terms.combined)),
        known(sorted(tags), level),
        0 if is_unique else terms.limit,
    )
    return FindPlan(query, keys, character_set_terms(identifier), is_unique)


def _level(key: Key | None, sop_class_uid: str) -> Level:
    """Return the level of a query, checked against its information model."""
    levels = MODELS[sop_class_uid]
    values = key.values if key else ()
    if len(values) != 1:
        msg = f"Query/Retrieve Level (0008,0052) has {len(values)} values instead of one"
        raise _mismatch(msg, QUERY_RETRIEVE_LEVEL)
    for level in levels:
        if level.value == values[0].upper():
            return level
    msg = f"invalid Query/Retrieve Level {values[0][:16]} for this model"
    raise _mismatch(msg, QUERY_RETRIEVE_LEVEL)


def _check_upper_keys(by_tag: dict[int, Key], level: Level, model: tuple[Level, ...]) -> None:
    """Check the unique keys above the level: one value each (PS3.4 §C.4.1.2.1)."""
    for upper in level.above:
        if upper not in model:
            continue
        tag = UNIQUE_KEYS[upper].tag
        values = by_tag[tag].values if tag in by_tag else ()
        if not values or any(map(is_wildcard, values)):
            msg = f"missing unique key of {upper} level, relational not negotiated"
            raise _mismatch(msg, tag)
        if len(values) > 1:
            msg = f"several values of the unique key of {upper} level"
            raise _mismatch(msg, tag)


def _mismatch(message: str, tag: int) -> RefusedQueryError:
    return RefusedQueryError(FindStatus.IDENTIFIER_MISMATCH, message, [tag])


def _is_repeated(key: Key) -> bool:
    group, element = key.tag >> 16, key.tag & 0xFFFF
    if key.tag in {_CHARACTER_SET, QUERY_RETRIEVE_LEVEL} or element == _GROUP_LENGTH:
        return False
    return group != _PRIVATE_7777


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
