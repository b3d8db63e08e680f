"""Rejection notes: what they hide, what is announced of it, and how they are revoked."""

from collections.abc import Callable

import pytest
from pydicom import Dataset, dcmread

from archive.ledger import deliveries, tasks
from archive.ledger.connection import Transaction
from archive.model.task import NewTask, Task, TaskKind
from tests.fix_objects import Study, secondary_capture, write
from tests.fix_peer import send_files
from tests.fix_reception import (
    DEVICE,
    MPPS,
    Announcing,
    Modality,
    completion,
    count_found,
    procedure_step,
    rejecting,
)

REVOKE = ("REVOKE_REJECTION", "99DCM4CHEE")
WORKLIST = ("113038", "DCM")


@pytest.fixture
def holding(announcing: Announcing) -> Announcing:
    """An AE that announces rejections and holds a study of two series of two objects."""
    announcing.trigger("REJECTION_NOTE_RECEIVED")
    send_files(announcing.files, announcing.site.port)
    assert announcing.staged() == []
    return announcing


def reject(holding: Announcing, note: str, uids: list[str], *code: str) -> list[Task]:
    """Send a rejection note and return the notifications that it caused."""
    before = len(holding.staged())
    files = rejecting(holding.study, note, uids, holding.directory, *code)
    assert send_files(files, holding.site.port).accepted == {note}
    return holding.staged()[before:]


def found(holding: Announcing, level: str) -> int:
    return count_found(holding.site.port, level, holding.study.study_instance_uid)


def availability(holding: Announcing, task: Task) -> dict[str, str]:
    return {uid: each for uid, (each, _) in holding.announced(task).items()}


def to_export(tx: Transaction, study: Study) -> set[str]:
    new = NewTask(
        TaskKind.EXPORT, "Q", DEVICE, "DCM4CHEE", "X", study.study_instance_uid, exporter_id="E"
    )
    task = tasks.get(tx, tasks.stage(tx, new, actor="test"))
    return {each.sop_instance_uid for each in deliveries.instances_to_send(tx, task)}


def test_rejected_instances_are_hidden_and_announced_as_gone(holding: Announcing) -> None:
    uids = list(holding.study.files)
    rejected = [uids[0], uids[2], uids[3]]
    first, second = reject(holding, "1.2.3.99", rejected)
    assert [first.remote_aet, second.remote_aet] == ["IANSCP", "QRSCP"]
    assert (found(holding, "IMAGE"), found(holding, "SERIES")) == (1, 2)
    told = availability(holding, first)
    assert {uid for uid, each in told.items() if each == "UNAVAILABLE"} == set(rejected)
    assert told[uids[1]] == "ONLINE"
    with holding.site.ledger.transaction() as tx:
        assert to_export(tx, holding.study) == {uids[1], "1.2.3.99"}


def test_rejected_instances_that_are_sent_again_stay_hidden(holding: Announcing) -> None:
    uids = list(holding.study.files)
    reject(holding, "1.2.3.99", uids[1:])
    sent = send_files(holding.files, holding.site.port)
    assert sent.accepted == set(uids)
    changed = dcmread(holding.files[3])
    changed.PatientName = "Other^Name"
    write(changed, holding.files[3])
    send_files(holding.files[3:], holding.site.port)
    assert (found(holding, "IMAGE"), found(holding, "SERIES")) == (1, 2)
    with holding.site.ledger.transaction() as tx:
        assert to_export(tx, holding.study) == {uids[0], "1.2.3.99"}


def test_other_key_objects_reject_nothing(holding: Announcing) -> None:
    assert reject(holding, "1.2.3.99", list(holding.study.files), "113000", "DCM") == []
    assert found(holding, "IMAGE") == 2


def test_revoked_instances_are_visible_again_and_announced_online(holding: Announcing) -> None:
    uids = list(holding.study.files)
    reject(holding, "1.2.3.99", uids[1:])
    first, second = reject(holding, "1.2.3.98", uids[2:], *REVOKE)
    assert [first.remote_aet, second.remote_aet] == ["IANSCP", "QRSCP"]
    told = availability(holding, first)
    assert told == dict.fromkeys([uids[0], *uids[2:], "1.2.3.99", "1.2.3.98"], "ONLINE")
    assert (found(holding, "IMAGE"), found(holding, "SERIES")) == (1, 4)
    with holding.site.ledger.transaction() as tx:
        assert to_export(tx, holding.study) == {uids[0], *uids[2:], "1.2.3.99", "1.2.3.98"}
    reject(holding, "1.2.3.97", uids, *REVOKE)
    assert found(holding, "IMAGE") == 2
    with holding.site.ledger.statement() as tx:
        rows = tx.execute(
            "SELECT count(*) FROM instance WHERE rejection_code IS NOT NULL"
            " OR rejected_series_fk IS NOT NULL OR rejected_time IS NOT NULL"
        ).fetchone()
    assert rows == (0,)


