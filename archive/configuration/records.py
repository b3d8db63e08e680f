"""Change records: what LDIF files ask a directory to do (RFC 2849, RFC 4511)."""

from dataclasses import dataclass
from enum import StrEnum


class Change(StrEnum):
    """What a modification does with an attribute."""

    ADD = "add"
    DELETE = "delete"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Modification:
    """One part of a modify record."""

    change: Change
    attribute: str
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AddRecord:
    """Adds an entry; also what a content record (without changetype) means."""

    dn: str
    line: int
    attributes: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class ModifyRecord:
    """Changes attributes of an entry, all or none of them."""

    dn: str
    line: int
    modifications: tuple[Modification, ...]


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Deletes an entry that has no entries below it."""

    dn: str
    line: int


@dataclass(frozen=True, slots=True)
class RenameRecord:
    """Renames or moves an entry with everything below it (changetype modrdn or moddn)."""

    dn: str
    line: int
    new_rdn: str
    delete_old_rdn: bool
    new_superior: str | None


Record = AddRecord | ModifyRecord | DeleteRecord | RenameRecord
