"""From entries to a snapshot, and every way an entry can be wrong."""

from collections.abc import Iterable

import pytest

from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import InstanceAvailability, Problem, Snapshot
from archive.configuration.entries import Entry
from archive.configuration.ldif import parse_ldif
from archive.configuration.records import AddRecord
from archive.configuration.snapshot import build_snapshot
from archive.errors import ConfigurationError
from archive.model.task import ExportEntity
from tests.directory_cases import DEVICE, DEVICES, EXPORT, WIKI_EXPORTER

AE = f"dicomAETitle=DCM4CHEE,{DEVICE}"
DEFAULT = [one for one in default_entries() if not one.has_class("dicomTransferCapability")]
VARIABLES = Variables({"PORT": "1104", "HOME": "/home/x"}, {"jboss.server.data.url": "file:/srv"})


def entries(text: str) -> list[Entry]:
    parsed = parse_ldif(text.encode()).records
    return [Entry.of(one.dn, one.attributes) for one in parsed if isinstance(one, AddRecord)]


def changed(dn: str, **values: str | bytes | list[str] | None) -> list[Entry]:
    """Return the default directory with attributes of one entry replaced."""
    result = []
    for entry in DEFAULT:
        if entry.dn != dn:
            result.append(entry)
            continue
        attributes = dict(entry.attributes)
        for name, value in values.items():
            texts = [value] if isinstance(value, str | bytes) else value or []
            encoded = tuple(one if isinstance(one, bytes) else one.encode() for one in texts)
            attributes[name.lower()] = encoded
        result.append(Entry(entry.dn, {k: v for k, v in attributes.items() if v}))
    assert any(entry.dn == dn for entry in DEFAULT)
    return result


def decoded(all_entries: Iterable[Entry]) -> Snapshot:
    return build_snapshot(all_entries, "dcm4chee-arc", VARIABLES, fingerprint="f")


def with_text(text: str) -> Snapshot:
    return decoded([*DEFAULT, *entries(text)])


def problem_of(snapshot: Snapshot, attribute: str) -> Problem:
    found = [one for one in snapshot.problems if one.attribute == attribute]
    assert len(found) == 1, snapshot.problems
    return found[0]


EXPORTER = f"""dn: dcmExporterID=X,{DEVICE}
objectClass: dcmExporter
dcmExporterID: X
dcmURI: dicom:STORESCP
dcmQueueName: Export
dicomAETitle: DCM4CHEE
"""
RULE = f"""dn: cn=R,{DEVICE}
objectClass: dcmExportRule
cn: R
dcmEntity: Series
dcmExporterID: X
"""


def test_the_default_has_no_problem() -> None:
    snapshot = decoded(default_entries())
    assert snapshot.problems == ()
    assert list(snapshot.device.queues) == sorted(
        [
            "Export",
            "IANSCU",
            "StgCmtSCU",
            "StgCmtSCP",
            "StgVerTasks",
            "Retrieve",
            "LeadingCFind",
            "MPPSSCU",
            "HL7Send",
            "RSClient",
            "DiffTasks",
            "Rejection",
        ]
    )
    ports = {
        title: [connection.port for connection in ae.connections]
        for title, ae in snapshot.remote_aes.items()
    }
    assert ports == {
        "DCM4CHEE": [11112],
        "STORESCP": [11115],
        "IANSCP": [11117],
        "QRSCP": [11113],
        "STORESCU": [None],
    }
    assert snapshot.device.overwrite_policy == "SAME_SOURCE"
    assert snapshot.device.export_rules == ()
    assert snapshot.device.exporters == {}


def test_every_queue_of_the_default_has_the_reference_values() -> None:
    for queue in decoded(DEFAULT).device.queues.values():
        assert queue.retry.max_retries == 10
        assert (queue.retry.delay_s, queue.retry.max_delay_s) == (30, 600)
        assert queue.retry.multiplier_percent == 200
        assert not queue.retry.retry_on_warning
        assert (queue.purge_completed_s, queue.purge_failed_s) == (86400, None)
        assert queue.max_tasks_parallel == 1


