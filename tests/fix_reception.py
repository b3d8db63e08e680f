"""Objects and procedure steps as a modality sends them, and an archive that announces them."""

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage
from pynetdicom import AE

from tests.fix_objects import Study

MPPS = "1.2.840.10008.3.1.2.3.3"


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


def procedure_step(study: Study, status: str = "IN PROGRESS") -> Dataset:
    """Return the attributes with which a modality creates a procedure step."""
    dataset = Dataset()
    scheduled = Dataset()
    scheduled.StudyInstanceUID = study.study_instance_uid
    dataset.ScheduledStepAttributesSequence = [scheduled]
    dataset.PatientName = "Test^Object"
    dataset.PatientID = "P1"
    dataset.PerformedProcedureStepID = "1"
    dataset.PerformedProcedureStepStatus = status
    dataset.PerformedSeriesSequence = []
    return dataset


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
