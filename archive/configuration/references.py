"""What entries say of one another: names that lead nowhere are reported when they are loaded.

The entries stay in use: the task that meets such a name fails and says why.
"""

from collections.abc import Iterator

from archive.configuration.descriptors import (
    ArchiveDevice,
    Exporter,
    ExportRule,
    IanTrigger,
    NetworkAE,
    Problem,
)
from archive.configuration.findings import Findings
from archive.errors import InvalidValueError
from archive.model.commitment import CommitmentPolicy

PERFORMED_SCHEMES = ("dicom", "noop")


def check_references(
    device: ArchiveDevice,
    remote_aes: dict[str, NetworkAE],
    device_exporters: dict[str, dict[str, Exporter]],
    *,
    findings: Findings,
) -> None:
    """Report names that lead nowhere, exporters that cannot work and rules without exporter."""
    for exporter in device.exporters.values():
        findings.problems.extend(_check_exporter(exporter, device, remote_aes))
    findings.problems.extend(_check_queues(device))
    for rule in _rules(device):
        findings.problems.extend(_check_rule(rule, device.name, device_exporters))
    for ae in device.aes.values():
        findings.problems.extend(_check_storages(ae, device))
        findings.problems.extend(_check_commitment(ae, device))
        findings.problems.extend(_check_notifications(ae, remote_aes))


def _rules(device: ArchiveDevice) -> Iterator[ExportRule]:
    yield from device.export_rules
    for ae in device.aes.values():
        yield from ae.export_rules


def _check_exporter(
    exporter: Exporter, device: ArchiveDevice, remote_aes: dict[str, NetworkAE]
) -> Iterator[Problem]:
    if exporter.scheme not in PERFORMED_SCHEMES:
        schemes = " and ".join(f"{scheme}:" for scheme in PERFORMED_SCHEMES)
        reason = f"scheme {exporter.scheme}: is not performed, only {schemes} are; its tasks fail"
        yield Problem(exporter.dn, "dcmURI", reason, "warning")
    try:
        CommitmentPolicy.parse(exporter.properties)
    except InvalidValueError as error:
        yield Problem(exporter.dn, "dcmProperty", f"{error}; the default holds", "warning")
    if reason := _local_aet_reason(exporter, device):
        yield Problem(exporter.dn, "dicomAETitle", reason, "warning")
    remote = [("dcmIanDestination", aet) for aet in exporter.ian_destinations]
    if exporter.storage_commitment_scp:
        remote.append(("dcmStgCmtSCP", exporter.storage_commitment_scp))
    if exporter.scheme == "dicom":
        remote.append(("dcmURI", exporter.destination))
    for attribute, aet in remote:
        if reason := _remote_aet_reason(aet, remote_aes):
            yield Problem(exporter.dn, attribute, reason, "warning")


def _local_aet_reason(exporter: Exporter, device: ArchiveDevice) -> str:
    if exporter.aet is None:
        return "is missing; the AE that received the object exports"
    ae = device.aes.get(exporter.aet)
    if ae is None:
        return f"{exporter.aet} is no AE of device {device.name}; its tasks fail until it is"
    if not ae.installed:
        return f"{exporter.aet} is not installed (dicomInstalled); its tasks fail until it is"
    return ""


def _remote_aet_reason(aet: str, remote_aes: dict[str, NetworkAE]) -> str:
    ae = remote_aes.get(aet)
    if ae is None:
        return f"there is no AE {aet} in the directory; tasks for it fail until there is one"
    if not ae.installed:
        return f"{aet} is not installed (dicomInstalled); tasks for it fail until it is"
    if not any(one.installed and one.port for one in ae.connections):
        return f"{aet} has no installed connection with a port; tasks for it fail until it has"
    return ""


def _check_queues(device: ArchiveDevice) -> Iterator[Problem]:
    """Report once each queue that exporters name and that has no entry."""
    missing: dict[str, str] = {}
    for exporter in device.exporters.values():
        if exporter.queue_name not in device.queues:
            missing.setdefault(exporter.queue_name, exporter.dn)
    for name, dn in missing.items():
        reason = (
            f"there is no dcmQueue entry {name}; a queue with 10 retries (PT30S, 200 %, at most "
            "PT10M) and 4 parallel tasks is used"
        )
        yield Problem(dn, "dcmQueueName", reason, "notice")


def _check_rule(
    rule: ExportRule, own: str, device_exporters: dict[str, dict[str, Exporter]]
) -> Iterator[Problem]:
    exporters = device_exporters.get(rule.device_name or own)
    if exporters is None:
        reason = f"there is no device {rule.device_name} in the directory; the rule does nothing"
        yield Problem(rule.dn, "dicomDeviceName", reason, "warning")
        return
    for exporter_id in rule.exporter_ids:
        if exporter_id not in exporters:
            reason = (
                f"device {rule.device_name or own} has no exporter {exporter_id}; objects that "
                "match are not exported to it"
            )
            yield Problem(rule.dn, "dcmExporterID", reason, "warning")


def _check_storages(ae: NetworkAE, device: ArchiveDevice) -> Iterator[Problem]:
    for storage_id in ae.object_storage_ids:
        if storage_id not in device.storages:
            reason = f"device {device.name} has no storage {storage_id}"
            yield Problem(ae.dn, "dcmObjectStorageID", reason, "warning")


def _check_commitment(ae: NetworkAE, device: ArchiveDevice) -> Iterator[Problem]:
    """Report exporters of dcmStgCmtPolicy that can never say that anything is committed."""
    for exporter_id in ae.commitment_terms.committed_by:
        exporter = device.exporters.get(exporter_id)
        if exporter is None:
            reason = f"device {device.name} has no exporter {exporter_id}; nothing is committed"
            yield Problem(ae.dn, "dcmStgCmtPolicy", reason, "warning")
        elif exporter.storage_commitment_scp is None:
            reason = f"exporter {exporter_id} has no dcmStgCmtSCP; nothing is committed"
            yield Problem(ae.dn, "dcmStgCmtPolicy", reason, "warning")


def _check_notifications(ae: NetworkAE, remote_aes: dict[str, NetworkAE]) -> Iterator[Problem]:
    """Report triggers that lead to nothing."""
    if not ae.ian_triggers:
        return
    if not ae.ian_destinations:
        reason = "dcmIanTrigger does nothing without dcmIanDestination"
        yield Problem(ae.dn, "dcmIanDestination", reason, "warning")
    if IanTrigger.STUDY_RECEIVED in ae.ian_triggers and ae.ian_delay_s is None:
        reason = "STUDY_RECEIVED does nothing without dcmIanDelay"
        yield Problem(ae.dn, "dcmIanDelay", reason, "warning")
    for aet in ae.ian_destinations:
        if reason := _remote_aet_reason(aet, remote_aes):
            yield Problem(ae.dn, "dcmIanDestination", reason, "warning")
