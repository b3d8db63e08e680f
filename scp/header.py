"""What is read of a received object: the indexed attributes and what rules may ask for.

The bytes of the object are never changed and its pixel data never looked at; only the elements
before them are walked, once, and only the values that somebody asks for are decoded.
"""

import zlib
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from pydicom.charset import decode_bytes, default_encoding, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

from archive.errors import DatasetError, InvalidValueError
from archive.model.entities import ObjectAttributes
from archive.model.identifiers import check_uid
from archive.model.query import Level, further_of
from scp.dimse import StoreRequest
from scp.elements import Element, Encoding, Source, walk
from scp.further import FURTHER_TAGS, further_attributes
from scp.statuses import RefusedObjectError, StoreStatus

_IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
_EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
_GE_IMPLICIT: Final = "1.2.840.113619.5.2"
DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95"})
"""Transfer syntaxes whose data sets are deflated."""

_INFLATED_LENGTH: Final = 1 << 20
DEFLATED_STEP: Final = 65536
_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018

_TEXTS: Final[dict[str, int]] = {
    "patient_id": 0x00100020,
    "issuer_of_patient_id": 0x00100021,
    "patient_name": 0x00100010,
    "patient_birth_date": 0x00100030,
    "patient_sex": 0x00100040,
    "study_date": 0x00080020,
    "study_time": 0x00080030,
    "accession_number": 0x00080050,
    "study_id": 0x00200010,
    "study_description": 0x00081030,
    "referring_physician_name": 0x00080090,
    "modality": 0x00080060,
    "series_number": 0x00200011,
    "series_description": 0x0008103E,
    "body_part_examined": 0x00180015,
    "station_name": 0x00081010,
    "performed_procedure_step_start_date": 0x00400244,
    "performed_procedure_step_start_time": 0x00400245,
    "instance_number": 0x00200013,
    "content_date": 0x00080023,
    "content_time": 0x00080033,
    "number_of_frames": 0x00280008,
}
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_STUDY_INSTANCE_UID: Final = 0x0020000D
_SERIES_INSTANCE_UID: Final = 0x0020000E
_OWN_TEXTS: Final = ("instance_number", "content_date", "content_time", "number_of_frames")
_OWN_TEXT_TAGS: Final = tuple(_TEXTS[name] for name in _OWN_TEXTS)
_shared_texts: Final = attrgetter(*(name for name in _TEXTS if name not in _OWN_TEXTS))
_OWN_FURTHER: Final = tuple(sorted(each.tag for each in further_of(Level.IMAGE)))
"""Further attributes of the object itself."""

_PARENTS: Final = tuple(
    sorted(
        {tag for name, tag in _TEXTS.items() if name not in _OWN_TEXTS}
        | (FURTHER_TAGS - set(_OWN_FURTHER))
        | {_SPECIFIC_CHARACTER_SET, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID}
    )
)
PARENT_TAGS: Final = frozenset(_PARENTS)
"""Elements that say of which patient, study and series an object is, and what the index keeps."""

INDEXED_TAGS: Final = (
    PARENT_TAGS
    | set(_TEXTS.values())
    | set(_OWN_FURTHER)
    | {_ROWS, _COLUMNS, _SOP_CLASS_UID, _SOP_INSTANCE_UID}
)
"""Elements that the index is made of."""

RawValues = tuple[tuple[str | None, bytes | None] | None, ...]
"""VR and encoded value of some elements, None for one that is absent."""


