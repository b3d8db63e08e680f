"""Retrieves, decided: what an identifier asks for, and how the sub-operations add up (PS3.4 §C.4).

Pure. The checks of a C-MOVE or C-GET identifier come in a fixed order, so that a requestor gets
the same answer for the same mistake; the counters lead to the final status in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from pydicom import Dataset
from pydicom.multival import MultiValue

from archive.errors import DatasetError
from archive.model.status import SUCCESS

RETRIEVE_QUEUE = "Retrieve"
"""Queue of the retrieves that this archive requests from others."""

INTERACTIVE_QUEUE = "CMoveSCP"
"""Queue of the retrieves that somebody waits for: never behind a batch of the former."""

MAX_COMMENT_LENGTH = 64
"""Characters of Error Comment (0000,0902), VR LO."""

MAX_SUB_OPERATIONS = 0xFFFF
"""Counters are of VR US."""


class RetrieveStatus(IntEnum):
    """Statuses of C-MOVE and C-GET responses (PS3.4 §C.4.2.1.5, §C.4.3.1.4)."""

    SUCCESS = SUCCESS
    CANNOT_COUNT = 0xA701
    CANNOT_PERFORM = 0xA702
    DESTINATION_UNKNOWN = 0xA801
    IDENTIFIER_MISMATCH = 0xA900
    SOME_FAILED = 0xB000
    CANCELED = 0xFE00
    PENDING = 0xFF00


class RetrieveLevel(StrEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


_L = RetrieveLevel
_PATIENT_ROOT = (_L.PATIENT, _L.STUDY, _L.SERIES, _L.IMAGE)
_STUDY_ROOT = (_L.STUDY, _L.SERIES, _L.IMAGE)
_PATIENT_STUDY_ONLY = (_L.PATIENT, _L.STUDY)

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

LEVELS: Mapping[str, tuple[RetrieveLevel, ...]] = {
    "1.2.840.10008.5.1.4.1.2.1.2": _PATIENT_ROOT,
    "1.2.840.10008.5.1.4.1.2.1.3": _PATIENT_ROOT,
    STUDY_ROOT_MOVE: _STUDY_ROOT,
    STUDY_ROOT_GET: _STUDY_ROOT,
    "1.2.840.10008.5.1.4.1.2.3.2": _PATIENT_STUDY_ONLY,
    "1.2.840.10008.5.1.4.1.2.3.3": _PATIENT_STUDY_ONLY,
}
"""Levels of the information models, by the SOP Class UIDs of their C-MOVE and C-GET."""

UNIQUE_KEYS: Mapping[RetrieveLevel, tuple[int, str]] = {
    _L.PATIENT: (0x00100020, "PatientID"),
    _L.STUDY: (0x0020000D, "StudyInstanceUID"),
    _L.SERIES: (0x0020000E, "SeriesInstanceUID"),
    _L.IMAGE: (0x00080018, "SOPInstanceUID"),
}
"""Unique key of each level: tag and keyword (PS3.4 §C.6.1.1, §C.6.2.1)."""

_LEVEL_TAG = 0x00080052


class IdentifierError(DatasetError):
    """An identifier does not fit its information model (A900).

    Attributes
    ----------
    offending_tag
        For Offending Element (0000,0901).
    """

    def __init__(self, offending_tag: int, message: str) -> None:
        super().__init__(message)
        self.offending_tag = offending_tag


@dataclass(frozen=True, slots=True)
class RetrieveIdentifier:
    """What is to be retrieved.

    Attributes
    ----------
    patient_id, issuer_of_patient_id
        Restrict the matches also where the model does not demand them.
    """

    level: RetrieveLevel
    study_instance_uids: tuple[str, ...] = ()
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None

    @property
    def entity_key(self) -> str:
        """One text for the same request, whoever makes it."""
        lists = (self.study_instance_uids, self.series_instance_uids, self.sop_instance_uids)
        uids = ("\\".join(sorted(uids)) for uids in lists)
        patient = f"{self.patient_id or ''}^{self.issuer_of_patient_id or ''}"
        return "|".join((self.level, patient, *uids))

    def words(self) -> str:
        """Return what is retrieved, for messages."""
        if self.level is RetrieveLevel.PATIENT:
            return f"patient {self.patient_id}"
        lists = {
            RetrieveLevel.STUDY: self.study_instance_uids,
            RetrieveLevel.SERIES: self.series_instance_uids,
            RetrieveLevel.IMAGE: self.sop_instance_uids,
        }
        uids = lists[self.level]
        noun = "instance" if self.level is RetrieveLevel.IMAGE else self.level.lower()
        return f"{noun} {uids[0]}" if len(uids) == 1 else f"{len(uids)} of level {self.level}"


@dataclass(frozen=True, slots=True)
class Leniency:
    """What an identifier may lack.

    Attributes
    ----------
    relational
        Relational retrieval was negotiated (PS3.4 §C.5.2.1.3) or is taken without
        (dcmRelationalRetrieveNegotiationLenient): keys of upper levels may be missing.
    """

    relational: bool = False


def check_identifier(
    sop_class_uid: str, identifier: Dataset, leniency: Leniency
) -> RetrieveIdentifier:
    """Return what an identifier asks for.

    The order of the checks: level, keys of the upper levels, key of the level, lists of upper
    keys (PS3.4 §C.4.2.2.1).

    Parameters
    ----------
    sop_class_uid
        Information model of the request.
    identifier
        Its data set.

    Raises
    ------
    IdentifierError
        When it does not fit the model.
    """
    levels = LEVELS.get(sop_class_uid, ())
    level = _level(identifier, levels)
    keys = {each: _values(identifier, UNIQUE_KEYS[each][1]) for each in RetrieveLevel}
    upper = levels[: levels.index(level)]
    if not leniency.relational:
        for each in upper:
            _check_present(each, keys[each])
    _check_present(level, keys[level])
    for each in (*upper, *((level,) if level is RetrieveLevel.PATIENT else ())):
        if len(keys[each]) > 1:
            tag, keyword = UNIQUE_KEYS[each]
            raise IdentifierError(tag, f"{keyword} has {len(keys[each])} values at level {level}")
    return _identifier(identifier, level, keys)


def _level(identifier: Dataset, levels: Sequence[RetrieveLevel]) -> RetrieveLevel:
    text = _text(identifier, "QueryRetrieveLevel")
    if text is None:
        raise IdentifierError(_LEVEL_TAG, "Query/Retrieve Level is missing")
    if text not in levels:
        raise IdentifierError(_LEVEL_TAG, f"Query/Retrieve Level {text:.16} is not in this model")
    return RetrieveLevel(text)


def _check_present(level: RetrieveLevel, values: tuple[str, ...]) -> None:
    tag, keyword = UNIQUE_KEYS[level]
    if not values:
        raise IdentifierError(tag, f"{keyword} is missing")
    if any(character in value for value in values for character in "*?"):
        raise IdentifierError(tag, f"{keyword} has a wildcard, which a retrieve may not have")


def _identifier(
    identifier: Dataset, level: RetrieveLevel, keys: Mapping[RetrieveLevel, tuple[str, ...]]
) -> RetrieveIdentifier:
    """Return the checked identifier; keys below its level are of no importance."""
    depth = _PATIENT_ROOT.index(level)
    taken = {each: keys[each] for each in _PATIENT_ROOT[1 : depth + 1]}
    patient_ids = keys[RetrieveLevel.PATIENT]
    return RetrieveIdentifier(
        level=level,
        study_instance_uids=taken.get(RetrieveLevel.STUDY, ()),
        series_instance_uids=taken.get(RetrieveLevel.SERIES, ()),
        sop_instance_uids=taken.get(RetrieveLevel.IMAGE, ()),
        patient_id=patient_ids[0] if patient_ids else None,
        issuer_of_patient_id=_text(identifier, "IssuerOfPatientID"),
    )


def _values(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    value = identifier.get(keyword)
    values = value if isinstance(value, MultiValue) else [value]
    texts = (str(each).replace("\0", "").strip() for each in values if each is not None)
    return tuple(dict.fromkeys(text for text in texts if text))


def _text(identifier: Dataset, keyword: str) -> str | None:
    values = _values(identifier, keyword)
    return values[0] if values else None


def identifier_dataset(identifier: RetrieveIdentifier) -> Dataset:
    """Return the data set of a C-MOVE-RQ for `identifier`: level and given keys only."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = str(identifier.level)
    if identifier.patient_id is not None:
        dataset.PatientID = identifier.patient_id
    if identifier.issuer_of_patient_id is not None:
        dataset.IssuerOfPatientID = identifier.issuer_of_patient_id
    for keyword, uids in (
        ("StudyInstanceUID", identifier.study_instance_uids),
        ("SeriesInstanceUID", identifier.series_instance_uids),
        ("SOPInstanceUID", identifier.sop_instance_uids),
    ):
        if uids:
            setattr(dataset, keyword, list(uids) if len(uids) > 1 else uids[0])
    return dataset


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Counters of a retrieve."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warning: int = 0

    @property
    def done(self) -> int:
        """Sub-operations that came to an end."""
        return self.completed + self.failed + self.warning

    @property
    def total(self) -> int:
        """All sub-operations."""
        return self.done + self.remaining

    def plus(self, other: "SubOperations") -> "SubOperations":
        """Return the sums of two sets of counters."""
        return SubOperations(
            self.remaining + other.remaining,
            self.completed + other.completed,
            self.failed + other.failed,
            self.warning + other.warning,
        )

    def settled(self) -> "SubOperations":
        """Return the counters at the end: what remains will not come and has failed."""
        return replace(self, remaining=0, failed=self.failed + self.remaining)


