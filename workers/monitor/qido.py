"""Conditions in an address on what the archive or another one holds, as in QIDO-RS (PS3.18 §8.3.4).

What a search may ignore, an order may not: a condition that cannot be kept is refused, for else
more would be exported than was asked for.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, cast

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from archive.errors import InvalidValueError
from archive.ledger import query as index
from archive.ledger.connection import Ledger
from archive.model.identifiers import check_uid
from archive.model.matching import criteria
from archive.model.query import (
    ATTRIBUTES,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Computed,
    Level,
    Query,
)
from archive.model.query_key import Key
from workers.monitor.parameters import Arguments
from workers.ordering import Entity

UNIQUE = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
_BY_LEVEL = {"study": Level.STUDY, "series": Level.SERIES, "instance": Level.IMAGE}
_MATCHED_BELOW = {Computed.MODALITIES, Computed.SOP_CLASSES}
_LONGEST = 1024
_DATES = re.compile(r"[0-9]{8}(?:-(?:[0-9]{8})?)?|-[0-9]{8}")


def level_of(word: str) -> Level:
    """Return the level of ``study``, ``series`` or ``instance``."""
    return _BY_LEVEL[word]


def conditions(arguments: Arguments) -> tuple[Key, ...]:
    """Return the conditions among the parameters of a request.

    Parameters
    ----------
    arguments
        Names are keywords (``PatientID``) or tags (``00100020``) of PS3.6, an attribute of a
        sequence's item follows its sequence and a dot. UIDs may be a list with commas.

    Raises
    ------
    InvalidValueError
        When a name is no attribute, or a value is missing or has no usable form.
    """
    return _joined(_key(name, values) for name, values in sorted(arguments.items()))


def _key(name: str, values: Iterable[str]) -> Key:
    sequence, _, item = name.partition(".")
    tag = _tag(sequence)
    vr = dictionary_VR(tag)[:2]
    if (vr == "SQ") != bool(item):
        msg = f"{name}: write a sequence as Sequence.Attribute, anything else without a dot"
        raise InvalidValueError(msg)
    if item:
        return Key(tag, vr, items=(_key(item, values),))
    found = tuple(part for value in values for part in _parts(value, vr))
    if not found:
        msg = f"{name} is given without a value, which would mean everything; nothing was ordered"
        raise InvalidValueError(msg)
    for value in found:
        _check_value(name, vr, value)
    return Key(tag, vr, found)


def _check_value(name: str, vr: str, value: str) -> None:
    if len(value) > _LONGEST or not value.isprintable():
        msg = f"{name} is too long, or contains characters that cannot be printed"
        raise InvalidValueError(msg)
    if vr == "UI":
        check_uid(value, name)
    if vr == "DA" and not _DATES.fullmatch(value):
        msg = f"{name}={value[:40]!r} is no date or range: write 20261121, a-b, a- or -b"
        raise InvalidValueError(msg)


def _parts(value: str, vr: str) -> Iterator[str]:
    text = value.replace(",", "\\") if vr == "UI" else value
    yield from (part.strip() for part in text.split("\\") if part.strip())


def _tag(name: str) -> int:
    tag = tag_for_keyword(name)
    if tag is None and len(name) == len("GGGGEEEE"):
        try:
            tag = int(name, 16)
            dictionary_VR(tag)
        except (ValueError, KeyError):
            tag = None
    if tag is None:
        msg = (
            f"{name[:64]!r} is neither a parameter of this call nor the keyword or tag of a DICOM"
            " attribute; nothing was ordered"
        )
        raise InvalidValueError(msg)
    return tag


def _joined(keys: Iterable[Key]) -> tuple[Key, ...]:
    """Return the keys with those of one sequence together (PS3.4 §C.2.2.2.6)."""
    found: dict[int, Key] = {}
    for key in keys:
        before = found.get(key.tag)
        items = (*(before.items or ()), *(key.items or ())) if before else key.items
        found[key.tag] = Key(key.tag, key.vr, key.values, items)
    return tuple(found.values())


def check_matched(keys: Iterable[Key], level: Level) -> None:
    """Refuse conditions that the index does not match at a level.

    Raises
    ------
    InvalidValueError
        The message names all of them.
    """
    wrong = [_name(key) for key in keys if not _is_matched(key, level)]
    if wrong:
        msg = (
            f"the archive's index does not match {', '.join(wrong)} at {level.value} level;"
            " nothing was ordered"
        )
        raise InvalidValueError(msg)


def _is_matched(key: Key, level: Level) -> bool:
    attribute = ATTRIBUTES.get(key.tag)
    if attribute is None or attribute.level not in level.reached:
        return False
    return attribute.computed is None or attribute.computed in _MATCHED_BELOW


def _name(key: Key) -> str:
    return keyword_for_tag(key.tag) or f"{key.tag:08X}"


def is_unique(keys: Iterable[Key], level: Level) -> bool:
    """Return whether the conditions name what they mean by its UID."""
    tag = {Level.STUDY: UNIQUE[0], Level.SERIES: UNIQUE[1], Level.IMAGE: UNIQUE[2]}[level].tag
    return any(key.tag == tag and key.values for key in keys)


def index_query(keys: Iterable[Key], level: Level) -> Query:
    """Return the query of the own index.

    Raises
    ------
    InvalidValueError
        When it does not match one of the conditions at this level.
    """
    wanted = tuple(keys)
    check_matched(wanted, level)
    returned = tuple(each for each in UNIQUE if each.level in level.reached)
    return Query(level, tuple(criteria(wanted, level, combined=True)), returned)


def matches(ledger: Ledger, query: Query) -> Iterator[Entity]:
    """Yield what matches in the own index, in no particular order."""
    with closing(index.find(ledger, query)) as found:
        for match in found:
            yield _entity(match.values)


def _entity(values: Any) -> Entity:  # noqa: ANN401 - by tag
    uids = [str(values[each.tag]) if values.get(each.tag) else None for each in UNIQUE]
    return Entity(cast("str", uids[0]), uids[1], uids[2])


def identifier(keys: Iterable[Key], level: Level) -> Dataset:
    """Return the identifier of a C-FIND to another archive (PS3.4 §C.4.1.1.3)."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.QueryRetrieveLevel = level.value
    for each in UNIQUE:
        if each.level in level.reached:
            dataset.add_new(each.tag, "UI", None)
    for key in keys:
        _add(dataset, key)
    return dataset


def _add(dataset: Dataset, key: Key) -> None:
    if key.items is None:
        dataset.add_new(key.tag, key.vr, list(key.values) if len(key.values) > 1 else key.values[0])
        return
    item = Dataset()
    for each in key.items:
        _add(item, each)
    dataset.add_new(key.tag, "SQ", [item])


def entity_of_match(match: Dataset, level: Level) -> Entity:
    """Return what a match of another archive names.

    Raises
    ------
    InvalidValueError
        When it lacks a UID, or has one that is none.
    """
    uids = [str(match.get(keyword_for_tag(each.tag), "") or "") for each in UNIQUE]
    depth = len([each for each in UNIQUE if each.level in level.reached])
    return Entity(*(uids[place] for place in range(depth)))