@dataclass(frozen=True, slots=True)
class Header:
    """The elements of an object before its pixel data.

    Attributes
    ----------
    known_parents
        What `parents` returns, where that is known already.
    """

    elements: dict[int, Element]
    encoding: Encoding
    known_parents: RawValues | None = None

    def attributes(self, request: StoreRequest, transfer_syntax_uid: str) -> ObjectAttributes:
        """Return the indexed attributes, checked against the request that carried the object.

        Raises
        ------
        RefusedObjectError
            When a UID is missing, is not a UID, or is not the one the request names (A900).
        """
        self.check_same(request)
        return ObjectAttributes(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            study_instance_uid=self._uid(_STUDY_INSTANCE_UID, "Study Instance UID"),
            series_instance_uid=self._uid(_SERIES_INSTANCE_UID, "Series Instance UID"),
            transfer_syntax_uid=transfer_syntax_uid,
            rows=self._number(_ROWS),
            columns=self._number(_COLUMNS),
            further=self._further(),
            **{name: self._text(tag) for name, tag in _TEXTS.items()},
        )

    def attributes_like(
        self, sibling: ObjectAttributes, request: StoreRequest, transfer_syntax_uid: str
    ) -> ObjectAttributes:
        """Return the indexed attributes of an object with the same `parents` as `sibling`.

        The object was checked with `check_same`. Its further attributes are those of the sibling:
        see `own_further`.
        """
        # By position, in the order of the fields: by name takes twice as long.
        values: tuple[Any, ...] = (
            request.sop_class_uid,
            request.sop_instance_uid,
            sibling.study_instance_uid,
            sibling.series_instance_uid,
            transfer_syntax_uid,
            *_shared_texts(sibling),
            *[self._text(tag) for tag in _OWN_TEXT_TAGS],
            self._number(_ROWS),
            self._number(_COLUMNS),
            sibling.further,
        )
        return ObjectAttributes(*values)

    def check_same(self, request: StoreRequest) -> None:
        """Check that the data set names the same object as the command (PS3.4 §B.2.3).

        Raises
        ------
        RefusedObjectError
            When it has no such UID or another one (A900).
        """
        self._check_same(_SOP_CLASS_UID, "SOP Class UID", request.sop_class_uid)
        self._check_same(_SOP_INSTANCE_UID, "SOP Instance UID", request.sop_instance_uid)

    def parents(self) -> RawValues:
        """Return the encoded values of `PARENT_TAGS`, equal for objects of one series."""
        if self.known_parents is not None:
            return self.known_parents
        return self._raw_values(_PARENTS)

    def own_further(self) -> RawValues:
        """Return the encoded values of the object's own further attributes."""
        return self._raw_values(_OWN_FURTHER)

    def _raw_values(self, tags: tuple[int, ...]) -> RawValues:
        return tuple([each and each[1:] for each in map(self.elements.get, tags)])

    def further_of_object(self) -> dict[str, Any]:
        """Return the further attributes of the object itself in the DICOM JSON model."""
        return self._further(_OWN_FURTHER).get("instance", {})

    def _further(self, tags: Collection[int] = FURTHER_TAGS) -> dict[str, dict[str, Any]]:
        present = self.elements.keys() & tags
        return further_attributes(self._subset(present | {_SPECIFIC_CHARACTER_SET}))

    def dataset(self, tags: Collection[int] | None = None) -> Dataset:
        """Return elements as a data set whose values are decoded when asked for.

        Parameters
        ----------
        tags
            Which elements are wanted; None takes all.
        """
        return self._subset(self.elements.keys() if tags is None else tags)

    def _subset(self, tags: Collection[int]) -> Dataset:
        raw = (self._raw(self.elements[tag]) for tag in tags if tag in self.elements)
        dataset = Dataset({each.tag: each for each in raw if each is not None})
        dataset.set_original_encoding(
            self.encoding.is_implicit, self.encoding.is_little_endian, self._character_sets()
        )
        return dataset

    def _raw(self, element: Element) -> RawDataElement | None:
        if element.value is None:
            return None
        return RawDataElement(
            tag=BaseTag(element.tag),
            VR=element.vr,
            length=len(element.value),
            value=element.value,
            value_tell=0,
            is_implicit_VR=self.encoding.is_implicit or element.vr == "UN",
            is_little_endian=self.encoding.is_little_endian,
        )

    def _uid(self, tag: int, name: str) -> str:
        text = self._text(tag)
        if text is None:
            msg = f"the object has no {name} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
            raise RefusedObjectError(StoreStatus.DATA_SET_MISMATCH, msg)
        try:
            return check_uid(text, name)
        except InvalidValueError as error:
            raise RefusedObjectError(StoreStatus.DATA_SET_MISMATCH, str(error)) from error

    def _check_same(self, tag: int, name: str, requested: str) -> None:
        found = self._uid(tag, name)
        if found != requested:
            msg = f"{name} {found} of the data set is not {requested} of the request"
            raise RefusedObjectError(StoreStatus.DATA_SET_MISMATCH, msg)

    def _text(self, tag: int) -> str | None:
        """Return the text of an element in Unicode, None when it is absent or empty."""
        element = self.elements.get(tag)
        if element is None or not element.value:
            return None
        value = element.value
        if value.isascii() and b"\x1b" not in value:
            text = value.decode("ascii")
        else:
            text = _decoded(value, self._character_sets())
        return text.replace("\0", "").strip() or None

    def _number(self, tag: int) -> int | None:
        element = self.elements.get(tag)
        if element is None or element.value is None or len(element.value) != 2:  # noqa: PLR2004 - US
            return None
        return int.from_bytes(
            element.value, "little" if self.encoding.is_little_endian else "big", signed=False
        )

    def _character_sets(self) -> list[str]:
        """Return Python's names of Specific Character Set (PS3.3 §C.12.1.1.2)."""
        element = self.elements.get(_SPECIFIC_CHARACTER_SET)
        terms = (element.value or b"").decode("ascii", "replace") if element else ""
        names = [python_encoding.get(term.strip("\0 ")) for term in terms.split("\\")]
        return [name or default_encoding for name in names]


