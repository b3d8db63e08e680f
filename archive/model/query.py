"""What a C-FIND asks of the index (PS3.4 §C.2.2.2): levels, indexed attributes, criteria. Pure.

`ATTRIBUTES` says once which attributes can be matched and returned, at which level they stand
and where the index keeps them. Common ones have a column; the others lie, in the DICOM JSON model
(PS3.18 §F), in the column ``attributes`` of their level's table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), outermost first."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def above(self) -> "tuple[Level, ...]":
        """The levels above, outermost first."""
        return _LEVELS[: _LEVELS.index(self)]

    @property
    def reached(self) -> "tuple[Level, ...]":
        """The levels above and this one."""
        return _LEVELS[: _LEVELS.index(self) + 1]


_LEVELS: Final = tuple(Level)


class Computed(StrEnum):
    """Return keys that are derived from what lies below or from the configuration."""

    PATIENT_STUDIES = "patient_studies"
    PATIENT_SERIES = "patient_series"
    PATIENT_INSTANCES = "patient_instances"
    STUDY_SERIES = "study_series"
    STUDY_INSTANCES = "study_instances"
    SERIES_INSTANCES = "series_instances"
    MODALITIES = "modalities"
    SOP_CLASSES = "sop_classes"
    RETRIEVE_AETS = "retrieve_aets"
    AVAILABILITY = "availability"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the index.

    Attributes
    ----------
    column
        Column of the level's table; empty when it lies in ``attributes``.
    computed
        What it is derived from instead.
    """

    tag: int
    vr: str
    level: Level
    column: str = ""
    computed: Computed | None = None

    @property
    def key(self) -> str:
        """The tag as the DICOM JSON model spells it."""
        return f"{self.tag:08X}"


def _patient(tag: int, vr: str, column: str = "") -> Attribute:
    return Attribute(tag, vr, Level.PATIENT, column)


def _study(tag: int, vr: str, column: str = "") -> Attribute:
    return Attribute(tag, vr, Level.STUDY, column)


def _series(tag: int, vr: str, column: str = "") -> Attribute:
    return Attribute(tag, vr, Level.SERIES, column)


def _image(tag: int, vr: str, column: str = "") -> Attribute:
    return Attribute(tag, vr, Level.IMAGE, column)


PATIENT_ID: Final = _patient(0x00100020, "LO", "patient_id")
STUDY_INSTANCE_UID: Final = _study(0x0020000D, "UI", "study_instance_uid")
SERIES_INSTANCE_UID: Final = _series(0x0020000E, "UI", "series_instance_uid")
SOP_INSTANCE_UID: Final = _image(0x00080018, "UI", "sop_instance_uid")

UNIQUE_KEYS: Final[Mapping[Level, Attribute]] = {
    Level.PATIENT: PATIENT_ID,
    Level.STUDY: STUDY_INSTANCE_UID,
    Level.SERIES: SERIES_INSTANCE_UID,
    Level.IMAGE: SOP_INSTANCE_UID,
}

_COLUMNS: Final = (
    PATIENT_ID,
    _patient(0x00100010, "PN", "patient_name"),
    _patient(0x00100021, "LO", "issuer_of_patient_id"),
    _patient(0x00100030, "DA", "patient_birth_date"),
    _patient(0x00100040, "CS", "patient_sex"),
    STUDY_INSTANCE_UID,
    _study(0x00080020, "DA", "study_date"),
    _study(0x00080030, "TM", "study_time"),
    _study(0x00080050, "SH", "accession_number"),
    _study(0x00080090, "PN", "referring_physician_name"),
    _study(0x00081030, "LO", "study_description"),
    _study(0x00200010, "SH", "study_id"),
    SERIES_INSTANCE_UID,
    _series(0x00080060, "CS", "modality"),
    _series(0x00200011, "IS", "series_number"),
    _series(0x0008103E, "LO", "series_description"),
    _series(0x00180015, "CS", "body_part_examined"),
    _series(0x00081010, "SH", "station_name"),
    _series(0x00400244, "DA", "performed_procedure_step_start_date"),
    _series(0x00400245, "TM", "performed_procedure_step_start_time"),
    SOP_INSTANCE_UID,
    _image(0x00080016, "UI", "sop_class_uid"),
    _image(0x00200013, "IS", "instance_number"),
    _image(0x00080023, "DA", "content_date"),
    _image(0x00080033, "TM", "content_time"),
    _image(0x00280008, "IS", "number_of_frames"),
    _image(0x00280010, "US", "image_rows"),
    _image(0x00280011, "US", "image_columns"),
)