def test_revocation_of_what_is_not_rejected_changes_and_announces_nothing(
    holding: Announcing,
) -> None:
    assert reject(holding, "1.2.3.98", list(holding.study.files), *REVOKE) == []
    assert (found(holding, "IMAGE"), found(holding, "SERIES")) == (2, 3)


def test_a_series_that_came_again_takes_its_revoked_instances_in(holding: Announcing) -> None:
    study, uids = holding.study, list(holding.study.files)
    reject(holding, "1.2.3.99", uids[:2])
    better = secondary_capture(study.study_instance_uid, 1, 3)
    send_files([write(better, holding.directory / "better.dcm")], holding.site.port)
    reject(holding, "1.2.3.98", [*uids[:2], str(better.SOPInstanceUID)])
    send_files(
        [
            write(
                secondary_capture(study.study_instance_uid, 1, 4),
                holding.directory / "best.dcm",
            )
        ],
        holding.site.port,
    )
    assert found(holding, "IMAGE") == 1
    reject(holding, "1.2.3.97", [*uids[:2], str(better.SOPInstanceUID)], *REVOKE)
    assert found(holding, "IMAGE") == 4
    with holding.site.ledger.statement() as tx:
        rows = tx.execute(
            "SELECT study_fk IS NOT NULL, rejected_study_fk FROM series"
            " WHERE series_instance_uid = %s",
            [f"{study.study_instance_uid}.1"],
        ).fetchall()
    assert rows == [(True, None)]


def test_rejection_without_its_trigger_is_not_announced(announcing: Announcing) -> None:
    announcing.trigger("STUDY_RECEIVED")
    send_files(announcing.files, announcing.site.port)
    uids = list(announcing.study.files)
    assert reject(announcing, "1.2.3.99", uids) == []
    assert reject(announcing, "1.2.3.98", uids, *REVOKE) == []
    assert found(announcing, "IMAGE") == 2


def test_a_note_causes_no_other_notification(announcing: Announcing) -> None:
    announcing.trigger(
        "STUDY_RECEIVED",
        "FIRST_OBJECT_OF_STUDY_RECEIVED",
        "REJECTION_NOTE_RECEIVED",
        dcmIanDelay="PT0.1S",
    )
    send_files(announcing.files, announcing.site.port)
    announcing.look_until(4)
    assert len(reject(announcing, "1.2.3.99", list(announcing.study.files)[:1])) == 2
    assert announcing.site.count("ian_trigger") == 0


# --- the performed procedure step of a wrong worklist entry


def _known_step(holding: Announcing) -> None:
    modality = Modality(holding.site.port)
    modality.create("1.2.3.9", procedure_step(Study("1.2.3.4.5", {}), holding.study))
    modality.change("1.2.3.9", completion(list(holding.study.files)))


def _step_named_by_the_objects(holding: Announcing) -> None:
    for path in holding.files:
        dataset = dcmread(path)
        step = Dataset()
        step.ReferencedSOPClassUID, step.ReferencedSOPInstanceUID = MPPS, "1.2.3.8"
        dataset.ReferencedPerformedProcedureStepSequence = [step]
        write(dataset, path)


def _nothing(_holding: Announcing) -> None:
    return None


@pytest.mark.parametrize(
    ("before", "after", "code", "steps"),
    [
        (_step_named_by_the_objects, _known_step, WORKLIST, ["1.2.3.8"]),
        (_nothing, _known_step, WORKLIST, ["1.2.3.9"]),
        (_nothing, _nothing, WORKLIST, []),
        (_step_named_by_the_objects, _known_step, ("113001", "DCM"), []),
    ],
    ids=["named by the series", "names the instances", "not known", "other reason"],
)
def test_wrong_worklist_entry_names_the_procedure_step(
    announcing: Announcing,
    before: Callable[[Announcing], None],
    after: Callable[[Announcing], None],
    code: tuple[str, str],
    steps: list[str],
) -> None:
    before(announcing)
    announcing.trigger("REJECTION_NOTE_RECEIVED")
    send_files(announcing.files, announcing.site.port)
    after(announcing)
    told = reject(announcing, "1.2.3.99", list(announcing.study.files)[:2], *code)
    assert [announcing.step_of(each) for each in told] == [steps, steps]