def read_header(
    read: Callable[[int, int], bytes],
    length: int,
    transfer_syntax_uid: str,
    wanted: AbstractSet[int] | None = None,
) -> Header:
    """Read the elements of a received data set up to its pixel data.

    Parameters
    ----------
    read
        Returns up to so many bytes from a position of the encoded data set.
    length
        Bytes of the encoded data set.
    wanted
        Tags of interest, None for all.

    Raises
    ------
    DatasetError
        When the bytes are not a whole data set in that transfer syntax (C499).
    """
    source = Source(read, length)
    if transfer_syntax_uid in DEFLATED:
        source = _inflated(read, length)
    encoding = encoding_of(transfer_syntax_uid)
    return Header(walk(source, encoding, wanted), encoding)


@lru_cache(maxsize=64)
def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Return how data sets of a transfer syntax are encoded, inflated if need be."""
    return Encoding(
        is_implicit=transfer_syntax_uid in {_IMPLICIT_LITTLE, _GE_IMPLICIT},
        is_little_endian=transfer_syntax_uid != _EXPLICIT_BIG,
    )


def _inflated(read: Callable[[int, int], bytes], length: int) -> Source:
    """Return the beginning of a deflated data set (PS3.5 §A.5), at most 1 MiB of it."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    data = bytearray()
    position = 0
    try:
        while position < length and len(data) < _INFLATED_LENGTH and not inflater.eof:
            compressed = inflater.unconsumed_tail or read(position, DEFLATED_STEP)
            if not inflater.unconsumed_tail:
                position += len(compressed)
            data += inflater.decompress(compressed, _INFLATED_LENGTH - len(data))
    except zlib.error as error:
        msg = f"not a deflated data set: {error}"
        raise DatasetError(msg) from error
    whole = inflater.eof
    if position >= length and not whole and not inflater.unconsumed_tail:
        msg = "the deflated data set ends early"
        raise DatasetError(msg)
    return Source(lambda start, size: bytes(data[start : start + size]), len(data), is_whole=whole)


def _decoded(value: bytes, encodings: list[str]) -> str:
    """Return text in one character set, or in several with escapes (PS3.5 §6.1.2.5)."""
    if b"\x1b" in value:
        try:
            return decode_bytes(value, encodings, TEXT_VR_DELIMS)
        except (LookupError, UnicodeError, UserWarning):
            return value.decode(default_encoding, "replace")
    return value.decode(encodings[0], "replace")