@dataclass(frozen=True, slots=True)
class RetrieveResult:
    """How a retrieve ended, as its final response says it.

    Attributes
    ----------
    failed_sop_instance_uids
        Failed SOP Instance UID List (0008,0058), as far as they are known.
    """

    status: int
    counts: SubOperations
    failed_sop_instance_uids: tuple[str, ...] = ()
    error_comment: str = ""


def final_status(counts: SubOperations, *, canceled: bool = False) -> RetrieveStatus:
    """Return the final status for settled counters (PS3.4 §C.4.2.1.5).

    A cancel that came when everything was done changes nothing any more.
    """
    if canceled and counts.remaining:
        return RetrieveStatus.CANCELED
    if counts.failed and not counts.completed and not counts.warning:
        return RetrieveStatus.CANNOT_PERFORM
    if counts.failed or counts.warning:
        return RetrieveStatus.SOME_FAILED
    return RetrieveStatus.SUCCESS


def destination_is_accepted(destination: str, accepted: Sequence[str]) -> bool:
    """Tell whether dcmAcceptedMoveDestination allows a move destination; none given: any."""
    return not accepted or destination in accepted


def comment(text: str) -> str:
    """Return `text` as an Error Comment (0000,0902): printable ASCII, at most 64 characters."""
    plain = text.replace("\\", "/").encode("ascii", "replace").decode("ascii")
    printable = "".join(char if char.isprintable() else " " for char in plain)
    if len(printable) <= MAX_COMMENT_LENGTH:
        return printable
    return printable[: MAX_COMMENT_LENGTH - 3] + "..."
