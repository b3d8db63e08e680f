"""Why a waiting task does not run, in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archive.configuration.descriptors import Queue
from archive.model.gates import DestinationGate, Pause
from archive.model.schedule import Schedule
from archive.model.task import Task, TaskKind, TaskStatus
from workers.waiting import Gates, why_waiting

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
TASK = Task(
    pk=1,
    kind=TaskKind.EXPORT,
    queue_name="Export",
    device_name="arc",
    status=TaskStatus.SCHEDULED,
    created_time=NOW,
    updated_time=NOW,
    scheduled_time=NOW,
    attempt=0,
    failures=0,
    round=1,
    follow_up_only=False,
    cancel_requested=False,
    remote_aet="PACS",
)
QUEUE = Queue("Export")
PAUSE = Pause(NOW, "anna", "upgrade")
SILENT = DestinationGate("PACS", None, 3, "refused", NOW, 2, SOON)
CLOSED_HOUR = (NOW.astimezone().hour + 3) % 24


@pytest.mark.parametrize(
    ("task", "gates", "words"),
    [
        (TASK, Gates(QUEUE), "for a free worker of queue Export"),
        (TASK, Gates(replace(QUEUE, installed=False)), "is not installed (dicomInstalled)"),
        (TASK, Gates(QUEUE, PAUSE), "queue Export is paused since"),
        (TASK, Gates(QUEUE, PAUSE), "by anna: upgrade; resume it"),
        (TASK, Gates(QUEUE, None, DestinationGate("PACS", PAUSE)), "destination PACS is paused"),
        (TASK, Gates(QUEUE, None, SILENT), "could not be reached 3 times in a row (refused)"),
        (TASK, Gates(QUEUE, None, SILENT), "no attempt is made or counted"),
        (TASK, Gates(QUEUE, None, SILENT), "number 3 of which is sent at"),
        (
            replace(TASK, status=TaskStatus.SCHEDULED_FOR_RETRY),
            Gates(QUEUE, None, SILENT),
            "no attempt is made or counted",
        ),
        (TASK, Gates(QUEUE, None, DestinationGate("PACS", failures=1)), "for a free worker"),
        (replace(TASK, scheduled_time=SOON), Gates(QUEUE), "until it is due"),
        (replace(TASK, scheduled_time=SOON, failures=1), Gates(QUEUE), "until it is tried again"),
        (
            TASK,
            Gates(replace(QUEUE, schedule=Schedule.parse([f"hour={CLOSED_HOUR}"]))),
            "the window of queue Export (dcmSchedule) opens",
        ),
    ],
)
def test_reason(task: Task, gates: Gates, words: str) -> None:
    reason = why_waiting(task, gates, NOW)
    assert reason is not None
    assert words in reason


@pytest.mark.parametrize("status", [each for each in TaskStatus if not each.is_waiting])
def test_what_does_not_wait_has_no_reason(status: TaskStatus) -> None:
    assert why_waiting(replace(TASK, status=status), Gates(QUEUE, PAUSE), NOW) is None
