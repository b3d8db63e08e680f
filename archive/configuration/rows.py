"""Rows of the table of attributes: what one field of a descriptor is made of."""

from dataclasses import dataclass
from enum import StrEnum

from archive.model.commitment_terms import TERMS_FORM


class Kind(StrEnum):
    """How the text of a value is read."""

    TEXT = "text"
    SECRET = "secret text"  # noqa: S105 - the name of a kind, not a secret
    AE_TITLE = "AE title"
    UID = "UID"
    INTEGER = "integer"
    BOOLEAN = "TRUE or FALSE"
    DURATION = "duration"
    MILLISECONDS = "milliseconds, 0 for none"
    SCHEDULE = "schedule"
    CONDITIONS = "conditions"
    PROPERTIES = "name=value"
    URI = "URI"
    AVAILABILITY = "ONLINE, NEARLINE, OFFLINE or UNAVAILABLE"
    ENTITY = "Study, Series or Instance"
    REOCCURRED = "NEVER, ALWAYS or REPLACE"
    OVERWRITE = "NEVER, SAME_SOURCE, ALWAYS or EVEN_WITH_EQUAL_DIGEST"
    UPDATE_POLICY = "SUPPLEMENT, MERGE, OVERWRITE, PRESERVE or REPLACE"
    ON_FAILURE = "RETHROW, CONTINUE or SUFFICIENT"
    MERGE = "path=value, path= or path!"
    TAG = "tag of eight hexadecimal digits"
    SPANNING = "REPLACE, MERGE or SUPPLEMENT"
    VERIFICATION = "DB_RECORD_EXISTS, OBJECT_EXISTS, OBJECT_SIZE, OBJECT_FETCH or OBJECT_CHECKSUM"
    COMMITMENT_TERMS = TERMS_FORM
    IAN_TRIGGER = (
        "STUDY_RECEIVED, FIRST_OBJECT_OF_STUDY_RECEIVED, MPPS_RECEIVED or REJECTION_NOTE_RECEIVED"
    )
    ROLE = "SCU or SCP"
    ORDERED = "values with order prefix {0}"
    PEER_LIMITS = "AE title=number"
    ZONE = "time zone"
    DIGEST = "digest algorithm"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row: what field of a descriptor stands behind which LDAP attribute.

    Attributes
    ----------
    many
        Whether the attribute has any number of values.
    required
        Whether the entry is useless without it.
    essential
        Whether the entry is set aside when a value is wrong, because without that value it would
        do something that nobody asked for.
    unit
        Unit of the field.
    meaning
        What the attribute does, for the documentation and the schema.
    """

    field: str
    ldap: str
    kind: Kind
    meaning: str
    many: bool = False
    required: bool = False
    essential: bool = False
    unit: str = ""


def one(field: str, ldap: str, kind: Kind, meaning: str) -> Attribute:
    """Return the row of an attribute with one value."""
    unit = "s" if kind in {Kind.DURATION, Kind.MILLISECONDS} else ""
    return Attribute(field, ldap, kind, meaning, unit=unit)


def many(field: str, ldap: str, kind: Kind, meaning: str) -> Attribute:
    """Return the row of an attribute with any number of values."""
    return Attribute(field, ldap, kind, meaning, many=True)


def must(field: str, ldap: str, kind: Kind, meaning: str) -> Attribute:
    """Return the row of an attribute without which the entry is useless."""
    return Attribute(field, ldap, kind, meaning, required=True, essential=True)


def vital(field: str, ldap: str, kind: Kind, meaning: str) -> Attribute:
    """Return the row of an attribute with any number of values; wrong ones spoil the entry."""
    return Attribute(field, ldap, kind, meaning, many=True, essential=True)
