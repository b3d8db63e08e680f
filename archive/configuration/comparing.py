"""Two states of a directory, or a directory and what a file would make of it, compared."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from archive.configuration.changes import EntryTable
from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.configuration.records import Record
from archive.configuration.refusals import Applied, RefusedChangeError
from archive.configuration.schema import load_schema

_PROPERTY = "dcmproperty"
SECRET_NAMES = ("password", "credential", "secret", "storepin", "storekeypin")
_HIDDEN = "(not shown)"
_BINARY = frozenset({"5", "8", "9", "10"})  # binary, certificates, lists and pairs of them
_FIRST = "objectclass"


@dataclass(frozen=True, slots=True)
class Difference:
    """An attribute of an entry that differs; empty values are absent."""

    dn: str
    attribute: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What change records would make of a directory."""

    entries: tuple[Entry, ...]
    applied: tuple[Applied, ...]


def preview(
    entries: Iterable[Entry], records: Sequence[Record], *, go_on: bool = True, strict: bool = True
) -> Preview:
    """Apply change records in memory.

    Parameters
    ----------
    go_on
        Whether a refused record is passed over; else it ends the work.
    strict
        Whether attributes and classes unknown to our schema are refused; an LDAP server may know
        more, and decides itself.
    """
    table = EntryTable(replace(load_schema(), lenient=not strict), entries)
    applied: list[Applied] = []
    for record in records:
        try:
            table.apply(record)
        except RefusedChangeError as error:
            applied.append(Applied(record, error))
            if not go_on:
                break
        else:
            applied.append(Applied(record))
    return Preview(table.entries(), tuple(applied))


def differences(before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Difference]:
    """Yield what differs, by entry and attribute; the order of values means nothing.

    Secrets are compared, but not shown.
    """
    schema = load_schema()
    old = {_key(entry): entry for entry in before}
    new = {_key(entry): entry for entry in after}
    for key in sorted(old.keys() | new.keys()):
        was, will = old.get(key), new.get(key)
        dn = (will or was or Entry("")).dn
        names = {name for one in (was, will) if one is not None for name in one.attributes}
        for name in sorted(names, key=_object_class_first):
            left, right = _values(was, name), _values(will, name)
            if {schema.fold(name, one) for one in left} != {
                schema.fold(name, one) for one in right
            }:
                spelt = schema.spelling.get(name, name)
                yield Difference(dn, spelt, _shown(name, left), _shown(name, right))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order of an export: always the same, each behind the one above it.

    Attributes and values are in order as well.
    """
    ordered = sorted(entries, key=_key)
    return [
        Entry(
            entry.dn,
            {
                name: tuple(sorted(entry.attributes[name]))
                for name in sorted(entry.attributes, key=_object_class_first)
            },
        )
        for entry in ordered
    ]


def _key(entry: Entry) -> tuple[str, ...]:
    """Return the parts of the name from the top, as they are compared."""
    exact = load_schema().exact
    return tuple(Name((part,)).key(exact) for part in reversed(Name.parse(entry.dn).parts))


def _object_class_first(name: str) -> tuple[bool, str]:
    return name != _FIRST, name


def _values(entry: Entry | None, name: str) -> tuple[bytes, ...]:
    return () if entry is None else entry.values(name)


def _shown(name: str, values: tuple[bytes, ...]) -> tuple[str, ...]:
    if any(secret in name for secret in SECRET_NAMES):
        return tuple(_HIDDEN for _ in values)
    attribute = load_schema().attribute(name)
    if attribute is not None and attribute.syntax in _BINARY:
        digests = ((len(one), hashlib.sha256(one).hexdigest()[:16]) for one in values)
        return tuple(sorted(f"({size} bytes, SHA-256 {digest}…)" for size, digest in digests))
    texts = sorted(value.decode("utf-8", "replace") for value in values)
    return tuple(map(_without_secret, texts)) if name == _PROPERTY else tuple(texts)


def _without_secret(text: str) -> str:
    """Return the value of a dcmProperty without what must not be shown."""
    name, separator, _ = text.partition("=")
    is_secret = any(secret in name.lower() for secret in SECRET_NAMES)
    return f"{name}{separator}{_HIDDEN}" if separator and is_secret else text
