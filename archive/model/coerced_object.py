"""Coerces a stored object on its way out: a new header, the pixel data unread and untouched.

Pure but for reading the object's bytes from what it is given.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from archive.errors import DatasetError
from archive.model.coercion import (
    Ask,
    Coerced,
    CoercionRule,
    Occasion,
    coerce,
    original_attributes,
    select_steps,
)
from archive.model.conditions import AssociationFacts
from archive.model.encoded_header import EncodedHeader, IncompleteHeaderError

_FIRST_READ: Final = 1 << 16
_LONGEST_HEADER: Final = 1 << 28
_IMPLICIT: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95"})
_NATIVE: Final = frozenset(
    {*_IMPLICIT, _BIG_ENDIAN, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"}
)
_ORIGINAL_ATTRIBUTES: Final = 0x04000561
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

Recorded = Mapping[str, Any]
"""What coercion at reception changed: `set` in the DICOM JSON model, `removed` tags."""


class Bytes(Protocol):
    """An open binary file or what reads like one."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position and return it."""
        ...

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes."""
        ...

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a buffer as far as possible."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """Who sends to whom, by which rules."""

    rules: tuple[CoercionRule, ...]
    facts: AssociationFacts
    now: datetime
    ask: Ask


class Spliced:
    """A new header followed by the rest of the object, read when it is wanted."""

    def __init__(self, header: bytes, source: Bytes) -> None:
        self._header = memoryview(header)
        self._source = source

    @property
    def rest(self) -> Bytes | None:
        """What follows the header, once the header has been read."""
        return None if self._header else self._source

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill `buffer` as far as possible and return the number of bytes, 0 at the end."""
        if not self._header:
            return self._source.readinto(buffer)
        size = min(len(buffer), len(self._header))
        buffer[:size] = self._header[:size]
        self._header = self._header[size:]
        return size


def coerced(
    source: Bytes, length: int, syntax: str, *, delivery: Delivery, recorded: Recorded | None
) -> tuple[Spliced, int] | None:
    """Return an object as it has to go out, and its length; None when nothing changes.

    Parameters
    ----------
    source
        Stands at the beginning of the data set, of which `length` bytes follow.
    syntax
        Transfer Syntax UID of the bytes.
    recorded
        What was changed when the object was received.

    Raises
    ------
    CoercionFailedError
        When a step fails whose rule demands that everything fails then.
    DatasetError
        When the object cannot be read or a changed element cannot be encoded.
    """
    start = source.seek(0, os.SEEK_CUR)
    header, whole = read_header(source, length, syntax)
    dataset = header.dataset()
    changed = apply_recorded(dataset, recorded)
    steps = select_steps(delivery.rules, Occasion.SENT, dataset, delivery.facts, now=delivery.now)
    result = coerce(dataset, steps, delivery.ask)
    if result.as_received and changed:
        dataset = header.dataset()
        result, changed = coerce(dataset, steps, delivery.ask), set()
    changed |= result.changed
    if not changed:
        source.seek(start)
        return None
    encoded = header.splice(dataset, changed)
    if changed & _PIXELS and header.pixel_vr is not None:
        return _without_pixels(encoded, syntax, header, source=source)
    if whole is not None:
        encoded = _deflate(encoded + whole[header.end :])
        return Spliced(encoded, _at_end(source)), len(encoded)
    source.seek(start + header.end)
    return Spliced(encoded, source), len(encoded) + length - header.end


def read_header(source: Bytes, length: int, syntax: str) -> tuple[EncodedHeader, bytes | None]:
    """Return the header and, of a deflated object, all of its bytes inflated."""
    implicit, little = syntax in _IMPLICIT, syntax != _BIG_ENDIAN
    if syntax in _DEFLATED:
        whole = _inflate(source.read(length))
        header = EncodedHeader(whole, is_implicit=False, is_little_endian=True, is_whole=True)
        return header, whole
    data = source.read(min(_FIRST_READ, length))
    while True:
        try:
            header = EncodedHeader(
                data,
                is_implicit=implicit,
                is_little_endian=little,
                is_whole=len(data) >= length,
            )
        except IncompleteHeaderError:
            more = source.read(min(len(data) * 3, length - len(data)))
            if not more or len(data) > _LONGEST_HEADER:
                raise
            data += more
        else:
            return header, None


def apply_recorded(dataset: Dataset, recorded: Recorded | None) -> set[int]:
    """Bring into a data set what coercion at reception changed; return the tags."""
    if not recorded:
        return set()
    elements = Dataset.from_json(recorded.get("set", {}))
    changed = {int(element.tag) for element in elements}
    dataset.update(elements)
    for text in recorded.get("removed", ()):
        tag = int(text, 16)
        if tag in dataset:
            del dataset[tag]
            changed.add(tag)
    return changed


def with_original_attributes(
    result: Coerced, *, modifying_system: str, source: str, now: datetime
) -> None:
    """Note what a coercion at reception replaced in Original Attributes Sequence (0400,0561)."""
    if not result.originals:
        return
    item = original_attributes(result, modifying_system=modifying_system, source=source, now=now)
    old = result.dataset.get(_ORIGINAL_ATTRIBUTES)
    items = [*old.value] if old is not None and old.VR == "SQ" else []
    sequence = DicomSequence([*items, item])
    result.dataset[_ORIGINAL_ATTRIBUTES] = DataElement(_ORIGINAL_ATTRIBUTES, "SQ", sequence)
    result.changed.add(_ORIGINAL_ATTRIBUTES)


def record(result: Coerced) -> dict[str, Any]:
    """Return what a coercion changed, for `apply_recorded`."""
    kept = Dataset()
    for tag in sorted(result.changed & {int(each.tag) for each in result.dataset}):
        kept[tag] = result.dataset[tag]
    text = json.dumps(kept.to_json_dict()).replace("\\u0000", "")
    removed = [f"{tag:08X}" for tag in sorted(result.changed) if tag not in result.dataset]
    return {"set": json.loads(text), "removed": removed}


def _without_pixels(
    encoded: bytes, syntax: str, header: EncodedHeader, *, source: Bytes
) -> tuple[Spliced, int]:
    """Return the header with pixel data of no length (nullify-pixel-data)."""
    if syntax in _IMPLICIT:
        encoded += b"\xe0\x7f\x10\x00\x00\x00\x00\x00"
    elif syntax == _BIG_ENDIAN:
        encoded += b"\x7f\xe0\x00\x10OW\x00\x00\x00\x00\x00\x00"
    elif syntax in _NATIVE:
        vr = (header.pixel_vr or "OW").encode()
        encoded += b"\xe0\x7f\x10\x00" + vr + b"\x00\x00\x00\x00\x00\x00"
    else:  # encapsulated: an empty offset table, then the end (PS3.5 §A.4)
        encoded += b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
        encoded += b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    if syntax in _DEFLATED:
        encoded = _deflate(encoded)
    return Spliced(encoded, _at_end(source)), len(encoded)


def _at_end(source: Bytes) -> Bytes:
    source.seek(0, os.SEEK_END)
    return source


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        whole = inflater.decompress(data, _LONGEST_HEADER)
    except zlib.error as error:
        msg = f"not a deflated data set: {error}"
        raise DatasetError(msg) from error
    if inflater.unconsumed_tail:
        msg = f"a deflated data set of more than {_LONGEST_HEADER} bytes is not coerced"
        raise DatasetError(msg)
    return whole


def _deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    encoded = deflater.compress(data) + deflater.flush()
    return encoded + b"\0" if len(encoded) % 2 else encoded
