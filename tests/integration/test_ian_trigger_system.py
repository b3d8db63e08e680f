"""Triggers through the whole running system: what the notified AEs get, and in which order."""

from collections.abc import Callable
from pathlib import Path

from tests.fix_objects import generate_studies
from tests.fix_peer import IanScp
from tests.fix_reception import Modality, completion, procedure_step
from tests.fix_system import ARCHIVE_AE, System

TRIGGERS = f"""
dn: {ARCHIVE_AE}
changetype: modify
add: dcmIanTrigger
dcmIanTrigger: STUDY_RECEIVED
dcmIanTrigger: MPPS_RECEIVED
-
add: dcmIanDelay
dcmIanDelay: PT1S
-
add: dcmIanDestination
dcmIanDestination: IANSCP
dcmIanDestination: QRSCP
"""


def test_quiet_study_and_completed_step_are_announced_to_everybody(
    system: System, ian_scp: Callable[..., IanScp], tmp_path: Path
) -> None:
    first, second = ian_scp(), ian_scp("QRSCP")
    system.place_peer("IANSCP", first.port)
    system.place_peer("QRSCP", second.port)
    system.configure(TRIGGERS)
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=3)
    modality = Modality(system.port)
    modality.create("1.2.3.9", procedure_step(study))
    system.store_all(study.files)
    modality.change("1.2.3.9", completion(list(study.files)))
    for peer in (first, second):
        received = peer.wait_for(2)
        steps = [len(each.dataset.ReferencedPerformedProcedureStepSequence) for each in received]
        assert sorted(steps) == [0, 1]
        for each in received:
            (series,) = each.dataset.ReferencedSeriesSequence
            assert len(series.ReferencedSOPSequence) == 3
            assert {str(sop.RetrieveAETitle) for sop in series.ReferencedSOPSequence} == {
                "DCM4CHEE"
            }
    system.wait_until_idle()
    assert [task.status for task in system.tasks("IAN")] == ["COMPLETED"] * 4
