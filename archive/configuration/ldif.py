"""LDIF: content and change records (RFC 2849).

`parse_ldif` reads a whole file before anything is applied and names every line that is wrong.
It is stricter than the command-line tools where those do nothing without saying so, and more
lenient in two points, both met in documentation: text copied from an indented block of a wiki page
is read as if it were not indented, and a hyphen may close a record that adds an entry.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.configuration.records import (
    AddRecord,
    Change,
    DeleteRecord,
    Modification,
    ModifyRecord,
    Record,
    RenameRecord,
)
from archive.errors import InvalidValueError

_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*(?:;[A-Za-z0-9-]+)*|[0-9]+(?:\.[0-9]+)+")
_SAFE = re.compile(rb"(?![ \t:<])[\x01-\x09\x0b\x0c\x0e-\x7f]*(?<! )")
_FOLD_AT = 78


class LdifSyntaxError(InvalidValueError):
    """The text is not LDIF; the message names each wrong line."""


@dataclass(frozen=True, slots=True)
class LdifFile:
    """The records of a file, and notes on what was tolerated."""

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """A logical line: folded lines are joined, comments left out."""

    number: int
    text: str

    @property
    def is_end(self) -> bool:
        """Whether the line ends a modification."""
        return self.text.rstrip() == "-"

    def fail(self, reason: str) -> NoReturn:
        """Raise the error that this line is wrong."""
        msg = f"line {self.number}: {reason}"
        raise LdifSyntaxError(msg)

    def split(self) -> tuple[str, bytes]:
        """Return the attribute name and the value of the line."""
        name, colon, rest = self.text.partition(":")
        if not colon or not _ATTRIBUTE.fullmatch(name.rstrip()):
            self.fail(f"{self.text[:60]!r} is not of the form attribute: value")
        if rest.startswith("<"):
            self.fail(f"{name}:< takes the value from a URL, which is not done; give it as base64")
        if not rest.startswith(":"):
            return name.rstrip(), rest.lstrip(" \t").encode()
        try:
            return name.rstrip(), base64.b64decode(rest[1:].strip(), validate=True)
        except ValueError:
            self.fail(f"the value of {name}:: is not base64")


_NEEDLESS_END = (
    "closes no modification, the record adds an entry; ignored (ldapadd would refuse it)"
)


def parse_ldif(data: bytes) -> LdifFile:
    """Read the records of an LDIF file.

    Parameters
    ----------
    data
        The file; UTF-8, with LF or CRLF line ends.

    Raises
    ------
    LdifSyntaxError
        When it is not LDIF. Every wrong record is named with its line and what to do.
    """
    text, notes = _dedent(_decode(data))
    records: list[Record] = []
    errors: list[str] = []
    for block in _blocks(text):
        try:
            parsed = tuple(_parse_record(block))
        except LdifSyntaxError as error:
            errors.append(str(error))
            continue
        records.extend(parsed)
        if block[-1].is_end and any(isinstance(record, AddRecord) for record in parsed):
            notes += (f"line {block[-1].number}: '-' {_NEEDLESS_END}",)
    if errors:
        raise LdifSyntaxError("; ".join(errors))
    return LdifFile(tuple(records), notes)


def write_ldif(entries: Iterable[Entry], spelling: dict[str, str] | None = None) -> bytes:
    """Return entries as LDIF content records.

    Parameters
    ----------
    entries
        In the order in which they are written.
    spelling
        How attribute names given in lower case are spelt.
    """
    names = spelling or {}
    lines = [b"version: 1\n"]
    for entry in entries:
        lines.append(b"\n" + _write_line("dn", entry.dn.encode()))
        for name, values in entry.attributes.items():
            lines.extend(_write_line(names.get(name, name), value) for value in values)
    return b"".join(lines)


def _write_line(name: str, value: bytes) -> bytes:
    if _SAFE.fullmatch(value):
        line = name.encode() + b": " + value
    else:
        line = name.encode() + b":: " + base64.b64encode(value)
    pieces = [line[:_FOLD_AT]]
    width = _FOLD_AT - 1
    pieces.extend(line[at : at + width] for at in range(_FOLD_AT, len(line), width))
    return b"\n ".join(pieces) + b"\n"


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        msg = f"line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise LdifSyntaxError(msg) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _dedent(text: str) -> tuple[str, tuple[str, ...]]:
    """Take off the indentation that every line has, as in text copied from a wiki page."""
    lines = [line.expandtabs() if line[:1] in {" ", "\t"} else line for line in text.split("\n")]
    depths = [len(line) - len(line.lstrip(" ")) for line in lines if line.strip()]
    depth = min(depths, default=0)
    if depth == 0:
        return text, ()
    note = f"every line is indented by {depth} blanks; read as if it were not (ldapadd would not)"
    return "\n".join(line[depth:] if line.strip() else "" for line in lines), (note,)


def _blocks(text: str) -> Iterator[list[_Line]]:
    """Yield the logical lines of each record."""
    block: list[_Line] = []
    comment = False
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if not line.strip(" \t"):
            if block:
                yield block
            block, comment = [], False
        elif line[0] == " ":
            if not comment:
                _continue(block, line, number)
        else:
            comment = line.startswith("#")
            if line.lower().startswith("dn:") and block and block[-1].is_end:
                yield block
                block = []
            if not comment:
                block.append(_Line(number, line))


def _continue(block: list[_Line], line: str, number: int) -> None:
    if not block:
        msg = f"line {number}: begins with a blank, but there is no line that it could continue"
        raise LdifSyntaxError(msg)
    block[-1] = _Line(block[-1].number, block[-1].text + line[1:])


def _parse_record(lines: list[_Line]) -> list[Record]:
    """Return the record that a block holds; none when it is only the version line."""
    if lines[0].text.lower().startswith("version:"):
        if lines[0].text.partition(":")[2].strip() != "1":
            lines[0].fail("only version 1 of LDIF exists")
        lines = lines[1:]
    if not lines:
        return []
    name, value = lines[0].split()
    if name.lower() != "dn":
        lines[0].fail(f"a record begins with dn:, not with {name}: (is there a blank line above?)")
    return [_parse_body(_check_dn(lines[0], value), lines)]


def _check_dn(line: _Line, value: bytes) -> str:
    try:
        dn = value.decode().strip()
        Name.parse(dn)
    except ValueError as error:
        line.fail(str(error))
    return dn


def _parse_body(dn: str, lines: list[_Line]) -> Record:
    kind, first = "add", 1
    if len(lines) > 1 and not lines[1].is_end:
        name, value = lines[1].split()
        if name.lower() == "changetype":
            kind, first = value.decode("utf-8", "replace").strip().lower(), 2
        elif name.lower() == "control":
            lines[1].fail("controls are not supported; delete the line")
    body = lines[first:]
    parse = _BODIES.get(kind)
    if parse is None:
        lines[1].fail(f"changetype {kind[:20]!r} is none of add, modify, delete, modrdn")
    return parse(dn, lines[0], body)


def _parse_modify(dn: str, first: _Line, body: list[_Line]) -> ModifyRecord:
    return ModifyRecord(dn, first.number, tuple(_parse_modifications(body)))


def _parse_delete(dn: str, first: _Line, body: list[_Line]) -> DeleteRecord:
    for line in body[:1]:
        line.fail("nothing may follow changetype: delete (is a blank line missing?)")
    return DeleteRecord(dn, first.number)


def _parse_add(dn: str, first: _Line, body: list[_Line]) -> AddRecord:
    pairs: list[tuple[str, bytes]] = []
    for line in body[:-1] if body and body[-1].is_end else body:
        if line.is_end:
            line.fail(
                "'-' belongs to changetype: modify; this record adds an entry: delete the line"
            )
        name, value = line.split()
        if name.lower() in {"dn", "changetype"}:
            line.fail(f"{name}: begins another record; put a blank line between the records")
        if not pairs and name.lower() in set(Change):
            line.fail(f"{name}: is a modification; put the line changetype: modify below dn:")
        pairs.append((name, value))
    if not pairs:
        first.fail("the record has a dn: but no attributes")
    return AddRecord(dn, first.number, tuple(pairs))


def _parse_modifications(body: list[_Line]) -> Iterator[Modification]:
    rest = list(body)
    while rest:
        head = rest.pop(0)
        change, attribute = _parse_head(head)
        values = []
        while rest and not rest[0].is_end:
            values.append(_parse_value(rest.pop(0), attribute))
        if rest:
            rest.pop(0)
        yield Modification(change, attribute, tuple(values))


def _parse_head(line: _Line) -> tuple[Change, str]:
    if line.is_end:
        line.fail("'-' without a modification above it")
    name, value = line.split()
    attribute = value.decode("utf-8", "replace").strip()
    if name.lower() not in set(Change):
        line.fail(f"expected add:, delete: or replace: with an attribute name, not {name}:")
    if not _ATTRIBUTE.fullmatch(attribute):
        line.fail(f"{attribute[:60]!r} is not the name of an attribute")
    return Change(name.lower()), attribute


def _parse_value(line: _Line, attribute: str) -> bytes:
    name, value = line.split()
    if name.lower() in set(Change) and name.lower() != attribute.lower():
        line.fail(f"the line '-' is missing between the modification of {attribute} and {name}:")
    if name.lower() == "dn":
        line.fail("dn: begins another record; put a blank line between the records")
    if name.lower() != attribute.lower():
        line.fail(f"this modification is of {attribute}, not of {name}")
    return value


def _parse_rename(dn: str, first: _Line, body: list[_Line]) -> RenameRecord:
    given: dict[str, str] = {}
    for line in body:
        name, value = line.split()
        if name.lower() not in {"newrdn", "deleteoldrdn", "newsuperior"}:
            line.fail(f"a rename has newrdn, deleteoldrdn and newsuperior, not {name}")
        given[name.lower()] = value.decode("utf-8", "replace").strip()
    if "newrdn" not in given or given.get("deleteoldrdn") not in {"0", "1"}:
        first.fail("a rename needs the lines newrdn: and deleteoldrdn: 0 or 1")
    deletes = given["deleteoldrdn"] == "1"
    return RenameRecord(dn, first.number, given["newrdn"], deletes, given.get("newsuperior"))


_BODIES: dict[str, Callable[[str, _Line, list[_Line]], Record]] = {
    "add": _parse_add,
    "modify": _parse_modify,
    "delete": _parse_delete,
    "modrdn": _parse_rename,
    "moddn": _parse_rename,
}
