"""What the overview says, and that Flower still has the marks at which we add to its pages."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import flower
import pytest

from archive.configuration.descriptors import Problem, Queue
from archive.configuration.source import Outage
from archive.ledger.commitments import CommitmentGauges
from archive.model.gates import DestinationGate, Pause, QueueLoad
from archive.model.schedule import Schedule
from archive.model.task import TaskStatus
from workers.gatekeeping import DestinationView, QueueView
from workers.monitor.overview import (
    commitment_notices,
    destination_notices,
    long_notices,
    outage_notices,
    problem_notices,
    queue_notices,
    task_notices,
)
from workers.monitor.template_loader import ADDITIONS
from workers.queues import PoolKind

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATE = NOW - timedelta(hours=2)
PAUSE = Pause(LATE, "otto", "upgrade")


def queue(load: QueueLoad, pause: Pause | None = None) -> QueueView:
    described = Queue("Export", schedule=Schedule.parse(()))
    return QueueView(described, PoolKind.EXPORT, load, pause, None)


@pytest.mark.parametrize(
    ("view", "tones", "words"),
    [
        (queue(QueueLoad("Export")), [], ""),
        (queue(QueueLoad("Export", waiting=1, due=1, oldest_due=NOW)), [], ""),
        (queue(QueueLoad("Export", waiting=1, due=1, oldest_due=LATE)), ["bad"], "kind export up"),
        (queue(QueueLoad("Export", in_flight=1, oldest_due=LATE)), ["warn"], "dcmMaxTasksParallel"),
        (queue(QueueLoad("Export", oldest_due=LATE), PAUSE), ["warn"], "otto: upgrade"),
    ],
)
def test_queues(view: QueueView, tones: list[str], words: str) -> None:
    found = queue_notices(view, NOW)

    assert [notice.tone for notice in found] == tones
    assert words in "".join(notice.advice for notice in found)


@pytest.mark.parametrize(
    ("view", "title"),
    [
        (DestinationView(DestinationGate("PACS"), 3, is_configured=True, exporter_ids=()), None),
        (
            DestinationView(DestinationGate("PACS"), 3, is_configured=False, exporter_ids=()),
            "PACS is not configured",
        ),
        (
            DestinationView(DestinationGate("PACS", PAUSE), 0, is_configured=True, exporter_ids=()),
            "PACS is paused since 2 h 0 min",
        ),
        (
            DestinationView(
                DestinationGate("PACS", failures=3, last_error="refused", tripped_time=LATE),
                7,
                is_configured=True,
                exporter_ids=(),
            ),
            "PACS cannot be reached since 2 h 0 min; 7 tasks wait",
        ),
    ],
)
def test_destinations(view: DestinationView, title: str | None) -> None:
    assert [notice.title for notice in destination_notices(view, NOW)] == [title] * bool(title)


def test_what_is_said_of_an_unreachable_destination() -> None:
    gate = DestinationGate("PACS", failures=3, last_error="refused", tripped_time=LATE)
    view = DestinationView(gate, 7, is_configured=True, exporter_ids=())
    [notice] = destination_notices(view, NOW)
    assert notice.advice == "refused. It is probed with C-ECHO and goes on by itself"


def test_tasks_commitments_and_configuration() -> None:
    counts = {TaskStatus.FAILED: 2, TaskStatus.WARNING: 1, TaskStatus.COMPLETED: 5}
    problems = (Problem("cn=x", "a", "is odd", "notice"), Problem("cn=y", "b", "is wrong"))

    assert [notice.tone for notice in task_notices(counts)] == ["bad", "warn"]
    assert task_notices({TaskStatus.COMPLETED: 5}) == []
    assert [notice.tone for notice in commitment_notices(CommitmentGauges(3, 2, 1))] == [
        "bad",
        "warn",
    ]
    assert commitment_notices(CommitmentGauges(3, 0, 0)) == []
    assert [notice.title for notice in problem_notices(problems)] == ["cn=y: b is wrong"]
    assert len(long_notices(1)) == 1
    assert long_notices(0) == []


@pytest.mark.parametrize("name", sorted(ADDITIONS))
def test_flower_has_our_marks(name: str) -> None:
    template = Path(flower.__file__).parent / "templates" / name

    assert ADDITIONS[name][0] in template.read_text(encoding="utf-8")


def test_an_unreachable_directory() -> None:
    assert outage_notices(None) == []
    (notice,) = outage_notices(Outage(LATE, "ldap://a: refused", copy_time=NOW))
    assert notice.tone == "bad"
    assert "ldap://a: refused (since 2026-11-21" in notice.advice
    assert "the local copy of 2026-11-21" in notice.advice
