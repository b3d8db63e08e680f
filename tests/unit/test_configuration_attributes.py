"""The table of attributes, the schema and the descriptors belong together."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from archive.configuration import descriptors
from archive.configuration.attributes import TABLES
from archive.configuration.defaults import default_folder
from archive.configuration.rows import Attribute
from archive.configuration.schema import load_schema
from archive.model.coercion import CoercionRule

ROWS = [(name, row) for name, rows in TABLES.items() for row in rows]
AUXILIARY = {
    "dicomDevice": ["dcmDevice"],
    "dicomNetworkAE": ["dcmNetworkAE"],
    "dicomNetworkConnection": ["dcmNetworkConnection"],
    "dicomTransferCapability": ["dcmTransferCapability"],
}
DESCRIPTORS = {
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
    "dcmAttributeSet": descriptors.Queue,
}
# Fields that are made from other fields.
MADE = {"uri", "references", "max_retries", "delay_s", "max_delay_s"}
MADE |= {"multiplier_percent", "retry_on_warning"}
MADE |= {"dimse", "role", "policy", "merge_attributes", "leading_c_find_scp", "nullify_tags"}
MADE |= {"trim", "as_received", "sufficient", "on_failure", "set_type", "set_id", "tags"}
# Classes whose schema lacks an attribute that the table reads where a directory has it.
BEYOND_SCHEMA = {("dcmStorage", "dicomInstalled")}
# Attributes of these classes that no release is going to perform, or that are secrets.
LEFT_OUT = {
    "dcmExporter": {"dcmExportPriority"},
    "dcmExportRule": set[str](),
    "dcmQueue": {"dcmRetryInProcessOnStartup", "dcmJndiName", "dcmMaxQueueSize"},
}


def script(name: str) -> ModuleType:
    """Load one of the scripts beside the default directory."""
    path = default_folder().parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{n}-{r.ldap}" for n, r in ROWS])
def test_every_row_is_in_the_schema_and_the_descriptor(name: str, row: Attribute) -> None:
    schema = load_schema()
    classes = [schema.classes[one.lower()] for one in [name, *AUXILIARY.get(name, [])]]
    allowed = {one for each in classes for one in (*each.must, *each.may)}
    assert row.ldap in allowed or (name, row.ldap) in BEYOND_SCHEMA
    attribute = schema.attribute(row.ldap)
    assert attribute is not None
    assert not (row.many and attribute.single)
    fields = {field.name for field in dataclasses.fields(DESCRIPTORS[name])}
    assert row.field in fields | MADE


@pytest.mark.parametrize("name", LEFT_OUT)
def test_exporters_rules_and_queues_are_read_completely(name: str) -> None:
    one = load_schema().classes[name.lower()]
    read = {row.ldap for row in TABLES[name]}
    assert {*one.must, *one.may} - read == LEFT_OUT[name]


def test_required_rows_are_the_ones_the_schema_demands() -> None:
    for name in ("dcmExporter", "dcmExportRule", "dcmQueue", "dcmStorage"):
        required = {row.ldap for row in TABLES[name] if row.required}
        assert required == set(load_schema().classes[name.lower()].must)


@pytest.mark.parametrize("name", ["make_default", "make_schema", "make_reference"])
def test_generated_files_are_up_to_date(name: str) -> None:
    module = script(name)
    folder: Path = module.FOLDER
    for file, text in module.files().items():
        assert (folder / file).read_text(encoding="utf-8") == text, f"run deploy/ldap/{name}.py"


def test_object_identifiers_and_names_are_unique() -> None:
    schema = load_schema()
    oids = [one.oid for one in schema.attributes.values()]
    oids += [one.oid for one in schema.classes.values()]
    assert len(set(oids)) == len(oids)
