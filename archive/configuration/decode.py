"""From an entry to the fields of its descriptor: pure, and every problem is reported.

A value that cannot be read is set aside alone, so that the default holds; a row of the table can
say that the entry is useless or dangerous without it, then the entry is set aside.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from archive.configuration.descriptors import (
    IanTrigger,
    InstanceAvailability,
    Problem,
    TransferRole,
    VerificationPolicy,
)
from archive.configuration.entries import Entry
from archive.configuration.rows import Attribute, Kind
from archive.errors import InvalidValueError
from archive.model.coercion import OnFailure, UpdatePolicy
from archive.model.commitment_terms import CommitmentTerms
from archive.model.conditions import Conditions
from archive.model.digests import DIGESTS
from archive.model.durations import parse_duration
from archive.model.identifiers import check_ae_title, check_uid
from archive.model.merge_attributes import parse_merge_attributes
from archive.model.schedule import Schedule
from archive.model.task import ExportEntity

_VARIABLE = re.compile(r"\$\{(?P<env>env\.)?(?P<name>[^}:]+)(?::(?P<default>[^}]*))?\}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+")
_ORDER = re.compile(r"\{[0-9A-Z]\}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_INTEGER = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Variables:
    """What `${env.NAME}` and `${name}` stand for."""

    environment: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)

    def expand(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Return `text` with its variables replaced, and the names of those that are unset.

        An unset variable without a default stays as it is written.
        """
        unset: list[str] = []

        def replacement(match: re.Match[str]) -> str:
            source = self.environment if match["env"] else self.properties
            value = source.get(match["name"], match["default"])
            if value is None:
                unset.append(match.group())
                return match.group()
            return value

        return _VARIABLE.sub(replacement, text), tuple(unset)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an entry says.

    Attributes
    ----------
    fields
        Values by field of the descriptor; fields without a value are left out.
    problems
        All that is wrong with the entry.
    usable
        False when the entry has to be set aside.
    """

    fields: dict[str, Any]
    problems: tuple[Problem, ...] = ()
    usable: bool = True


def read_entry(entry: Entry, rows: tuple[Attribute, ...], variables: Variables) -> Reading:
    """Read the attributes of an entry that `rows` name.

    Parameters
    ----------
    entry
        As the directory holds it.
    rows
        What to read.
    variables
        What variables in values stand for.

    Returns
    -------
    Reading
        Never raises for what an administrator wrote.
    """
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    usable = True
    for row in rows:
        texts, found = _clean(entry, row, variables)
        value, reasons = _convert(row, texts) if texts else (None, ())
        if row.required and not texts:
            reasons = ("is missing",)
        spoilt = bool(reasons and row.essential) or bool(row.required and not value)
        usable = usable and not spoilt
        aside = "the entry is set aside" if spoilt else "the value is set aside"
        problems.extend(found)
        problems.extend(Problem(entry.dn, row.ldap, f"{reason}; {aside}") for reason in reasons)
        if value is not None:
            fields[row.field] = value
    return Reading(fields, tuple(problems), usable)


def _clean(
    entry: Entry, row: Attribute, variables: Variables
) -> tuple[tuple[str, ...], list[Problem]]:
    """Return the values as text, without blanks at the ends and with variables replaced."""
    texts: list[str] = []
    problems: list[Problem] = []
    for value in entry.values(row.ldap):
        text = value.decode("utf-8", "replace")
        is_secret = row.kind is Kind.SECRET
        if text != text.strip() and not is_secret:
            reason = f"value {text!r} has blanks at its ends; they are ignored, delete them"
            problems.append(Problem(entry.dn, row.ldap, reason, "warning"))
        expandable = row.kind is not Kind.CONDITIONS
        bare = text if is_secret else text.strip()
        expanded, unset = variables.expand(bare) if expandable else (bare, ())
        for name in unset:
            reason = f"{name} is not set and has no default; it stays as it is written"
            problems.append(Problem(entry.dn, row.ldap, reason, "warning"))
        texts.append(expanded)
    if len(texts) > 1 and not row.many:
        shown = "one" if row.kind is Kind.SECRET else repr(texts[0])
        reason = f"has {len(texts)} values, only {shown} is used"
        problems.append(Problem(entry.dn, row.ldap, reason))
    return tuple(texts), problems


def _convert(row: Attribute, texts: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """Return the field's value, None when there is none, and what is wrong with the texts."""
    together = _TOGETHER.get(row.kind)
    if together is not None:
        try:
            return together(texts), ()
        except ValueError as error:
            return None, (str(error),)
    values, reasons = [], []
    for text in texts if row.many else texts[:1]:
        try:
            values.append(_ALONE[row.kind](text))
        except ValueError as error:
            reasons.append(f"{text[:80]!r}: {error}")
    if row.many:
        return tuple(values), tuple(reasons)
    return (values[0] if values else None), tuple(reasons)


