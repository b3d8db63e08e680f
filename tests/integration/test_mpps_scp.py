"""Procedure steps: what may be created, changed, and no longer changed (PS3.4 §F.7.2)."""

from pathlib import Path

import pytest
from pydicom import Dataset

from tests.fix_objects import Study
from tests.fix_reception import Modality, completion, procedure_step
from tests.fix_scp import Site

STUDY = Study("1.2.3", {"1.2.3.1.1": Path()})
UID = "1.2.3.4.5"


def _without_status() -> Dataset:
    dataset = procedure_step(STUDY)
    del dataset.PerformedProcedureStepStatus
    return dataset


def _stored(site: Site) -> tuple[str, str | None, dict[str, object]]:
    with site.ledger.statement() as tx:
        row = tx.execute("SELECT status, study_instance_uid, attributes FROM mpps").fetchone()
    assert row is not None
    return row


def test_life_of_a_procedure_step(scp: Site) -> None:
    modality = Modality(scp.port)
    assert modality.create(UID, procedure_step(STUDY)) == 0x0000
    assert _stored(scp)[:2] == ("IN PROGRESS", "1.2.3")
    change = Dataset()
    change.PerformedProcedureStepDescription = "Abdomen"
    assert modality.change(UID, change) == 0x0000
    assert modality.change(UID, completion(["1.2.3.1.1"])) == 0x0000
    status, _, attributes = _stored(scp)
    assert status == "COMPLETED"
    assert attributes["00400254"] == {"vr": "LO", "Value": ["Abdomen"]}
    assert attributes["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert modality.change(UID, change) == 0x0110
    assert "may no longer be updated" in scp.log()


def test_statuses_of_creation(scp: Site) -> None:
    modality = Modality(scp.port)
    assert modality.create(UID, _without_status()) == 0x0120
    assert modality.create(UID, procedure_step(STUDY, status="COMPLETED")) == 0x0106
    assert modality.create(UID, procedure_step(STUDY)) == 0x0000
    assert modality.create(UID, procedure_step(STUDY)) == 0x0111
    assert scp.count("mpps") == 1


@pytest.mark.parametrize(
    ("uid", "change", "status"),
    [
        ("1.2.9", completion([]), 0x0112),
        (UID, completion([], "DONE"), 0x0106),
        (UID, completion([], "DISCONTINUED"), 0x0000),
    ],
)
def test_statuses_of_changes(scp: Site, uid: str, change: Dataset, status: int) -> None:
    modality = Modality(scp.port)
    modality.create(UID, procedure_step(STUDY))
    assert modality.change(uid, change) == status