def test_the_archive_takes_every_storage_class_as_received() -> None:
    ae = decoded(default_entries()).device.aes["DCM4CHEE"]
    offered = {
        one.sop_class: set(one.transfer_syntaxes)
        for one in ae.transfer_capabilities
        if one.role == "SCP"
    }
    ct = offered["1.2.840.10008.5.1.4.1.1.2"]
    wanted = ["2", "2.1", "2.1.99", "2.2", "2.5", "2.4.50", "2.4.57", "2.4.70", "2.4.80", "2.4.90"]
    wanted += ["2.4.91", "2.4.100", "2.4.107", "2.4.110", "2.4.112", "2.4.201", "2.4.203"]
    assert {f"1.2.840.10008.1.{tail}" for tail in wanted} <= ct
    assert all(
        syntaxes == ct
        for uid, syntaxes in offered.items()
        if uid.startswith("1.2.840.10008.5.1.4.") and ".5.1.4.1.2." not in uid
    )
    assert len(offered) > 150


def test_the_wiki_exporter_gets_an_implicit_queue_and_one_notice() -> None:
    snapshot = with_text(WIKI_EXPORTER)
    exporter = snapshot.device.exporters["STORESCP"]
    assert (exporter.scheme, exporter.destination, exporter.aet) == (
        "dicom",
        "STORESCP",
        "DCM4CHEE",
    )
    queue = snapshot.queue("Export1")
    assert queue.implicit
    assert (queue.max_tasks_parallel, queue.retry.max_retries) == (4, 10)
    assert [(one.attribute, one.severity) for one in snapshot.problems] == [
        ("dcmQueueName", "notice")
    ]


def test_an_exporter_with_everything() -> None:
    text = f"""dn: DCMEXPORTERID=X,{DEVICE}
OBJECTCLASS: DCMEXPORTER
DCMEXPORTERID: X
dcmuri: Dicom:STORESCP
dcmQUEUENAME: Export
dicomAETitle: DCM4CHEE
dcmExportAsSourceAE: TRUE
dcmIanDestination: IANSCP
dcmIANDestination: QRSCP
dcmRetrieveAET: STORESCP
dcmRetrieveLocationUID: 1.2.3
dcmInstanceAvailability: NEARLINE
dcmStgCmtSCP: QRSCP
dcmDeleteStudyFromStorageID: fs1
dcmRejectForDataRetentionExpiry: TRUE
dcmCheckIfAlreadyExistsOnDestination: TRUE
dcmSchedule: hour=18-6
dcmProperty: a=b=c
dicomDescription: words
"""
    snapshot = with_text(text)
    exporter = snapshot.device.exporters["X"]
    assert snapshot.problems == ()
    assert exporter.scheme == "dicom"
    assert exporter.export_as_source_ae
    assert exporter.ian_destinations == ("IANSCP", "QRSCP")
    assert exporter.retrieve_aets == ("STORESCP",)
    assert exporter.retrieve_location_uid == "1.2.3"
    assert exporter.instance_availability is InstanceAvailability.NEARLINE
    assert exporter.storage_commitment_scp == "QRSCP"
    assert exporter.delete_study_from_storage_id == "fs1"
    assert exporter.reject_for_data_retention_expiry
    assert exporter.check_if_already_exists
    assert exporter.schedule.text == ("hour=18-6",)
    assert exporter.properties == (("a", "b=c"),)


@pytest.mark.parametrize(
    ("line", "attribute", "severity", "words"),
    [
        ("dicomAETitle: NOSUCH", "dicomAETitle", "error", "2 values"),
        ("dcmIANDestination: NOSUCH", "dcmIanDestination", "warning", "no AE NOSUCH"),
        ("dcmIANDestination: STORESCU", "dcmIanDestination", "warning", "connection with a port"),
        ("dcmStgCmtSCP: NOSUCH", "dcmStgCmtSCP", "warning", "no AE NOSUCH"),
        ("dcmExportAsSourceAE: yes", "dcmExportAsSourceAE", "error", "TRUE nor FALSE"),
        ("dcmInstanceAvailability: FOO", "dcmInstanceAvailability", "error", "none of ONLINE"),
        ("dcmRetrieveLocationUID: x", "dcmRetrieveLocationUID", "error", "not a UID"),
        ("dcmProperty: nothing", "dcmProperty", "error", "name=value"),
        ("dicomDescription:: YSA=", "dicomDescription", "warning", "blanks at its ends"),
        ("dicomDescription: ${env.NONE}", "dicomDescription", "warning", "not set"),
    ],
)
def test_a_bad_value_is_set_aside_alone(
    line: str, attribute: str, severity: str, words: str
) -> None:
    snapshot = with_text(f"{EXPORTER}{line}\n")
    problem = problem_of(snapshot, attribute)
    assert problem.dn == f"dcmExporterID=X,{DEVICE}"
    assert problem.severity == severity
    assert words in problem.reason
    assert snapshot.device.exporters["X"].destination == "STORESCP"