def _text(text: str) -> str:
    if text:
        return text
    msg = "the value is empty"
    raise ValueError(msg)


def _integer(text: str) -> int:
    if _INTEGER.fullmatch(text):
        return int(text)
    msg = "not a whole number"
    raise ValueError(msg)


def _tag(text: str) -> int:
    if _TAG.fullmatch(text):
        return int(text, 16)
    msg = "not a tag of eight hexadecimal digits"
    raise ValueError(msg)


def _boolean(text: str) -> bool:
    if text.upper() in {"TRUE", "FALSE"}:
        return text.upper() == "TRUE"
    msg = "neither TRUE nor FALSE"
    raise ValueError(msg)


def _milliseconds(text: str) -> float:
    """Return seconds; 0 (and less) is infinite, which the descriptor says with None."""
    value = _integer(text)
    return value / 1000 if value > 0 else float("inf")


def _uri(text: str) -> str:
    if _URI.fullmatch(text):
        return text
    msg = "not a URI; write scheme:destination, such as dicom:STORESCP"
    raise ValueError(msg)


def _choice(*choices: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text.upper() in choices:
            return text.upper()
        msg = f"none of {', '.join(choices)}"
        raise ValueError(msg)

    return choose


def _entity(text: str) -> ExportEntity:
    for entity in ExportEntity:
        if entity.lower() == text.lower():
            return entity
    msg = "none of Study, Series, Instance"
    raise ValueError(msg)


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (KeyError, ValueError, OSError) as error:
        msg = "not the name of a time zone such as Europe/Vienna"
        raise ValueError(msg) from error


def _properties(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for text in sorted(texts):
        name, separator, value = text.partition("=")
        if not separator or not name:
            msg = f"{text[:80]!r} is not of the form name=value"
            raise InvalidValueError(msg)
        pairs[name] = value
    return tuple(pairs.items())


def _ordered(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_ORDER.sub("", text, count=1) for text in sorted(texts))


def _peer_limits(texts: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    limits = {}
    for text in sorted(texts):
        title, _, number = text.partition("=")
        limits[check_ae_title(title)] = _integer(number)
    return tuple(limits.items())


_ALONE: dict[Kind, Callable[[str], Any]] = {
    Kind.TEXT: _text,
    Kind.SECRET: _text,
    Kind.AE_TITLE: check_ae_title,
    Kind.UID: check_uid,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.DURATION: parse_duration,
    Kind.MILLISECONDS: _milliseconds,
    Kind.URI: _uri,
    Kind.AVAILABILITY: lambda text: InstanceAvailability(_choice(*InstanceAvailability)(text)),
    Kind.ENTITY: _entity,
    Kind.REOCCURRED: _choice("NEVER", "ALWAYS", "REPLACE"),
    Kind.OVERWRITE: _choice("NEVER", "SAME_SOURCE", "ALWAYS", "EVEN_WITH_EQUAL_DIGEST"),
    Kind.UPDATE_POLICY: _choice(*UpdatePolicy),
    Kind.ON_FAILURE: _choice(*OnFailure),
    Kind.TAG: _tag,
    Kind.SPANNING: _choice("REPLACE", "MERGE", "SUPPLEMENT"),
    Kind.VERIFICATION: lambda text: VerificationPolicy(_choice(*VerificationPolicy)(text)),
    Kind.COMMITMENT_TERMS: CommitmentTerms.parse,
    Kind.IAN_TRIGGER: lambda text: IanTrigger(_choice(*IanTrigger)(text)),
    Kind.ROLE: lambda text: TransferRole(_choice(*TransferRole)(text)),
    Kind.ZONE: _zone,
    Kind.DIGEST: _choice(*DIGESTS),
}
_TOGETHER: dict[Kind, Callable[[tuple[str, ...]], Any]] = {
    Kind.SCHEDULE: Schedule.parse,
    Kind.CONDITIONS: Conditions.parse,
    Kind.PROPERTIES: _properties,
    Kind.MERGE: parse_merge_attributes,
    Kind.ORDERED: _ordered,
    Kind.PEER_LIMITS: _peer_limits,
}
