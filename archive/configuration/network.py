"""Devices as any peer sees them: connections, AEs and their transfer capabilities (PS3.15 §H.1)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from archive.configuration.attributes_network import ARCHIVE, LENIENT, LIMITS
from archive.configuration.coercions import read_coercions
from archive.configuration.descriptors import (
    Connection,
    ExportRule,
    NetworkAE,
    TransferCapability,
)
from archive.configuration.entries import Entry
from archive.configuration.findings import Findings
from archive.configuration.names import same_name
from archive.configuration.tls import DeviceTls
from archive.configuration.tree import Tree

_INHERITED = frozenset(row.field for row in (*ARCHIVE, LENIENT, *LIMITS))
_INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A device with what every class of device has.

    Attributes
    ----------
    fields
        What the entry of the device says, by field of the descriptor.
    """

    entry: Entry
    name: str
    fields: dict[str, Any]
    installed: bool
    zone: ZoneInfo | None
    aes: tuple[NetworkAE, ...]
    tls: DeviceTls


def read_device(tree: Tree, entry: Entry, findings: Findings) -> DeviceReading | None:
    """Read a device with its connections and AEs; None when the device is set aside."""
    reading = findings.read(entry, "dicomDevice", "dcmArchiveDevice")
    if not reading.usable:
        return None
    fields = dict(reading.fields)
    zone = ZoneInfo(fields["time_zone"]) if "time_zone" in fields else None
    device = DeviceReading(
        entry,
        fields["name"],
        fields,
        fields.get("installed", True),
        zone,
        (),
        DeviceTls.read(entry.dn, fields, findings.variables.environment, tree.find),
    )
    connections = _read_connections(tree, device, findings)
    aes = [
        ae
        for one in tree.below(entry, "dicomNetworkAE")
        if (ae := _read_ae(tree, one, device=device, connections=connections, findings=findings))
    ]
    return replace(device, aes=_shared(_distinct(aes, findings), findings))


def read_rules(
    tree: Tree, entry: Entry, zone: ZoneInfo | None, findings: Findings
) -> tuple[ExportRule, ...]:
    """Read the export rules one level below a device or an AE."""
    rules = []
    for one in tree.below(entry, "dcmExportRule"):
        reading = findings.read(one, "dcmExportRule")
        if reading.usable:
            rule = ExportRule(**reading.fields, dn=one.dn)
            rules.append(replace(rule, schedule=rule.schedule.in_zone(zone)))
    return tuple(rules)


def _read_connections(
    tree: Tree, device: DeviceReading, findings: Findings
) -> dict[str, Connection]:
    """Return the usable connections of a device by the DN of their entry."""
    connections = {}
    for one in tree.below(device.entry, "dicomNetworkConnection"):
        reading = findings.read(one, "dicomNetworkConnection")
        if not reading.usable:
            continue
        fields: dict[str, Any] = {
            name: None if value == _INFINITE else value for name, value in reading.fields.items()
        }
        fields.setdefault("name", fields["hostname"])
        fields["installed"] = device.installed and fields.get("installed", True)
        fields["port"] = _port(fields.get("port"), one, findings)
        connection = Connection(**fields)
        connections[one.dn] = replace(connection, tls=device.tls.terms(one.dn, connection))
    return connections


def _port(port: int | None, entry: Entry, findings: Findings) -> int | None:
    if port is None or 0 < port < 65536:  # noqa: PLR2004 - TCP
        return port
    if port > 0:
        reason = f"{port} is not a TCP port; the connection is only outgoing"
        findings.report(entry.dn, "dicomPort", reason)
    return None


def _read_ae(
    tree: Tree,
    entry: Entry,
    *,
    device: DeviceReading,
    connections: dict[str, Connection],
    findings: Findings,
) -> NetworkAE | None:
    reading = findings.read(entry, "dicomNetworkAE", "dcmArchiveNetworkAE")
    if not reading.usable:
        return None
    fields = {name: device.fields[name] for name in _INHERITED if name in device.fields}
    fields |= {name: value for name, value in reading.fields.items() if value != ()}
    references = fields.pop("references", ())
    used = tuple(
        connection
        for reference in references
        if (connection := _find_connection(entry, reference, connections, findings=findings))
    )
    if not used:
        reason = "names no usable connection of its device; the AE is set aside"
        findings.report(entry.dn, "dicomNetworkConnectionReference", reason)
        return None
    fields["installed"] = device.installed and fields.get("installed", True)
    return NetworkAE(
        **fields,
        device_name=device.name,
        connections=used,
        transfer_capabilities=_read_capabilities(tree, entry, findings),
        export_rules=read_rules(tree, entry, device.zone, findings),
        coercion_rules=read_coercions(tree, entry, findings),
        dn=entry.dn,
    )


def _find_connection(
    entry: Entry, reference: str, connections: dict[str, Connection], *, findings: Findings
) -> Connection | None:
    for dn, connection in connections.items():
        if same_name(dn, reference):
            return connection
    reason = f"{reference} is no usable connection of the same device; it is ignored"
    findings.report(entry.dn, "dicomNetworkConnectionReference", reason)
    return None


def _read_capabilities(
    tree: Tree, entry: Entry, findings: Findings
) -> tuple[TransferCapability, ...]:
    readings = (
        findings.read(one, "dicomTransferCapability")
        for one in tree.below(entry, "dicomTransferCapability")
    )
    capabilities = (
        TransferCapability(**{"transfer_syntaxes": (), **reading.fields})
        for reading in readings
        if reading.usable
    )
    return tuple(sorted(capabilities, key=lambda one: (one.sop_class, one.role)))


def _distinct(aes: Iterable[NetworkAE], findings: Findings) -> list[NetworkAE]:
    """Return the AEs with one of each title."""
    distinct: dict[str, NetworkAE] = {}
    for ae in aes:
        if ae.title in distinct:
            reason = f"{ae.title} is also at {distinct[ae.title].dn}, which is used; delete one"
            findings.report(ae.dn, "dicomAETitle", reason)
        else:
            distinct[ae.title] = ae
    return list(distinct.values())


def _shared(aes: list[NetworkAE], findings: Findings) -> tuple[NetworkAE, ...]:
    """Give AEs that use the transfer capabilities of a sibling those capabilities."""
    by_title = {ae.title: ae for ae in aes}
    shared = []
    for ae in aes:
        source = by_title.get(ae.shares_capabilities_of or "")
        if ae.shares_capabilities_of and source is None:
            reason = f"the device has no AE {ae.shares_capabilities_of}; its own capabilities hold"
            findings.report(ae.dn, "dcmShareTransferCapabilitiesFromAETitle", reason)
        shared.append(
            replace(ae, transfer_capabilities=source.transfer_capabilities) if source else ae
        )
    return tuple(shared)
