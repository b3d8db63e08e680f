"""From the identifier of a C-FIND-RQ to a query of the index (PS3.4 §C.2.2.2, §C.4.1). Pure.

Checks come in the order and with the statuses of the standard; a key that this index does not
know never restricts the answer and comes back empty (PS3.4 §C.2.2.1.3).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pydicom.dataset import Dataset

from archive.errors import DatasetError
from archive.model.matching import criteria
from archive.model.query import (
    UNIQUE_KEYS,
    Level,
    Query,
    known,
)
from archive.model.query_key import Key
from archive.model.wildcards import is_wildcard
from scp.query_keys import character_set_terms, read_keys

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
