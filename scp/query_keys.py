"""Reads the keys of a query identifier as text, whatever a peer put into them. Pure.

Values are taken as bytes and decoded here, so that nothing depends on pydicom taking a hostile
value for a number, a date or a name.
"""

import struct
from collections.abc import Iterator
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

from archive.model.query_key import Key

_CHARACTER_SET: Final = 0x00080005
_TEXT_WITH_CHARACTER_SET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_NUMBERS: Final = {"US": "H", "UL": "L", "SS": "h", "SL": "l"}
_MOST_VALUES: Final = 100_000
_UNREADABLE: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError, LookupError)


def read_keys(identifier: Dataset) -> tuple[Key, ...]:
    """Return the keys of an identifier in ascending order."""
    return tuple(_keys(identifier, character_sets(identifier)))


def character_set_terms(identifier: Dataset) -> tuple[str, ...]:
    """Return the defined terms of Specific Character Set (0008,0005), as given."""
    text = _raw_text(identifier, BaseTag(_CHARACTER_SET), ["ascii"])
    return tuple(term.strip() for term in text.split("\\")) if text else ()


def character_sets(identifier: Dataset) -> list[str]:
    """Return Python's names of the character sets; the default one for what is unknown."""
    terms = character_set_terms(identifier)
    if not terms:
        return [default_encoding]
    try:
        return [str(each) for each in convert_encodings(list(terms))]
    except (*_UNREADABLE, UserWarning):
        return [default_encoding]


def _keys(identifier: Dataset, encodings: list[str]) -> Iterator[Key]:
    for tag in sorted(identifier.keys()):
        vr = _vr(identifier, tag)
        if vr == "SQ":
            yield Key(int(tag), vr, items=_items(identifier, tag, encodings))
        elif vr in _NUMBERS:
            yield Key(int(tag), vr, _numbers(identifier, tag, vr))
        else:
            text = _raw_text(identifier, tag, encodings if vr in _TEXT_WITH_CHARACTER_SET else [])
            values = (each.strip("\0 ") for each in text.split("\\", _MOST_VALUES))
            yield Key(int(tag), vr, tuple(each for each in values if each))


def _vr(identifier: Dataset, tag: BaseTag) -> str:
    """Return the VR of the standard; for other elements what the identifier says."""
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        element = identifier.get_item(tag)
        return str(getattr(element, "VR", None) or "UN")


def _items(identifier: Dataset, tag: BaseTag, encodings: list[str]) -> tuple[Key, ...] | None:
    try:
        items = identifier[tag].value
        return tuple(_keys(items[0], encodings)) if items else None
    except (*_UNREADABLE, NotImplementedError, RecursionError, EOFError):
        return None


def _numbers(identifier: Dataset, tag: BaseTag, vr: str) -> tuple[str, ...]:
    element = identifier.get_item(tag)
    if isinstance(element, RawDataElement):
        order = "<" if element.is_little_endian else ">"
        form = struct.Struct(order + _NUMBERS[vr])
        value = element.value or b""
        whole = len(value) // form.size * form.size
        return tuple(str(number) for (number,) in form.iter_unpack(value[:whole]))
    value = getattr(element, "value", None)
    return () if value is None else (str(value),)


def _raw_text(identifier: Dataset, tag: BaseTag, encodings: list[str]) -> str:
    """Return the whole value as text, several values separated by backslashes."""
    if tag not in identifier:
        return ""
    element = identifier.get_item(tag)
    value = getattr(element, "value", None)
    if isinstance(value, bytes):
        return _decoded(value, encodings).replace("\0", "")
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(str(each) for each in value)
    return "" if value is None else str(value).replace("\0", "")


def _decoded(value: bytes, encodings: list[str]) -> str:
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if not encodings:
        return value.decode(default_encoding, "replace")
    try:
        return decode_bytes(value, encodings, TEXT_VR_DELIMS)
    except (*_UNREADABLE, UserWarning):
        return value.decode(default_encoding, "replace")
