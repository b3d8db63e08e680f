from datetime import UTC, datetime

import pytest
from pydicom import Dataset

from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import Snapshot
from archive.configuration.entries import Entry
from archive.configuration.export_rules import demanded_exports
from archive.configuration.ldif import parse_ldif
from archive.configuration.records import AddRecord
from archive.configuration.snapshot import build_snapshot
from archive.model.entities import Reception
from archive.model.task import ExportEntity, ExportIntent
from tests.directory_cases import DEVICE, DEVICES

AE = f"dicomAETitle=DCM4CHEE,{DEVICE}"
DEFAULT = [one for one in default_entries() if not one.has_class("dicomTransferCapability")]
MONDAY_NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def exporter(name: str, *lines: str, device: str = DEVICE) -> str:
    head = f"dn: dcmExporterID={name},{device}\nobjectClass: dcmExporter\ndcmURI: dicom:STORESCP\n"
    return (
        head + f"dcmExporterID: {name}\ndcmQueueName: Export\n" + "".join(f"{x}\n" for x in lines)
    )


def rule(name: str, *lines: str, entity: str = "Study", below: str = DEVICE) -> str:
    head = f"dn: cn={name},{below}\nobjectClass: dcmExportRule\ncn: {name}\ndcmEntity: {entity}\n"
    return head + "".join(f"{line}\n" for line in lines)


def snapshot(*texts: str) -> Snapshot:
    parsed = parse_ldif("\n".join(texts).encode()).records
    more = [Entry.of(one.dn, one.attributes) for one in parsed if isinstance(one, AddRecord)]
    zone = [
        Entry(one.dn, {**one.attributes, "dcmtimezoneofdevice": (b"UTC",)})
        if one.dn == DEVICE
        else one
        for one in DEFAULT
    ]
    return build_snapshot([*zone, *more], "dcm4chee-arc", Variables(), fingerprint="f")


def demanded(*texts: str, now: datetime = MONDAY_NOON, modality: str = "CT") -> list[ExportIntent]:
    dataset = Dataset()
    dataset.Modality = modality
    configuration = snapshot(*texts)
    ae = configuration.device.aes["DCM4CHEE"]
    reception = Reception("CT1", "DCM4CHEE", "ct1.local")
    return list(demanded_exports(configuration, ae, dataset, reception, now))


def test_an_intent_says_everything_the_task_needs() -> None:
    texts = [
        exporter("X", "dicomAETitle: DCM4CHEE"),
        rule("R", "dcmExporterID: X", "dcmDuration: PT1M", "dcmExportPreviousEntity: TRUE"),
    ]
    assert demanded(*texts) == [
        ExportIntent(
            exporter_id="X",
            queue_name="Export",
            device_name="dcm4chee-arc",
            local_aet="DCM4CHEE",
            remote_aet="STORESCP",
            entity=ExportEntity.STUDY,
            due_in_s=60.0,
            reoccurred="REPLACE",
            rule_name="R",
            previous_entity=True,
        )
    ]


def test_no_rule_demands_nothing() -> None:
    assert demanded(exporter("X")) == []


def test_every_exporter_of_a_rule_gets_its_own_export() -> None:
    texts = [exporter("X"), exporter("Y"), rule("R", "dcmExporterID: X", "dcmExporterID: Y")]
    assert [one.exporter_id for one in demanded(*texts)] == ["X", "Y"]


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["dcmProperty: Modality=CT"], 1),
        (["dcmProperty: Modality=MR"], 0),
        (["dcmProperty: SendingApplicationEntityTitle=CT1"], 1),
        (["dcmProperty: SendingHostname=ct1\\..*"], 1),
        (["dcmProperty: ReceivingHostname=localhost"], 1),
        (["dcmProperty: ReceivingApplicationEntityTitle=OTHER"], 0),
        (["dcmSchedule: hour=12"], 1),
        (["dcmSchedule: hour=13"], 0),
        (["dcmSchedule: hour=13", "dcmSchedule: dayOfWeek=1"], 1),
        (["dcmProperty: Modality=CT", "dcmSchedule: hour=13"], 0),
    ],
)
def test_which_rules_hold(lines: list[str], count: int) -> None:
    assert len(demanded(exporter("X"), rule("R", "dcmExporterID: X", *lines))) == count


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        (["Study", "Series", "Instance"], "Study"),
        (["Instance", "Study", "Series"], "Study"),
        (["Instance", "Series"], "Series"),
        (["Series", "Instance"], "Series"),
    ],
)
def test_the_coarser_rule_wins(entities: list[str], expected: str) -> None:
    rules = [
        rule(f"R{number}", "dcmExporterID: X", f"dcmDuration: PT{number}M", entity=entity)
        for number, entity in enumerate(entities)
    ]
    (intent,) = demanded(exporter("X"), *rules)
    assert intent.entity == expected
    assert intent.due_in_s == 60 * entities.index(expected)


def test_rules_of_the_ae_and_of_the_device_are_added_up() -> None:
    texts = [
        exporter("X"),
        exporter("Y"),
        rule("A", "dcmExporterID: X", below=AE),
        rule("D", "dcmExporterID: Y"),
    ]
    assert {one.exporter_id: one.rule_name for one in demanded(*texts)} == {"X": "A", "Y": "D"}


def test_the_schedule_of_the_exporter_puts_the_export_off() -> None:
    texts = [exporter("X", "dcmSchedule: hour=18-6"), rule("R", "dcmExporterID: X")]
    (intent,) = demanded(*texts)
    assert intent.due_in_s == 6 * 3600


def test_the_quiet_time_can_lead_out_of_the_schedule() -> None:
    texts = [
        exporter("X", "dcmSchedule: hour=12"),
        rule("R", "dcmExporterID: X", "dcmDuration: PT1H"),
    ]
    (intent,) = demanded(*texts)
    assert intent.due_in_s == 24 * 3600


def test_an_exporter_that_is_not_there_is_left_out() -> None:
    assert demanded(exporter("X"), rule("R", "dcmExporterID: NONE", "dcmExporterID: X"))[0]
    assert demanded(rule("R", "dcmExporterID: NONE")) == []


def test_an_exporter_without_ae_exports_as_the_called_one() -> None:
    (intent,) = demanded(exporter("X"), rule("R", "dcmExporterID: X"))
    assert intent.local_aet == "DCM4CHEE"


def test_a_rule_can_name_the_exporter_of_another_device() -> None:
    other = f"dicomDeviceName=storescp,{DEVICES}"
    texts = [
        exporter("X", "dicomAETitle: HERE"),
        exporter("X", "dicomAETitle: THERE", device=other),
        rule("R", "dcmExporterID: X", "dicomDeviceName: storescp"),
    ]
    (intent,) = demanded(*texts)
    assert (intent.device_name, intent.local_aet) == ("storescp", "THERE")


def test_flags_of_the_winner_count() -> None:
    texts = [
        exporter("X"),
        rule("A", "dcmExporterID: X", "dcmExportReoccurredInstances: ALWAYS", entity="Series"),
        rule("B", "dcmExporterID: X", "dcmExportReoccurredInstances: NEVER"),
    ]
    (intent,) = demanded(*texts)
    assert (intent.reoccurred, intent.rule_name) == ("NEVER", "B")
