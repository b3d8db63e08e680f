"""From a match of the index to the identifier of a pending C-FIND response. Pure.

The index holds Unicode. A response is written in the requestor's own character set when that can
hold it, else in UTF-8; Specific Character Set (0008,0005) says which (PS3.4 §C.4.1.1.3.2).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.charset import convert_encodings, default_encoding, encode_string
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from archive.model.query import ATTRIBUTES, Level, Match
from archive.model.query_key import Key
from scp.matching import QUERY_RETRIEVE_LEVEL, FindPlan

UTF_8: Final = "ISO_IR 192"
_CHARACTER_SET: Final = 0x00080005
_RETRIEVE_AET: Final = 0x00080054
_AVAILABILITY: Final = 0x00080056
_WITH_CHARACTER_SET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_BINARY: Final = {"US": 2, "UL": 4, "SS": 2, "SL": 4}

Value = str | int | tuple[str, ...] | None
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What the archive says of itself in every response.

    Attributes
    ----------
    retrieve_aets
        dcmReturnRetrieveAET; without it what is recorded with the instances.
    is_implicit, is_little_endian
        Encoding of the presentation context.
    """

    retrieve_aets: tuple[str, ...] = ()
    is_implicit: bool = False
    is_little_endian: bool = True


def build_response(plan: FindPlan, match: Match, identity: Identity) -> Dataset:
    """Return the identifier of the response for one match."""
    elements = dict(_texts(plan, match, identity))
    terms, encodings = _character_set(plan, elements.values())
    encoder = _Encoder(encodings, is_little_endian=identity.is_little_endian)
    dataset = Dataset()
    for tag, (vr, value) in sorted(elements.items()):
        dataset[tag] = encoder.element(tag, vr, value)
    if terms:
        dataset[_CHARACTER_SET] = encoder.element(_CHARACTER_SET, "CS", "\\".join(terms))
    # What is encoded already is written as it is, not read and encoded anew.
    character_set = _encodings(terms) or default_encoding
    dataset.set_original_encoding(identity.is_implicit, identity.is_little_endian, character_set)
    return dataset


_Found = tuple[str, "str | list[dict[int, _Found]]"]  # VR with text or items


def _texts(plan: FindPlan, match: Match, identity: Identity) -> Iterator[tuple[int, _Found]]:
    """Yield tag, VR and Unicode text (or items) of each element of the response."""
    for key in plan.keys:
        yield key.tag, _found(key, match, identity)
    yield QUERY_RETRIEVE_LEVEL, ("CS", plan.level.value)
    if plan.level is not Level.PATIENT:
        for tag, vr in ((_RETRIEVE_AET, "AE"), (_AVAILABILITY, "CS")):
            yield tag, (vr, _derived(tag, match, identity))


def _found(key: Key, match: Match, identity: Identity) -> _Found:
    attribute = ATTRIBUTES.get(key.tag)
    if attribute is not None and attribute.computed is not None:
        return attribute.vr, _derived(key.tag, match, identity)
    if attribute is not None and attribute.column:
        return attribute.vr, _text(match.values.get(key.tag))
    stored = match.further.get(f"{key.tag:08X}")
    if key.vr == "SQ":
        return "SQ", [_item(item, key.items) for item in _values(stored)]
    return key.vr, "\\".join(map(_json_text, _values(stored)))


def _derived(tag: int, match: Match, identity: Identity) -> str:
    value = match.values.get(tag)
    if tag != _RETRIEVE_AET:
        return _text(value)
    if identity.retrieve_aets:
        return "\\".join(identity.retrieve_aets)
    return "\\".join(retrieve_aets(value if isinstance(value, tuple) else ()))


