"""What an AE announces of what it receives, by its own attributes and those of its device."""

import dataclasses
from collections.abc import Iterator

import pytest

from archive.configuration.announcements import announcements
from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import ArchiveDevice, IanTrigger, NetworkAE, Snapshot
from archive.configuration.entries import Entry
from archive.configuration.snapshot import build_snapshot

ARCHIVE = "dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
AE = f"dicomAETitle=DCM4CHEE,{ARCHIVE}"
TRIGGERS = tuple(IanTrigger)


def snapshot(*triggers: IanTrigger, **options: object) -> tuple[Snapshot, NetworkAE]:
    ae = NetworkAE("ARC", "arc", ())
    ae = dataclasses.replace(ae, ian_triggers=triggers, **options)  # type: ignore[arg-type]
    device = ArchiveDevice("arc", {"ARC": ae}, {}, {}, {})
    return Snapshot(device, {"ARC": ae}, (), "x"), ae


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_each_trigger_alone(trigger: IanTrigger) -> None:
    found = announcements(*snapshot(trigger, ian_destinations=("B", "A", "B"), ian_delay_s=5.0))
    assert found is not None
    assert found.destinations == ("B", "A")
    assert found.retrieve_aets == ("ARC",)
    flags = (
        found.study_delay_s is not None,
        found.first_object,
        found.procedure_steps,
        found.rejections,
    )
    order = (
        IanTrigger.STUDY_RECEIVED,
        IanTrigger.FIRST_OBJECT_OF_STUDY_RECEIVED,
        IanTrigger.MPPS_RECEIVED,
        IanTrigger.REJECTION_NOTE_RECEIVED,
    )
    assert flags == tuple(each is trigger for each in order)


def test_nothing_without_triggers_or_destinations() -> None:
    assert announcements(*snapshot(ian_destinations=("A",), ian_delay_s=5.0)) is None
    assert announcements(*snapshot(*TRIGGERS, ian_delay_s=5.0)) is None


def test_a_quiet_study_needs_a_delay() -> None:
    found = announcements(*snapshot(IanTrigger.STUDY_RECEIVED, ian_destinations=("A",)))
    assert found is not None
    assert found.study_delay_s is None


def test_the_archives_retrieve_titles_go_before_its_own() -> None:
    found = announcements(
        *snapshot(*TRIGGERS, ian_destinations=("A",), retrieve_aets=("VNA", "ARC"))
    )
    assert found is not None
    assert found.retrieve_aets == ("VNA", "ARC")


def configured(dn: str, more: dict[str, tuple[str, ...]]) -> Iterator[Entry]:
    """Yield the entries of the default directory, one of them with further attributes."""
    for entry in default_entries():
        if entry.dn == dn:
            added = {name.lower(): tuple(map(str.encode, more[name])) for name in more}
            yield Entry(entry.dn, {**entry.attributes, **added})
        else:
            yield entry


@pytest.mark.parametrize(
    ("ae", "triggers", "destinations"),
    [
        ({}, ("STUDY_RECEIVED",), ("ONE", "TWO")),
        ({"dcmIanTrigger": ("MPPS_RECEIVED",)}, ("MPPS_RECEIVED",), ("ONE", "TWO")),
        ({"dcmIanDestination": ("THREE",)}, ("STUDY_RECEIVED",), ("THREE",)),
    ],
    ids=["device", "triggers of the AE", "destinations of the AE"],
)
def test_the_ae_goes_before_its_device(
    ae: dict[str, tuple[str, ...]], triggers: tuple[str, ...], destinations: tuple[str, ...]
) -> None:
    of_device = {"dcmIanTrigger": ("STUDY_RECEIVED",), "dcmIanDestination": ("ONE", "TWO")}
    by_dn = {each.dn: each for each in configured(ARCHIVE, of_device)}
    by_dn |= {each.dn: each for each in configured(AE, ae) if each.dn == AE}
    device = build_snapshot(
        list(by_dn.values()), "dcm4chee-arc", Variables(), fingerprint="x"
    ).device
    found = device.aes["DCM4CHEE"]
    assert (found.ian_triggers, found.ian_destinations) == (triggers, destinations)
