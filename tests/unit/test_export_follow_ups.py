"""The notifications that follow an export."""

import dataclasses
import datetime as dt

import pytest

from archive.configuration.descriptors import (
    ArchiveDevice,
    Exporter,
    InstanceAvailability,
    Snapshot,
)
from archive.model.task import IanDetails, Task, TaskKind, TaskStatus
from tests.fix_export import DEVICE, exporter, local_ae
from workers.export import follow_ups

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _task() -> Task:
    return Task(
        pk=1,
        kind=TaskKind.EXPORT,
        queue_name="Export",
        device_name=DEVICE,
        status=TaskStatus.IN_PROCESS,
        created_time=NOW,
        updated_time=NOW,
        scheduled_time=NOW,
        attempt=1,
        round=1,
        failures=0,
        follow_up_only=True,
        cancel_requested=False,
        local_aet="DCM4CHEE",
        batch_id="B",
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
    )


@pytest.mark.parametrize(
    ("configured", "at_ae", "details"),
    [
        (exporter(), (), IanDetails(("STORESCP",), "ONLINE", None, "EXP")),
        (
            exporter(
                retrieve_aets=("A", "B"),
                retrieve_location_uid="1.9",
                instance_availability=InstanceAvailability.NEARLINE,
            ),
            (),
            IanDetails(("A", "B"), "NEARLINE", "1.9", "EXP"),
        ),
        (exporter("x", scheme="noop"), (), IanDetails(("DCM4CHEE",), "ONLINE")),
        (exporter("x", scheme="noop"), ("QR",), IanDetails(("QR",), "ONLINE")),
    ],
)
def test_details(configured: Exporter, at_ae: tuple[str, ...], details: IanDetails) -> None:
    local = local_ae(retrieve_aets=at_ae)
    device = ArchiveDevice(DEVICE, {local.title: local}, {}, {}, {})
    with_destination = dataclasses.replace(configured, ian_destinations=("IANSCP",))
    (new,) = follow_ups(_task(), with_destination, Snapshot(device, {}, (), "f"))
    assert new.ian == details
    assert (new.study_instance_uid, new.series_instance_uid, new.batch_id) == ("1.2", None, "B")
    assert (new.local_aet, new.remote_aet, new.exporter_id) == ("DCM4CHEE", "IANSCP", "EXP")


def test_none_without_destination() -> None:
    device = ArchiveDevice(DEVICE, {}, {}, {}, {})
    assert follow_ups(_task(), exporter(), Snapshot(device, {}, (), "f")) == ()