FURTHER: Final = (
    _patient(0x00100032, "TM"),
    _patient(0x00101000, "LO"),
    _patient(0x00101002, "SQ"),
    _patient(0x00102160, "SH"),
    _patient(0x00104000, "LT"),
    _study(0x00080051, "SQ"),
    _study(0x00081032, "SQ"),
    _study(0x00081060, "PN"),
    _study(0x00081080, "LO"),
    _study(0x00101010, "AS"),
    _study(0x00101020, "DS"),
    _study(0x00101030, "DS"),
    _study(0x001021B0, "LT"),
    _series(0x00080070, "LO"),
    _series(0x00080080, "LO"),
    _series(0x00081040, "LO"),
    _series(0x00081050, "PN"),
    _series(0x00081090, "LO"),
    _series(0x00081111, "SQ"),
    _series(0x00181030, "LO"),
    _series(0x00200060, "CS"),
    _series(0x00400253, "SH"),
    _series(0x00400254, "LO"),
    _series(0x00400275, "SQ"),
    _image(0x00080008, "CS"),
    _image(0x0040A043, "SQ"),
    _image(0x0040A491, "CS"),
    _image(0x0040A493, "CS"),
)
"""What is kept in ``attributes`` of the level's table."""

_COMPUTED: Final = (
    Attribute(0x00201200, "IS", Level.PATIENT, computed=Computed.PATIENT_STUDIES),
    Attribute(0x00201202, "IS", Level.PATIENT, computed=Computed.PATIENT_SERIES),
    Attribute(0x00201204, "IS", Level.PATIENT, computed=Computed.PATIENT_INSTANCES),
    Attribute(0x00201206, "IS", Level.STUDY, computed=Computed.STUDY_SERIES),
    Attribute(0x00201208, "IS", Level.STUDY, computed=Computed.STUDY_INSTANCES),
    Attribute(0x00080061, "CS", Level.STUDY, computed=Computed.MODALITIES),
    Attribute(0x00080062, "UI", Level.STUDY, computed=Computed.SOP_CLASSES),
    Attribute(0x00201209, "IS", Level.SERIES, computed=Computed.SERIES_INSTANCES),
    Attribute(0x00080054, "AE", Level.STUDY, computed=Computed.RETRIEVE_AETS),
    Attribute(0x00080056, "CS", Level.STUDY, computed=Computed.AVAILABILITY),
)

ATTRIBUTES: Final[Mapping[int, Attribute]] = {
    each.tag: each for each in (*_COLUMNS, *FURTHER, *_COMPUTED)
}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Single value and list of UID matching: one of the values, exactly."""

    attribute: Attribute
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnyLike:
    """Wildcard matching: like one of the SQL patterns.

    Attributes
    ----------
    folded
        Whether case is ignored; the patterns are in lower case then.
    """

    attribute: Attribute
    patterns: tuple[str, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class AnyNumber:
    """Matching of integer strings by their number."""

    attribute: Attribute
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Range matching of dates and times; an empty bound is open."""

    attribute: Attribute
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class MomentBetween:
    """Combined date-time range matching (PS3.4 §C.2.2.2.5.3); an empty bound is open."""

    date: Attribute
    time: Attribute
    low: tuple[str, str]
    high: tuple[str, str]


@dataclass(frozen=True, slots=True)
class NameLike:
    """Matching of a person name, case ignored.

    Attributes
    ----------
    groups
        SQL patterns for the alphabetic, ideographic and phonetic group, any of which has to
        match; no pattern for a group that may be anything.
    any_group
        Whether the patterns of the first group may match any group.
    """

    attribute: Attribute
    groups: tuple[tuple[str, ...], ...]
    any_group: bool


@dataclass(frozen=True, slots=True)
class JsonMatch:
    """Matching in the further attributes of a level.

    Attributes
    ----------
    path
        SQL/JSON path that finds something in a matching entity.
    """

    level: Level
    path: str


@dataclass(frozen=True, slots=True)
class AnyBelow:
    """Matching of a derived attribute: some series (instance) of the study has such a value."""

    computed: Computed
    patterns: tuple[str, ...]


Criterion = AnyOf | AnyLike | AnyNumber | Between | MomentBetween | NameLike | JsonMatch | AnyBelow


@dataclass(frozen=True, slots=True)
class Query:
    """A query of the index.

    Attributes
    ----------
    returned
        What each match has to tell.
    limit
        Most matches, 0 for any number.
    """

    level: Level
    criteria: tuple[Criterion, ...] = ()
    returned: tuple[Attribute, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """One entity that matches.

    Attributes
    ----------
    values
        By tag: text of attributes with a column, or of derived ones; None for nothing.
    further
        Attributes of the levels down to the query's in the DICOM JSON model.
    """

    values: Mapping[int, "str | int | tuple[str, ...] | None"]
    further: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def further_of(level: Level) -> tuple[Attribute, ...]:
    """Return the attributes that lie in ``attributes`` of a level."""
    return tuple(each for each in FURTHER if each.level is level)


def known(tags: Iterable[int], level: Level) -> tuple[Attribute, ...]:
    """Return the attributes of the index among `tags` that a query at `level` can return."""
    return tuple(
        ATTRIBUTES[tag]
        for tag in tags
        if tag in ATTRIBUTES and _is_returned(ATTRIBUTES[tag], level)
    )


def _is_returned(attribute: Attribute, level: Level) -> bool:
    return attribute.level in level.reached
