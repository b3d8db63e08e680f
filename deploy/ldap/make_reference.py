"""Write the attribute reference in docs/configuration.md from the attribute table.

Run it as `python deploy/ldap/make_reference.py`; a test compares the page with what it writes.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from archive.configuration import descriptors
from archive.configuration.attributes import TABLES
from archive.configuration.rows import Attribute, Kind
from archive.configuration.schema import load_schema
from archive.model.coercion import CoercionRule
from archive.model.durations import format_duration
from archive.model.retry import RetryPolicy

FOLDER = Path(__file__).resolve().parents[2] / "docs"
PAGE = "configuration.md"
MARKER = "<!-- made by deploy/ldap/make_reference.py from the attribute table -->\n"
CLASSES = {
    "dicomDevice": descriptors.ArchiveDevice,
    "dcmArchiveDevice": descriptors.ArchiveDevice,
    "dicomNetworkConnection": descriptors.Connection,
    "dicomNetworkAE": descriptors.NetworkAE,
    "dcmArchiveNetworkAE": descriptors.NetworkAE,
    "dicomTransferCapability": descriptors.TransferCapability,
    "dcmExporter": descriptors.Exporter,
    "dcmExportRule": descriptors.ExportRule,
    "dcmQueue": descriptors.Queue,
    "dcmStorage": descriptors.Storage,
    "dcmArchiveAttributeCoercion": CoercionRule,
    "dcmArchiveAttributeCoercion2": CoercionRule,
    "dcmAttributeSet": CoercionRule,
}


def default_of(object_class: str, row: Attribute) -> str:
    """Return what holds when the attribute is absent."""
    if row.required:
        return "required"
    if object_class == "dcmArchiveNetworkAE" and row in TABLES["dcmArchiveDevice"]:
        return "that of the device"
    fields = {one.name: one for one in dataclasses.fields(CLASSES[object_class])}
    fields |= {one.name: one for one in dataclasses.fields(RetryPolicy)}
    one = fields.get(row.field)
    return "" if one is None else spelt(row, one.default)


def spelt(row: Attribute, value: object) -> str:
    """Return a default as the directory would spell it."""
    if value is None or value == () or value is dataclasses.MISSING:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and row.kind is Kind.MILLISECONDS:
        return str(round(value * 1000))
    if isinstance(value, float):
        return format_duration(value)
    return str(value)


def section(object_class: str) -> Iterator[str]:
    """Yield the lines of the reference of one class."""
    yield f"\n### {object_class}\n\n"
    yield "| attribute | values | when absent | meaning |\n|---|---|---|---|\n"
    spelling = load_schema().spelling
    for row in sorted(TABLES[object_class], key=lambda one: one.ldap.lower()):
        name = spelling.get(row.ldap.lower(), row.ldap)
        many = "any number: " if row.many else ""
        default = default_of(object_class, row)
        yield f"| {name} | {many}{row.kind} | {default} | {row.meaning} |\n"


def files() -> dict[str, str]:
    """Return the page with its reference renewed: name to text."""
    text = (FOLDER / PAGE).read_text(encoding="utf-8")
    written, _, _ = text.partition(MARKER)
    reference = (line for object_class in TABLES for line in section(object_class))
    return {PAGE: written + MARKER + "".join(reference)}


def main() -> None:
    """Write the page."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
