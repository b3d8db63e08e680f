"""Which key object selection documents reject what."""

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from scp.rejection import REJECTION_CODES, REVOCATION_CODES, read_rejection_note, rejection_note
from tests.fix_objects import Study
from tests.fix_reception import rejection_note as make_note

STUDY = Study("1.2.3", {"1.2.3.1.1": Path(), "1.2.3.1.2": Path(), "1.2.3.2.1": Path()})


@pytest.mark.parametrize(("value", "scheme"), REJECTION_CODES)
def test_codes_of_rejection(value: str, scheme: str) -> None:
    found = rejection_note(make_note(STUDY, "1.9", list(STUDY.files), value, scheme))
    assert found is not None
    assert (found.code, found.note_sop_instance_uid) == (f"{value},{scheme}", "1.9")
    assert found.sop_instance_uids == tuple(STUDY.files)
    assert (found.revokes, found.names_step) == (False, value == "113038")


@pytest.mark.parametrize(("value", "scheme"), REVOCATION_CODES)
def test_codes_of_revocation(value: str, scheme: str) -> None:
    found = rejection_note(make_note(STUDY, "1.9", list(STUDY.files), value, scheme))
    assert found is not None
    assert (found.revokes, found.sop_instance_uids) == (True, tuple(STUDY.files))


@pytest.mark.parametrize(("value", "scheme"), [("113000", "DCM"), ("113001", "99X")])
def test_other_titles_reject_nothing(value: str, scheme: str) -> None:
    assert rejection_note(make_note(STUDY, "1.9", list(STUDY.files), value, scheme)) is None


def test_other_studies_are_left_alone() -> None:
    note = make_note(STUDY, "1.9", list(STUDY.files))
    other = make_note(Study("1.2.4", {}), "1.9", ["1.2.4.1.1"])
    note.CurrentRequestedProcedureEvidenceSequence.extend(
        other.CurrentRequestedProcedureEvidenceSequence
    )
    found = rejection_note(note)
    assert found is not None
    assert found.sop_instance_uids == tuple(STUDY.files)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_encoded_notes(syntax: str) -> None:
    encoded = encode(make_note(STUDY, "1.9", ["1.2.3.1.1"]), syntax == ImplicitVRLittleEndian, True)
    assert encoded is not None
    found = read_rejection_note(encoded, syntax)
    assert found is not None
    assert found.sop_instance_uids == ("1.2.3.1.1",)


def test_no_title_at_all() -> None:
    assert rejection_note(Dataset()) is None