@pytest.mark.parametrize(
    ("before", "after", "attribute", "words"),
    [
        ("dcmURI: dicom:STORESCP\n", "", "dcmURI", "is missing"),
        ("dicom:STORESCP", "STORESCP", "dcmURI", "not a URI"),
        ("dcmQueueName: Export\n", "", "dcmQueueName", "is missing"),
        ("dcmQueueName", "dcmSchedule: 18-6\ndcmQueueName", "dcmSchedule", "'18-6'"),
    ],
)
def test_an_exporter_that_would_do_the_wrong_thing_is_set_aside(
    before: str, after: str, attribute: str, words: str
) -> None:
    snapshot = with_text(EXPORTER.replace(before, after))
    problem = problem_of(snapshot, attribute)
    assert words in problem.reason
    assert "the entry is set aside" in problem.reason
    assert snapshot.device.exporters == {}


@pytest.mark.parametrize(
    ("before", "after", "attribute", "words"),
    [
        ("NoValue", "", "dicomAETitle", "the AE that received the object exports"),
        ("dicomAETitle: DCM4CHEE", "dicomAETitle: OTHER", "dicomAETitle", "no AE of device"),
        ("dicom:STORESCP", "dicom:NOSUCH", "dcmURI", "no AE NOSUCH"),
        ("dicom:STORESCP", "xds-i:http://x", "dcmURI", "is not performed"),
        ("dcmQueueName: Export", "dcmQueueName: Other", "dcmQueueName", "no dcmQueue entry Other"),
    ],
)
def test_a_name_that_leads_nowhere_is_reported_and_the_entry_kept(
    before: str, after: str, attribute: str, words: str
) -> None:
    text = EXPORTER.replace("dicomAETitle: DCM4CHEE\n", "") if before == "NoValue" else EXPORTER
    snapshot = with_text(text.replace(before, after))
    assert words in problem_of(snapshot, attribute).reason
    assert "X" in snapshot.device.exporters


def test_a_rule_with_everything() -> None:
    text = f"""{EXPORTER}
{RULE}dcmDuration: PT1M
dcmProperty: Modality=CT|MR
dcmProperty: SendingApplicationEntityTitle=CT1
dcmSchedule: hour=8-17
dcmExportReoccurredInstances: NEVER
dcmExportPreviousEntity: TRUE
dicomDeviceName: dcm4chee-arc
"""
    snapshot = with_text(text)
    assert snapshot.problems == ()
    (rule,) = snapshot.device.export_rules
    assert rule.entity is ExportEntity.SERIES
    assert rule.exporter_ids == ("X",)
    assert rule.duration_s == 60
    assert len(rule.conditions.conditions) == 2
    assert rule.export_reoccurred_instances == "NEVER"
    assert rule.export_previous_entity


@pytest.mark.parametrize(
    ("line", "attribute", "words"),
    [
        ("dcmProperty: NoSuchKeyword=1", "dcmProperty", "no keyword"),
        ("dcmProperty: Modality=(", "dcmProperty", "regular expression"),
        ("dcmSchedule: 18-6", "dcmSchedule", "is not understood"),
        ("dcmEntity: Patient", "dcmEntity", "none of Study"),
    ],
)
def test_a_rule_with_a_wrong_limit_never_matches_more_than_meant(
    line: str, attribute: str, words: str
) -> None:
    rule = RULE.replace("dcmEntity: Series\n", "") if "dcmEntity" in line else RULE
    snapshot = with_text(f"{EXPORTER}\n{rule}{line}\n")
    assert words in problem_of(snapshot, attribute).reason
    assert snapshot.device.export_rules == ()


def test_a_wrong_duration_exports_without_quiet_time() -> None:
    snapshot = with_text(f"{EXPORTER}\n{RULE}dcmDuration: 5min\n")
    assert "not a duration" in problem_of(snapshot, "dcmDuration").reason
    assert snapshot.device.export_rules[0].duration_s is None


def test_a_rule_for_an_exporter_or_device_that_is_not_there_is_reported() -> None:
    assert "no exporter X" in problem_of(with_text(RULE), "dcmExporterID").reason
    other = with_text(f"{RULE}dicomDeviceName: other\n")
    assert "no device other" in problem_of(other, "dicomDeviceName").reason


