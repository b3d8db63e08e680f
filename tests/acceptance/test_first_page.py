"""The first page of the seeds, end to end: C-STORE in, C-STORE out, N-CREATE."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from deploy.demo_objects import write_studies
from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import encoded_dataset, secondary_capture, write
from tests.fix_peer import IanScp
from tests.fix_system import System

STUDY = "1.3.6.1.4.1.5962.1.2.0.1175775772.5723.0"
SERIES = "1.3.6.1.4.1.5962.1.3.0.1.1175775772.5723.0"
OBJECT = "1.3.6.1.4.1.5962.1.1.0.1.1.1175775772.5723.0"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


@pytest.fixture
def page_object(tmp_path: Path) -> Path:
    """The Secondary Capture image of the page."""
    dataset = secondary_capture(STUDY, 1, 1)
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = SERIES, OBJECT
    return write(dataset, tmp_path / "page" / "object.dcm")


def page_notification() -> Dataset:
    """Return the data set as the page prints it, element by element."""
    reference = Dataset()
    reference.RetrieveAETitle = "STORESCP"
    reference.InstanceAvailability = "ONLINE"
    reference.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    reference.ReferencedSOPInstanceUID = OBJECT
    series = Dataset()
    series.ReferencedSOPSequence = [reference]
    series.SeriesInstanceUID = SERIES
    notification = Dataset()
    notification.ReferencedPerformedProcedureStepSequence = []
    notification.ReferencedSeriesSequence = [series]
    notification.StudyInstanceUID = STUDY
    return notification


def test_export_triggered_ian(
    system: System, dcmtk: Dcmtk, ian_scp: Callable[..., IanScp], page_object: Path
) -> None:
    destination = dcmtk.storescp()
    receiver = ian_scp()
    system.export_to(destination.port, ian_port=receiver.port)

    sent = dcmtk.storescu(page_object, port=system.port)

    assert sent.returncode == 0, sent.stdout
    system.wait_until(lambda: receiver.accepted, what="the notification")
    system.wait_until_idle()
    stored = destination.received()
    assert list(stored) == [OBJECT]
    assert encoded_dataset(stored[OBJECT]) == encoded_dataset(page_object)
    [notification] = receiver.received
    assert notification.dataset == page_notification()
    assert notification.calling_aet == "DCM4CHEE"
    assert notification.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    assert notification.sop_instance_uid.startswith("2.25.")
    assert [task.status for task in system.tasks()] == ["COMPLETED", "COMPLETED"]


def test_compressed_objects_arrive_as_they_are_archived(
    system: System, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    destination = dcmtk.storescp()
    system.export_to(destination.port)
    studies = write_studies(tmp_path)
    sent = {each.sop_instance_uid: each for study in studies for each in study.objects}

    done = dcmtk.dcmsend(*(each.path for each in sent.values()), port=system.port)

    assert done.returncode == 0, done.stdout
    system.wait_until(lambda: len(destination.received()) == len(sent), what="all objects")
    system.wait_until_idle()
    delivered, archived = destination.received(), system.archived()
    assert delivered.keys() == archived.keys() == sent.keys()
    for uid, path in delivered.items():
        assert encoded_dataset(path) == encoded_dataset(archived[uid]), sent[uid].path.name
        if UID(sent[uid].transfer_syntax_uid).is_compressed:
            syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
            assert syntax == sent[uid].transfer_syntax_uid
