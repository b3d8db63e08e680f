"""Objects and procedure steps as a modality sends them, and an archive that announces them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage
from pynetdicom import AE

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger import notifications, tasks
from archive.model.task import Task
from tests.fix_objects import Study, generate_studies, write
from tests.fix_process import wait_until
from tests.fix_scp import Site
from tests.fix_system import ARCHIVE_AE
from workers.deadlines import Deadlines, DeadlinesConfig
from workers.instance_availability import fixed_notification

DEVICE = "dcm4chee-arc"
MPPS = "1.2.840.10008.3.1.2.3.3"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"


def rejection_note(
    study: Study, uid: str, rejected: Sequence[str], code: str = "113001", scheme: str = "DCM"
) -> Dataset:
    """Return a key object selection document that rejects instances of `study`."""
    dataset = Dataset()
    dataset.SOPClassUID = KeyObjectSelectionDocumentStorage
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = study.study_instance_uid
    dataset.SeriesInstanceUID = f"{uid}.1"
    dataset.PatientID = "P1"
    dataset.PatientName = "Test^Object"
    dataset.Modality = "KO"
    dataset.SeriesNumber = dataset.InstanceNumber = 99
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, "title"
    dataset.ConceptNameCodeSequence = [title]
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(study, rejected)]
    dataset.ValueType = "CONTAINER"
    dataset.ContentSequence = []
    return dataset


def _evidence(study: Study, rejected: Sequence[str]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for each in rejected:
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        item.ReferencedSOPInstanceUID = each
        series.setdefault(each.rpartition(".")[0], []).append(item)
    evidence = Dataset()
    evidence.StudyInstanceUID = study.study_instance_uid
    evidence.ReferencedSeriesSequence = []
    for series_uid, items in series.items():
        entry = Dataset()
        entry.SeriesInstanceUID, entry.ReferencedSOPSequence = series_uid, items
        evidence.ReferencedSeriesSequence.append(entry)
    return evidence


def procedure_step(*studies: Study, status: str = "IN PROGRESS") -> Dataset:
    """Return the attributes with which a modality creates a procedure step."""
    dataset = Dataset()
    dataset.ScheduledStepAttributesSequence = []
    for study in studies:
        scheduled = Dataset()
        scheduled.StudyInstanceUID = study.study_instance_uid
        dataset.ScheduledStepAttributesSequence.append(scheduled)
    dataset.PatientName = "Test^Object"
    dataset.PatientID = "P1"
    dataset.PerformedProcedureStepID = "1"
    dataset.PerformedProcedureStepStatus = status
    dataset.PerformedSeriesSequence = []
    return dataset


def rejecting(
    study: Study, uid: str, rejected: Sequence[str], directory: Path, *code: str
) -> list[Path]:
    """Write a rejection note; see `rejection_note`."""
    return [write(rejection_note(study, uid, rejected, *code), directory / f"{uid}.dcm")]


def completion(produced: Sequence[str], status: str = "COMPLETED") -> Dataset:
    """Return the changes with which a modality ends a procedure step."""
    dataset = Dataset()
    dataset.PerformedProcedureStepStatus = status
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedImageSequence = []
    for uid in produced:
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        item.ReferencedSOPInstanceUID = uid
        series.ReferencedImageSequence.append(item)
    dataset.PerformedSeriesSequence = [series]
    return dataset


class Modality:
    """Sends procedure steps."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ae = AE("STORESCU")
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = 30
        self._ae.add_requested_context(MPPS)

    def create(self, uid: str, dataset: Dataset) -> int | None:
        """Send an N-CREATE and return the status of its response."""
        association = self._ae.associate("127.0.0.1", self._port, ae_title="DCM4CHEE")
        assert association.is_established
        status, _ = association.send_n_create(dataset, MPPS, uid)
        association.release()
        return int(status.Status) if "Status" in status else None

    def change(self, uid: str, dataset: Dataset) -> int | None:
        """Send an N-SET and return the status of its response."""
        association = self._ae.associate("127.0.0.1", self._port, ae_title="DCM4CHEE")
        assert association.is_established
        status, _ = association.send_n_set(dataset, MPPS, uid)
        association.release()
        return int(status.Status) if "Status" in status else None


