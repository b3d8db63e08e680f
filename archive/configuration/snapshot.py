"""From all entries of a directory to one snapshot: pure."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from archive.configuration.attributes import TABLES
from archive.configuration.coercions import check_coercions, read_coercions, read_leading_sets
from archive.configuration.decode import Variables
from archive.configuration.descriptors import (
    ArchiveDevice,
    Exporter,
    NetworkAE,
    Queue,
    Snapshot,
    Storage,
)
from archive.configuration.entries import Entry
from archive.configuration.findings import Findings
from archive.configuration.network import DeviceReading, read_device, read_rules
from archive.configuration.references import check_references
from archive.configuration.schema import load_schema
from archive.configuration.tree import Tree
from archive.errors import ConfigurationError
from archive.model.retry import RetryPolicy

_Keyed = TypeVar("_Keyed", Exporter, Queue, Storage)
_RETRY_FIELDS = frozenset(RetryPolicy.__slots__)
_NOT_OF_ARCHIVE = frozenset({"role_selection_negotiation_lenient"})


def build_snapshot(
    entries: Iterable[Entry], device_name: str, variables: Variables, *, fingerprint: str
) -> Snapshot:
    """Decode a directory.

    Parameters
    ----------
    entries
        All entries, in any order.
    device_name
        Name of the device that this system is.
    variables
        What variables in values stand for.
    fingerprint
        Identifies the state of the directory.

    Raises
    ------
    ConfigurationError
        When the directory has no usable archive device of that name. Anything less is reported in
        the snapshot's problems.
    """
    findings = Findings(variables)
    tree = Tree(entries, load_schema().exact)
    devices = _read_devices(tree, findings)
    own = _own_device(devices, device_name)
    findings.problems.extend(own.tls.problems)
    device_exporters = {
        device.name: _keyed(_read_exporters(tree, device, findings), "exporter_id", findings)
        for device in devices
    }
    device = _archive_device(tree, own, device_exporters[own.name], findings)
    remote_aes = _all_aes(own, devices, findings)
    check_references(device, remote_aes, device_exporters, findings=findings)
    check_coercions(device, remote_aes, findings)
    problems = tuple(dict.fromkeys(findings.problems))
    return Snapshot(device, remote_aes, problems, fingerprint, device_exporters)


def _read_devices(tree: Tree, findings: Findings) -> list[DeviceReading]:
    readings = (read_device(tree, entry, findings) for entry in tree.devices())
    return [reading for reading in readings if reading is not None]


def _own_device(devices: list[DeviceReading], name: str) -> DeviceReading:
    own = next((one for one in devices if one.name.lower() == name.lower()), None)
    if own is None:
        names = ", ".join(sorted(one.name for one in devices)) or "none"
        msg = (
            f"the directory has no usable device {name!r} (devices: {names}); set DICOMQ_DEVICE or "
            "import the device"
        )
        raise ConfigurationError(msg)
    if not own.entry.has_class("dcmArchiveDevice"):
        msg = f"{own.entry.dn} lacks objectClass dcmArchiveDevice: the device is no archive, add it"
        raise ConfigurationError(msg)
    return own


def _archive_device(
    tree: Tree, own: DeviceReading, exporters: dict[str, Exporter], findings: Findings
) -> ArchiveDevice:
    fields = {name: value for name, value in own.fields.items() if name != "installed"}
    return ArchiveDevice(
        **fields,
        installed=own.installed,
        aes={ae.title: ae for ae in own.aes},
        exporters=exporters,
        queues=_keyed(_read_queues(tree, own, findings), "name", findings),
        storages=_keyed(_read_storages(tree, own, findings), "storage_id", findings),
        export_rules=read_rules(tree, own.entry, own.zone, findings),
        coercion_rules=read_coercions(tree, own.entry, findings),
        leading_sets=read_leading_sets(tree, own.entry, findings),
        dn=own.entry.dn,
    )


def _read_exporters(tree: Tree, own: DeviceReading, findings: Findings) -> Iterator[Exporter]:
    for fields, dn in _read_all(tree, own, "dcmExporter", findings=findings):
        scheme, _, destination = fields.pop("uri").partition(":")
        exporter = {**fields, "scheme": scheme.lower(), "destination": destination.strip()}
        if "schedule" in fields:
            exporter["schedule"] = fields["schedule"].in_zone(own.zone)
        yield Exporter(**exporter, dn=dn)


def _read_queues(tree: Tree, own: DeviceReading, findings: Findings) -> Iterator[Queue]:
    for fields, dn in _read_all(tree, own, "dcmQueue", findings=findings):
        retry = {name: fields.pop(name) for name in _RETRY_FIELDS if name in fields}
        if "schedule" in fields:
            fields["schedule"] = fields["schedule"].in_zone(own.zone)
        if fields.get("max_tasks_parallel", 1) < 1:
            reason = f"{fields.pop('max_tasks_parallel')} is below 1; 1 holds"
            findings.report(dn, "dcmMaxTasksParallel", reason)
        yield Queue(**fields, retry=RetryPolicy(**retry), dn=dn)


def _read_storages(tree: Tree, own: DeviceReading, findings: Findings) -> Iterator[Storage]:
    for fields, dn in _read_all(tree, own, "dcmStorage", findings=findings):
        yield Storage(**{"path_format": "", **fields}, dn=dn)


def _read_all(
    tree: Tree, own: DeviceReading, object_class: str, *, findings: Findings
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the fields and the DN of each usable entry of a class below the device."""
    for entry in tree.below(own.entry, object_class):
        reading = findings.read(entry, object_class)
        if reading.usable:
            yield dict(reading.fields), entry.dn


def _keyed(items: Iterator[_Keyed], key: str, findings: Findings) -> dict[str, _Keyed]:
    keyed: dict[str, _Keyed] = {}
    for item in items:
        name = str(getattr(item, key))
        if name in keyed:
            reason = f"{name} is also at {keyed[name].dn}, which is used; delete one"
            findings.report(item.dn, _ldap_name(type(item).__name__, key), reason)
        else:
            keyed[name] = item
    return keyed


def _ldap_name(descriptor: str, key: str) -> str:
    return next(row.ldap for row in TABLES[f"dcm{descriptor}"] if row.field == key)


def _all_aes(
    own: DeviceReading, devices: list[DeviceReading], findings: Findings
) -> dict[str, NetworkAE]:
    """Return the AEs of all devices by title; those of the own device go before."""
    aes: dict[str, NetworkAE] = {}
    for device in [own, *(one for one in devices if one is not own)]:
        for ae in device.aes:
            if ae.title in aes:
                reason = f"{ae.title} is also at {aes[ae.title].dn}, which is used; delete one"
                findings.report(ae.dn, "dicomAETitle", reason)
            else:
                aes[ae.title] = ae
    return aes