def test_rules_of_an_ae_stay_with_it() -> None:
    snapshot = with_text(f"{EXPORTER}\n{RULE.replace(DEVICE, AE)}")
    assert snapshot.device.export_rules == ()
    assert [rule.name for rule in snapshot.device.aes["DCM4CHEE"].export_rules] == ["R"]


def test_variables_are_expanded() -> None:
    storage = f"dcmStorageID=fs1,{DEVICE}"
    snapshot = decoded(changed(storage, dcmURI="${jboss.server.data.url}/fs1/"))
    assert snapshot.device.storages["fs1"].uri == "file:/srv/fs1/"
    snapshot = decoded(changed(f"cn=dicom,{DEVICE}", dicomPort="${env.PORT:11112}"))
    assert snapshot.device.aes["DCM4CHEE"].connections[0].port == 1104
    snapshot = decoded(changed(f"cn=dicom,{DEVICE}", dicomPort="${env.OTHER:11113}"))
    assert snapshot.device.aes["DCM4CHEE"].connections[0].port == 11113
    assert snapshot.problems == ()


def test_timeouts_are_seconds_and_zero_is_none() -> None:
    values = {"dcmResponseTimeout": "250", "dcmIdleTimeout": "0", "dcmAATimeout": "no"}
    snapshot = decoded(changed(f"cn=dicom,{DEVICE}", **values))
    connection = snapshot.device.aes["DCM4CHEE"].connections[0]
    assert (connection.response_timeout_s, connection.idle_timeout_s) == (0.25, None)
    assert connection.abort_timeout_s == 1.0
    assert "not a whole number" in problem_of(snapshot, "dcmAATimeout").reason


def test_an_ae_inherits_from_its_device_and_goes_before_it() -> None:
    values = {"dcmRetrieveAET": "OTHER", "dcmIanDelay": "PT2M", "dcmSendPendingCGet": "TRUE"}
    snapshot = decoded(changed(DEVICE, **values))
    ae = snapshot.device.aes["DCM4CHEE"]
    assert (ae.retrieve_aets, ae.ian_delay_s, ae.send_pending_c_get) == (("OTHER",), 120, True)
    assert ae.overwrite_policy == "SAME_SOURCE"
    own = [
        Entry(one.dn, {**one.attributes, "dcmoverwritepolicy": (b"NEVER",)})
        if one.dn == AE
        else one
        for one in changed(DEVICE, **values)
    ]
    assert decoded(own).device.aes["DCM4CHEE"].overwrite_policy == "NEVER"


def test_nothing_of_a_device_is_installed_when_the_device_is_not() -> None:
    snapshot = decoded(changed(f"dicomDeviceName=storescp,{DEVICES}", dicomInstalled="FALSE"))
    ae = snapshot.remote_aes["STORESCP"]
    assert not ae.installed
    assert not ae.connections[0].installed
    snapshot = decoded(changed(f"cn=dicom,{DEVICE}", dicomInstalled="FALSE"))
    assert snapshot.device.aes["DCM4CHEE"].installed
    assert not snapshot.device.aes["DCM4CHEE"].connections[0].installed


def test_an_ae_tells_how_many_associations_its_device_accepts() -> None:
    limits = {"dcmLimitOpenAssociations": "3", "dcmLimitAssociationsInitiatedBy": "DCM4CHEE=1"}
    snapshot = decoded(changed(f"dicomDeviceName=storescp,{DEVICES}", **limits))
    ae = snapshot.remote_aes["STORESCP"]
    assert ae.limit_open_associations == 3
    assert ae.limit_associations_initiated_by == (("DCM4CHEE", 1),)
    assert snapshot.remote_aes["IANSCP"].limit_open_associations == 0


def test_references_to_connections_have_no_case() -> None:
    reference = f"CN=DICOM, {DEVICE.upper()}"
    snapshot = decoded(changed(AE, dicomNetworkConnectionReference=reference))
    assert snapshot.problems == ()
    assert snapshot.device.aes["DCM4CHEE"].connections[0].port == 11112


