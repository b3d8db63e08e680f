"""Modality performed procedure steps (PS3.4 §F.7): what may be created and changed. Pure."""

from collections.abc import Iterator
from enum import StrEnum

from pydicom.dataset import Dataset

MODALITY_PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"


class StepStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


def status_of(dataset: Dataset) -> str:
    """Return Performed Procedure Step Status, empty when it is missing."""
    return str(dataset.get("PerformedProcedureStepStatus", "") or "")


def study_of(dataset: Dataset) -> str | None:
    """Return the Study Instance UID of the first scheduled step, None without one."""
    for item in dataset.get("ScheduledStepAttributesSequence", None) or ():
        uid = str(item.get("StudyInstanceUID", "") or "")
        if uid:
            return uid
    return None


def produced_instances(dataset: Dataset) -> tuple[str, ...]:
    """Return the SOP Instance UIDs that the performed series reference, each once.

    A performed series without a reference, or with an absent sequence, produced nothing.
    """
    return tuple(dict.fromkeys(_references(dataset)))


def _references(dataset: Dataset) -> Iterator[str]:
    for series in dataset.get("PerformedSeriesSequence", None) or ():
        for keyword in (
            "ReferencedImageSequence",
            "ReferencedNonImageCompositeSOPInstanceSequence",
        ):
            for item in series.get(keyword, None) or ():
                uid = str(item.get("ReferencedSOPInstanceUID", "") or "")
                if uid:
                    yield uid