def retrieve_aets(sets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the AEs from which all of an entity can be retrieved, in their order."""
    lists = [each.split("\\") for each in sets if each]
    if not lists:
        return ()
    return tuple(aet for aet in lists[0] if aet and all(aet in each for each in lists))


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return "\\".join(value)
    return "" if value is None else str(value)


def _values(stored: object) -> Sequence[Any]:
    return stored.get("Value", ()) if isinstance(stored, Mapping) else ()


def _json_text(value: object) -> str:
    if isinstance(value, Mapping):
        groups = (value.get(each, "") for each in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(map(str, groups)).rstrip("=")
    return str(value)


def _item(item: Json, wanted: tuple[Key, ...] | None) -> dict[int, _Found]:
    """Return an item of a stored sequence with the keys that were asked for, else with all."""
    if wanted is None:
        return {int(tag, 16): _json_found(element) for tag, element in item.items()}
    return {
        key.tag: _json_found(item.get(f"{key.tag:08X}", {"vr": key.vr}), key.items)
        for key in wanted
    }


def _json_found(element: Json, wanted: tuple[Key, ...] | None = None) -> _Found:
    vr = str(element.get("vr", "UN"))
    if vr == "SQ":
        return vr, [_item(each, wanted) for each in _values(element)]
    return vr, "\\".join(map(_json_text, _values(element)))


def _character_set(plan: FindPlan, elements: Iterable[_Found]) -> tuple[tuple[str, ...], list[str]]:
    """Return defined terms and Python's encodings for a response."""
    texts = [(vr, text) for vr, text in _flat(elements) if not text.isascii()]
    if not texts:
        return plan.character_set, ["ascii"]
    encodings = _encodings(plan.character_set)
    if encodings and all(_can_encode(vr, text, encodings) for vr, text in texts):
        return plan.character_set, encodings
    return (UTF_8,), ["utf-8"]


def _flat(elements: Iterable[_Found]) -> Iterator[tuple[str, str]]:
    for vr, value in elements:
        if isinstance(value, str):
            yield vr, value
        else:
            for item in value:
                yield from _flat(item.values())


def _encodings(terms: tuple[str, ...]) -> list[str]:
    try:
        return [str(each) for each in convert_encodings(list(terms))] if terms else []
    except (LookupError, ValueError, UserWarning):
        return []


def _can_encode(vr: str, text: str, encodings: list[str]) -> bool:
    try:
        _encoded(vr, text, encodings)
    except (UnicodeError, LookupError, ValueError):
        return False
    return True


def _encoded(vr: str, text: str, encodings: list[str]) -> bytes:
    """Return text in a character set, with escapes if there are several (PS3.5 §6.1.2.5).

    Raises
    ------
    UnicodeError
        When the character set lacks a character.
    """
    if text.isascii():
        return text.encode("ascii")
    if len(encodings) == 1:
        return text.encode(encodings[0])
    if vr == "PN":
        return bytes(PersonName(text).encode(encodings))
    return bytes(encode_string(text, encodings))


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Encodes elements in one character set and byte order."""

    encodings: list[str]
    is_little_endian: bool

    def element(self, tag: int, vr: str, value: object) -> DataElement | RawDataElement:
        """Return an element; its value is encoded already, so that nothing rejects it."""
        if isinstance(value, list):
            items = [self._dataset(item) for item in value]
            return DataElement(tag, "SQ", DicomSequence(items))
        encoded = self._value(vr, str(value))
        return RawDataElement(
            BaseTag(tag),
            vr,
            len(encoded),
            encoded,
            0,
            is_implicit_VR=False,
            is_little_endian=self.is_little_endian,
        )

    def _dataset(self, item: dict[int, _Found]) -> Dataset:
        dataset = Dataset()
        for tag, (vr, value) in sorted(item.items()):
            dataset[tag] = self.element(tag, vr, value)
        return dataset

    def _value(self, vr: str, text: str) -> bytes:
        if vr in _BINARY:
            if not text.lstrip("-").isdecimal():
                return b""
            return int(text).to_bytes(
                _BINARY[vr], "little" if self.is_little_endian else "big", signed=vr[0] == "S"
            )
        if vr in _WITH_CHARACTER_SET:
            encoded = _encoded(vr, text, self.encodings)
        else:
            encoded = text.encode(default_encoding, "replace")
        padding = b"\0" if vr in {"UI", "OB", "UN"} else b" "
        return encoded + padding if len(encoded) % 2 else encoded