def test_an_ae_without_connection_is_set_aside_alone() -> None:
    dn = f"dicomAETitle=IANSCP,dicomDeviceName=ianscp,{DEVICES}"
    snapshot = decoded(changed(dn, dicomNetworkConnectionReference=f"cn=other,{DEVICE}"))
    assert "IANSCP" not in snapshot.remote_aes
    assert "STORESCP" in snapshot.remote_aes
    reasons = [one.reason for one in snapshot.problems if one.dn == dn]
    assert len(reasons) == 2


def test_an_ae_of_two_devices_is_reported_and_the_own_one_used() -> None:
    device = f"dicomDeviceName=ianscp,{DEVICES}"
    text = f"""dn: dicomAETitle=DCM4CHEE,{device}
objectClass: dicomNetworkAE
dicomAETitle: DCM4CHEE
dicomNetworkConnectionReference: cn=dicom,{device}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE
"""
    snapshot = with_text(text)
    assert snapshot.remote_aes["DCM4CHEE"].device_name == "dcm4chee-arc"
    problem = problem_of(snapshot, "dicomAETitle")
    assert problem.dn == f"dicomAETitle=DCM4CHEE,{device}"
    assert AE in problem.reason


def test_capabilities_can_be_shared() -> None:
    text = f"""dn: dicomAETitle=SECOND,{DEVICE}
objectClass: dicomNetworkAE
objectClass: dcmNetworkAE
dicomAETitle: SECOND
dicomNetworkConnectionReference: cn=dicom,{DEVICE}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE
dcmShareTransferCapabilitiesFromAETitle: DCM4CHEE
"""
    snapshot = decoded([*default_entries(), *entries(text)])
    aes = snapshot.device.aes
    assert aes["SECOND"].transfer_capabilities == aes["DCM4CHEE"].transfer_capabilities
    assert aes["SECOND"].transfer_capabilities


def test_a_queue_keeps_going_with_its_defaults() -> None:
    values = {"dcmMaxRetries": "many", "dcmMaxTasksParallel": "0", "dcmSchedule": "never"}
    snapshot = decoded(changed(EXPORT, **values))
    queue = snapshot.device.queues["Export"]
    assert (queue.retry.max_retries, queue.max_tasks_parallel) == (0, 1)
    assert {one.attribute for one in snapshot.problems} == set(values)


def test_the_zone_of_the_device_holds_for_its_schedules() -> None:
    text = f"{EXPORTER}dcmSchedule: hour=8\n\n{RULE}dcmSchedule: hour=8\n"
    snapshot = decoded([*changed(DEVICE, dcmTimeZoneOfDevice="Asia/Tokyo"), *entries(text)])
    assert str(snapshot.device.exporters["X"].schedule.zone) == "Asia/Tokyo"
    assert str(snapshot.device.export_rules[0].schedule.zone) == "Asia/Tokyo"


def test_all_problems_are_reported_at_once() -> None:
    text = f"{EXPORTER}dcmExportAsSourceAE: yes\n\n{RULE}dcmDuration: x\n"
    snapshot = decoded([*changed(EXPORT, dcmMaxRetries="x"), *entries(text)])
    assert {one.attribute for one in snapshot.problems} == {
        "dcmExportAsSourceAE",
        "dcmDuration",
        "dcmMaxRetries",
    }


def test_unknown_classes_attributes_and_broken_bytes_harm_nothing() -> None:
    stray = Entry("not a name", {"objectclass": (b"dcmExporter",)})
    other = Entry(f"hl7ApplicationName=*,{DEVICE}", {"objectclass": (b"hl7Application",)})
    found = decoded([*changed(AE, dicomDescription=b"\xff\xfe", dcmNoSuch="1"), stray, other])
    assert found.problems == ()


def test_the_root_may_lie_anywhere() -> None:
    moved = [
        Entry(
            one.dn.replace("dc=dcm4che,dc=org", "ou=x,dc=y"),
            {
                name: tuple(value.replace(b"dc=dcm4che,dc=org", b"ou=x,dc=y") for value in values)
                for name, values in one.attributes.items()
            },
        )
        for one in DEFAULT
    ]
    assert decoded(moved).problems == ()


@pytest.mark.parametrize(
    ("all_entries", "words"),
    [
        ([], "dicomConfigurationRoot"),
        ([one for one in DEFAULT if one.dn != DEVICE], "devices: dcmqrscp, ianscp"),
        (changed(DEVICE, objectClass="dicomDevice"), "lacks objectClass dcmArchiveDevice"),
    ],
)
def test_a_directory_without_the_own_device_is_an_error(
    all_entries: list[Entry], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        decoded(all_entries)
