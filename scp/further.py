"""Attributes of a received object that the index keeps as DICOM JSON (PS3.18 §F)."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydicom.dataset import Dataset

from archive.model.query import FURTHER, Level
from archive.model.query_key import Key
from scp.query_keys import read_keys

_NUL: Final = "\\u0000"
_LONGEST: Final = 1024
_TABLES: Final = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.IMAGE: "instance",
}
_LEVELS: Final[Mapping[int, Level]] = {each.tag: each.level for each in FURTHER}
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")

FURTHER_TAGS: Final = frozenset(_LEVELS)


def further_attributes(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return the further attributes of an object by the table that keeps them.

    Parameters
    ----------
    dataset
        The elements of the object whose tags are in `FURTHER_TAGS`, with its Specific Character
        Set. What cannot be read is left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in read_keys(dataset):
        if key.tag in _LEVELS and (value := _json(key, dataset)):
            found.setdefault(_TABLES[_LEVELS[key.tag]], {})[f"{key.tag:08X}"] = value
    return found


def _json(key: Key, dataset: Dataset) -> dict[str, Any] | None:
    if key.vr == "SQ":
        return _sequence(dataset, key.tag)
    if not key.values:
        return None
    values: list[Any] = [value[:_LONGEST] for value in key.values]
    if key.vr == "PN":
        values = [dict(zip(_NAME_GROUPS, each.split("="), strict=False)) for each in values]
    return {"vr": key.vr, "Value": values}


def _sequence(dataset: Dataset, tag: int) -> dict[str, Any] | None:
    """Return a sequence with everything in its items."""
    try:
        text = json.dumps(dataset[tag].to_json_dict(None, 0))
    except (ValueError, TypeError, KeyError, AttributeError, LookupError, RecursionError):
        return None
    value: dict[str, Any] = json.loads(text.replace(_NUL, ""))
    return value if value.get("Value") else None
