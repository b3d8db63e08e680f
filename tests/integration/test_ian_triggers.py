"""What makes an AE announce what it receives: objects and procedure steps."""

from pathlib import Path

import pytest

from archive.model.task import TaskKind
from tests.fix_objects import generate_studies
from tests.fix_peer import send_files
from tests.fix_process import wait_until
from tests.fix_reception import Announcing, Modality, completion, procedure_step
from tests.fix_system import ARCHIVE


def test_study_is_announced_once_when_it_is_quiet(announcing: Announcing) -> None:
    announcing.trigger("STUDY_RECEIVED", dcmIanDelay="PT1S")
    send_files(announcing.files, announcing.site.port)
    assert announcing.site.count("ian_trigger") == 1
    assert announcing.look() == 0
    announcing.look_until(2)
    first, second = announcing.staged()
    assert [first.remote_aet, second.remote_aet] == ["IANSCP", "QRSCP"]
    assert first.kind is TaskKind.IAN
    assert announcing.site.count("ian_trigger") == 0
    announced = announcing.announced(first)
    assert set(announced) == set(announcing.study.files)
    assert set(map(str, announced.values())) == {"('ONLINE', ['DCM4CHEE'])"}


def test_ignored_duplicates_trigger_nothing(announcing: Announcing) -> None:
    announcing.trigger("STUDY_RECEIVED", dcmIanDelay="PT0.1S")
    send_files(announcing.files, announcing.site.port)
    announcing.look_until(2)
    send_files(announcing.files, announcing.site.port)
    assert announcing.site.count("ian_trigger") == 0


def test_no_trigger_no_notification(announcing: Announcing) -> None:
    announcing.trigger("STUDY_RECEIVED")
    send_files(announcing.files, announcing.site.port)
    assert announcing.site.count("ian_trigger") == 0


def test_the_device_speaks_for_its_aes(announcing: Announcing) -> None:
    announcing.trigger("STUDY_RECEIVED", at=ARCHIVE, dcmIanDelay="PT0.1S")
    send_files(announcing.files, announcing.site.port)
    announcing.look_until(2)
    assert [each.remote_aet for each in announcing.staged()] == ["IANSCP", "QRSCP"]


def test_first_object_announces_at_once_and_only_once(announcing: Announcing) -> None:
    announcing.trigger("FIRST_OBJECT_OF_STUDY_RECEIVED")
    send_files(announcing.files, announcing.site.port)
    assert [each.remote_aet for each in announcing.staged()] == ["IANSCP", "QRSCP"]


def test_procedure_step_waits_for_its_objects(announcing: Announcing) -> None:
    announcing.trigger("MPPS_RECEIVED")
    modality = Modality(announcing.site.port)
    assert modality.create("1.2.3.9", procedure_step(announcing.study)) == 0x0000
    uids = list(announcing.study.files)
    assert modality.change("1.2.3.9", completion(uids[:3])) == 0x0000
    send_files(announcing.files[:2], announcing.site.port)
    assert announcing.look() == 0
    send_files(announcing.files[2:], announcing.site.port)
    assert announcing.look() == 1
    task = announcing.staged()[0]
    assert set(announcing.announced(task)) == set(uids[:3])
    with announcing.site.ledger.statement() as tx:
        row = tx.execute("SELECT mpps_sop_instance_uid FROM ian_task LIMIT 1").fetchone()
    assert row == ("1.2.3.9",)


@pytest.mark.parametrize(("on_timeout", "staged"), [("TRUE", 2), ("FALSE", 0)])
def test_time_out_of_a_procedure_step(announcing: Announcing, on_timeout: str, staged: int) -> None:
    announcing.trigger("MPPS_RECEIVED", dcmIanTimeout="PT0.1S", dcmIanOnTimeout=on_timeout)
    modality = Modality(announcing.site.port)
    modality.create("1.2.3.9", procedure_step(announcing.study))
    send_files(announcing.files[:1], announcing.site.port)
    modality.change("1.2.3.9", completion(list(announcing.study.files)))
    wait_until(announcing.look, what="the time-out")
    assert len(announcing.staged()) == staged
    assert announcing.site.count("ian_trigger") == 0


def test_discontinued_steps_announce_nothing(announcing: Announcing) -> None:
    announcing.trigger("MPPS_RECEIVED")
    modality = Modality(announcing.site.port)
    modality.create("1.2.3.9", procedure_step(announcing.study))
    uids = list(announcing.study.files)
    assert modality.change("1.2.3.9", completion(uids, "DISCONTINUED")) == 0x0000
    assert announcing.site.count("ian_trigger") == 0


def test_procedure_step_of_several_studies_is_announced_for_each(
    announcing: Announcing, tmp_path: Path
) -> None:
    announcing.trigger("MPPS_RECEIVED")
    (other,) = generate_studies(tmp_path / "other", studies=1, instances=2, root="1.2.826.0.1.8")
    modality = Modality(announcing.site.port)
    modality.create("1.2.3.9", procedure_step(announcing.study, other))
    modality.change("1.2.3.9", completion([*announcing.study.files, *other.files]))
    send_files(announcing.files, announcing.site.port)
    assert announcing.look() == 0
    send_files(list(other.files.values()), announcing.site.port)
    assert announcing.look() == 1
    told = {
        (task.remote_aet, task.study_instance_uid): set(announcing.announced(task))
        for task in announcing.staged()
    }
    of_each = {announcing.study.study_instance_uid: set(announcing.study.files)}
    of_each[other.study_instance_uid] = set(other.files)
    assert told == {
        (title, study): uids for title in ("IANSCP", "QRSCP") for study, uids in of_each.items()
    }
    assert {step for task in announcing.staged() for step in announcing.step_of(task)} == {
        "1.2.3.9"
    }


def test_procedure_step_without_a_study_is_announced_all_the_same(announcing: Announcing) -> None:
    announcing.trigger("MPPS_RECEIVED")
    modality = Modality(announcing.site.port)
    assert modality.create("1.2.3.9", procedure_step()) == 0x0000
    assert modality.change("1.2.3.9", completion(list(announcing.study.files))) == 0x0000
    send_files(announcing.files, announcing.site.port)
    assert announcing.look() == 1
    assert {each.study_instance_uid for each in announcing.staged()} == {
        announcing.study.study_instance_uid
    }