def count_found(port: int, level: str, study: str) -> int:
    """Return how many matches of a study there are; images are those of its first series."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = study
    query.SeriesInstanceUID = query.SOPInstanceUID = ""
    ae = AE("STORESCU")
    ae.add_requested_context(STUDY_ROOT)
    association = ae.associate("127.0.0.1", port, ae_title="DCM4CHEE")
    if level == "SERIES":
        del query.SOPInstanceUID
    if level == "IMAGE":
        query.SeriesInstanceUID = f"{study}.1"
    found = sum(
        1 for status, _ in association.send_c_find(query, STUDY_ROOT) if status.Status == 0xFF00
    )
    association.release()
    return found


@dataclass
class Announcing:
    """A running SCP whose AE announces, and what it has staged."""

    site: Site
    study: Study
    directory: Path

    @property
    def files(self) -> list[Path]:
        """The files of the study, series by series."""
        return list(self.study.files.values())

    def trigger(self, *triggers: str, at: str = ARCHIVE_AE, **attributes: str) -> None:
        """Configure triggers and start the SCP."""
        lines = [f"dn: {at}", "changetype: modify", "replace: dcmIanTrigger"]
        lines += [f"dcmIanTrigger: {each}" for each in triggers]
        lines += ["-", "replace: dcmIanDestination"]
        lines += ["dcmIanDestination: IANSCP", "dcmIanDestination: QRSCP", "-"]
        for name, value in attributes.items():
            lines += [f"replace: {name}", f"{name}: {value}", "-"]
        self.site.configure("\n".join([*lines, ""]))
        self.site.start()

    def look(self) -> int:
        """Look at triggers once."""
        source = open_source(Settings.from_environment(self.site.environment))
        config = DeadlinesConfig(DEVICE)
        return Deadlines(self.site.ledger, source, SYSTEM_CLOCK, config=config).trigger_once()

    def look_until(self, count: int) -> None:
        """Look at triggers until so many notifications are staged."""

        def reached() -> bool:
            self.look()
            return len(self.staged()) >= count

        wait_until(reached, what=f"{count} notifications")

    def staged(self) -> list[Task]:
        """Return the notifications staged so far."""
        with self.site.ledger.statement() as tx:
            rows = tx.execute("SELECT pk FROM task WHERE kind = 'IAN' ORDER BY pk").fetchall()
            return [tasks.get(tx, pk) for (pk,) in rows]

    def step_of(self, task: Task) -> list[str]:
        """Return the procedure steps that a notification names."""
        return [
            str(each.ReferencedSOPInstanceUID)
            for each in self._sent(task).ReferencedPerformedProcedureStepSequence
        ]

    def announced(self, task: Task) -> dict[str, tuple[str, list[str]]]:
        """Return SOP Instance UID to availability and Retrieve AE Titles as it will be sent."""
        return {
            str(sop.ReferencedSOPInstanceUID): (
                str(sop.InstanceAvailability),
                [str(sop.RetrieveAETitle)],
            )
            for series in self._sent(task).ReferencedSeriesSequence
            for sop in series.ReferencedSOPSequence
        }

    def _sent(self, task: Task) -> Dataset:
        with self.site.ledger.transaction() as tx:
            fixed = notifications.load_or_fix(
                tx, task.pk, lambda details: fixed_notification(tx, task, details)
            )
        assert fixed is not None
        return Dataset.from_json(fixed.dataset_json)


@pytest.fixture
def announcing(site: Site, tmp_path: Path) -> Announcing:
    """An SCP to be configured, and a study of four objects to be sent to it."""
    (study,) = generate_studies(tmp_path / "objects", studies=1, series=2, instances=2)
    return Announcing(site, study, tmp_path)
