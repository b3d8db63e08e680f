"""Rejection notes: key object selection documents that take instances out of use.

A note whose document title is one of the codes of CID 7011 (PS3.16) hides the instances that its
Current Requested Procedure Evidence Sequence names for the note's own study (IHE IOCM). One whose
title is dcm4chee's code for it takes a rejection back; IOCM knows no way to do that.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dsutils import decode

from archive.errors import DatasetError
from archive.model.entities import RejectionNote

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTION_CODES: Final = {
    ("113001", "DCM"): "Rejected for Quality Reasons",
    ("113037", "DCM"): "Rejected for Patient Safety Reasons",
    ("113038", "DCM"): "Incorrect Modality Worklist Entry",
    ("113039", "DCM"): "Data Retention Policy Expired",
}
REVOCATION_CODES: Final = {
    ("REVOKE_REJECTION", "99DCM4CHEE"): "Restore rejected Instances",
}
_INCORRECT_WORKLIST_ENTRY: Final = ("113038", "DCM")
_TITLES: Final = REJECTION_CODES.keys() | REVOCATION_CODES.keys()


def read_rejection_note(encoded: bytes, transfer_syntax_uid: str) -> RejectionNote | None:
    """Return what a key object selection document rejects or restores; None when it does neither.

    Parameters
    ----------
    encoded
        The whole data set.

    Raises
    ------
    DatasetError
        When it cannot be decoded: hiding nothing would be as wrong as hiding too much.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        dataset = decode(
            BytesIO(encoded),
            syntax.is_implicit_VR,
            syntax.is_little_endian,
            deflated=syntax.is_deflated,
        )
        return rejection_note(dataset)
    except (ValueError, AttributeError, TypeError, LookupError, OSError) as error:
        msg = f"the key object selection document cannot be decoded: {error}"
        raise DatasetError(msg) from error


def rejection_note(dataset: Dataset) -> RejectionNote | None:
    """Return what a decoded key object selection document rejects or restores."""
    titles = dataset.get("ConceptNameCodeSequence", None) or ()
    codes = [
        (str(each.get("CodeValue", "")), str(each.get("CodingSchemeDesignator", "")))
        for each in titles
    ]
    code = next((each for each in codes if each in _TITLES), None)
    if code is None:
        return None
    study = str(dataset.get("StudyInstanceUID", ""))
    return RejectionNote(
        code=f"{code[0]},{code[1]}",
        note_sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        sop_instance_uids=tuple(dict.fromkeys(_referenced(dataset, study))),
        revokes=code in REVOCATION_CODES,
        names_step=code == _INCORRECT_WORKLIST_ENTRY,
    )


def _referenced(dataset: Dataset, study_instance_uid: str) -> Iterator[str]:
    """Yield the SOP Instance UIDs that the evidence names for one study."""
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence", None) or ():
        if str(study.get("StudyInstanceUID", "")) != study_instance_uid:
            continue
        for series in study.get("ReferencedSeriesSequence", None) or ():
            for item in series.get("ReferencedSOPSequence", None) or ():
                yield str(item.get("ReferencedSOPInstanceUID", ""))
