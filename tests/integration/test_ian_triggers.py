"""What makes an AE announce what it receives: objects, procedure steps, rejection notes."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger import deliveries, notifications, tasks
from archive.ledger.connection import Transaction
from archive.model.task import NewTask, Task, TaskKind
from tests.fix_objects import Study, generate_studies, write
from tests.fix_peer import send_files
from tests.fix_process import wait_until
from tests.fix_reception import Modality, completion, procedure_step, rejection_note
from tests.fix_scp import Site
from tests.fix_system import ARCHIVE, ARCHIVE_AE
from workers.deadlines import Deadlines, DeadlinesConfig
from workers.instance_availability import _fixed

DEVICE = "dcm4chee-arc"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"


@dataclass
class Announcing:
    """A running SCP whose AE announces, and what it has staged."""

    site: Site
    study: Study
    directory: Path

    @property
    def files(self) -> list[Path]:
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

    def announced(self, task: Task) -> dict[str, tuple[str, list[str]]]:
        """Return SOP Instance UID to availability and Retrieve AE Titles as it will be sent."""
        with self.site.ledger.transaction() as tx:
            fixed = notifications.load_or_fix(
                tx, task.pk, lambda details: _fixed(tx, task, details)
            )
        assert fixed is not None
        dataset = Dataset.from_json(fixed.dataset_json)
        return {
            str(sop.ReferencedSOPInstanceUID): (
                str(sop.InstanceAvailability),
                [str(sop.RetrieveAETitle)],
            )
            for series in dataset.ReferencedSeriesSequence
            for sop in series.ReferencedSOPSequence
        }


@pytest.fixture
def announcing(site: Site, tmp_path: Path) -> Announcing:
    """An SCP to be configured, and a study of four objects to be sent to it."""
    (study,) = generate_studies(tmp_path / "objects", studies=1, series=2, instances=2)
    return Announcing(site, study, tmp_path)


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


@pytest.mark.parametrize("status", ["DISCONTINUED"])
def test_discontinued_steps_announce_nothing(announcing: Announcing, status: str) -> None:
    announcing.trigger("MPPS_RECEIVED")
    modality = Modality(announcing.site.port)
    modality.create("1.2.3.9", procedure_step(announcing.study))
    assert modality.change("1.2.3.9", completion(list(announcing.study.files), status)) == 0x0000
    assert announcing.site.count("ian_trigger") == 0


def _find(port: int, level: str, study: str) -> int:
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


def test_rejected_instances_are_hidden_and_announced_as_gone(announcing: Announcing) -> None:
    announcing.trigger("REJECTION_NOTE_RECEIVED")
    study = announcing.study
    uids = list(study.files)
    send_files(announcing.files, announcing.site.port)
    assert announcing.staged() == []
    rejected = [uids[0], uids[2], uids[3]]
    note = write(rejection_note(study, "1.2.3.99", rejected), announcing.directory / "note.dcm")
    assert send_files([note], announcing.site.port).accepted == {"1.2.3.99"}
    port = announcing.site.port
    assert _find(port, "IMAGE", study.study_instance_uid) == 1
    assert _find(port, "SERIES", study.study_instance_uid) == 2
    task = announcing.staged()[0]
    announced = announcing.announced(task)
    gone = {uid for uid, (availability, _) in announced.items() if availability == "UNAVAILABLE"}
    assert gone == set(rejected)
    assert announced[uids[1]][0] == "ONLINE"
    with announcing.site.ledger.transaction() as tx:
        assert _to_export(tx, study) == {uids[1], "1.2.3.99"}
    send_files(announcing.files, port)
    assert _find(port, "IMAGE", study.study_instance_uid) == 1


def _to_export(tx: Transaction, study: Study) -> set[str]:
    new = NewTask(
        TaskKind.EXPORT, "Q", DEVICE, "DCM4CHEE", "X", study.study_instance_uid, exporter_id="E"
    )
    task = tasks.get(tx, tasks.stage(tx, new, actor="test"))
    return {each.sop_instance_uid for each in deliveries.instances_to_send(tx, task)}


def test_other_key_objects_reject_nothing(announcing: Announcing) -> None:
    announcing.trigger("REJECTION_NOTE_RECEIVED")
    study = announcing.study
    send_files(announcing.files, announcing.site.port)
    note = rejection_note(study, "1.2.3.99", list(study.files), code="113000")
    send_files([write(note, announcing.directory / "note.dcm")], announcing.site.port)
    assert announcing.staged() == []
    assert _find(announcing.site.port, "IMAGE", study.study_instance_uid) == 2
