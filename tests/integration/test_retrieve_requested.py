"""Retrieve tasks: this archive as C-MOVE SCU."""

from functools import partial
from pathlib import Path

import pytest

from archive.errors import InvalidValueError
from archive.ledger import retrievals, tasks
from archive.ledger.retrievals import RetrieveProgress
from archive.model.task import Task, TaskStatus
from tests.fix_move import MoveSite, MoveTalk
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import wait_until
from workers.ordering import Entity
from workers.requesting import Requested, Requests, RetrieveOrder

B000, FE00, FF00 = 0xB000, 0xFE00, 0xFF00


@pytest.fixture
def elsewhere(tmp_path: Path) -> Study:
    """A study that is not in the archive."""
    (study,) = generate_studies(tmp_path / "elsewhere", studies=1, instances=3, root="1.2.7.7")
    return study


def ask(moves: MoveSite, study: Study, **order: object) -> Requested:
    requests = Requests(moves.ledger, moves.runtime.source, actor="test")
    wanted = RetrieveOrder("QRSCP", **order)  # type: ignore[arg-type]
    return requests.place(wanted, [Entity(study.study_instance_uid)])


def progress(moves: MoveSite, pk: int) -> RetrieveProgress:
    with moves.ledger.transaction() as tx:
        return retrievals.progress(tx, pk)


def ended(moves: MoveSite, pk: int) -> Task:
    def done() -> Task | None:
        with moves.ledger.transaction() as tx:
            task = tasks.get(tx, pk)
        return task if task.status.is_final or (task.status.is_waiting and task.failures) else None

    found = wait_until(done, what="the retrieve to end")
    assert found is not None
    return found


def test_into_the_archive(moves: MoveSite, elsewhere: Study) -> None:
    archive = moves.archive(lambda talk: talk.deliver(list(elsewhere.files.values())))
    (pk,) = ask(moves, elsewhere).staged
    task = ended(moves, pk)
    assert task.status is TaskStatus.COMPLETED, task.error_message
    assert "completed:3" in (task.outcome_message or "")
    assert moves.site.count("location") == 3
    assert archive.talks[0].destination == "DCM4CHEE"


def test_every_response_is_written_down(moves: MoveSite, elsewhere: Study) -> None:
    seen: list[tuple[int, int, int]] = []

    def step_by_step(talk: MoveTalk) -> None:
        for completed in range(3):
            talk.respond(FF00, (3 - completed, completed, 0, 0))
            talk.wait(partial(_counted, moves, seen, completed), "the counters")
        talk.respond(0, (None, 3, 0, 0))

    archive = moves.archive(step_by_step)
    (pk,) = ask(moves, elsewhere, destination_aet="STORESCP").staged
    assert ended(moves, pk).status is TaskStatus.COMPLETED
    assert not archive.errors
    assert seen == [(FF00, 3, 0), (FF00, 2, 1), (FF00, 1, 2)]
    final = progress(moves, pk)
    assert (final.is_settled, final.result.status, final.result.counts.completed) == (True, 0, 3)


def _counted(moves: MoveSite, seen: list[tuple[int, int, int]], completed: int) -> bool:
    (task,) = moves.tasks()
    result = progress(moves, task.pk).result
    if result.counts.completed != completed or result.status != FF00:
        return False
    seen.append((result.status, result.counts.remaining, result.counts.completed))
    return True


@pytest.mark.parametrize(
    ("status", "counts", "flags", "expected", "retried"),
    [
        (0, (None, 3, 0, 0), {}, TaskStatus.COMPLETED, False),
        (0, (None, 0, 0, 0), {}, TaskStatus.COMPLETED, False),
        (
            0,
            (None, 0, 0, 0),
            {"dcmRetrieveTaskWarningOnNoMatch": "TRUE"},
            TaskStatus.WARNING,
            False,
        ),
        (
            0,
            (None, 3, 0, 0),
            {"dcmRetrieveTaskWarningOnWarnings": "TRUE"},
            TaskStatus.COMPLETED,
            False,
        ),
        (
            0,
            (None, 2, 0, 1),
            {"dcmRetrieveTaskWarningOnWarnings": "TRUE"},
            TaskStatus.WARNING,
            False,
        ),
        (0, (None, 2, 0, 1), {}, TaskStatus.COMPLETED, False),
        (B000, (None, 2, 1, 0), {}, TaskStatus.WARNING, False),
        (B000, (None, 0, 3, 0), {}, TaskStatus.SCHEDULED_FOR_RETRY, True),
        (0xA702, (None, 0, 3, 0), {}, TaskStatus.SCHEDULED_FOR_RETRY, True),
        (0xA801, (None, None, None, None), {}, TaskStatus.FAILED, False),
        (FE00, (3, 0, 0, 0), {}, TaskStatus.SCHEDULED_FOR_RETRY, True),
    ],
)
def test_outcome(
    moves: MoveSite,
    elsewhere: Study,
    status: int,
    counts: tuple[int | None, ...],
    flags: dict[str, str],
    expected: TaskStatus,
    retried: bool,
) -> None:
    if flags:
        moves.set(**flags)
    moves.archive(lambda talk: talk.respond(status, counts))
    (pk,) = ask(moves, elsewhere).staged
    task = ended(moves, pk)
    assert (task.status, task.failures > 0 and task.status.is_waiting) == (expected, retried)


def test_cancel_sends_a_c_cancel_and_stays_canceled(moves: MoveSite, elsewhere: Study) -> None:
    def until_canceled(talk: MoveTalk) -> None:
        talk.respond(FF00, (2, 1, 0, 0))
        talk.wait_for_cancel()
        talk.respond(FE00, (2, 1, 0, 0))

    archive = moves.archive(until_canceled)
    (pk,) = ask(moves, elsewhere).staged
    wait_until(lambda: progress(moves, pk).result.status == FF00, what="a pending response")
    with moves.ledger.transaction() as tx:
        tasks.cancel(tx, pk, actor="test")
    assert ended(moves, pk).status is TaskStatus.CANCELED
    assert not archive.errors
    assert progress(moves, pk).result.status == FE00


def test_the_same_is_not_asked_for_twice(moves: MoveSite, elsewhere: Study) -> None:
    moves.archive(lambda talk: talk.respond(0xA702, (None, 0, 3, 0)))
    (pk,) = ask(moves, elsewhere).staged
    assert ended(moves, pk).status is TaskStatus.SCHEDULED_FOR_RETRY
    again = ask(moves, elsewhere)
    assert (again.staged, again.joined) == ((), (pk,))
    elsewhere_too = ask(moves, elsewhere, destination_aet="STORESCP")
    assert len(elsewhere_too.staged) == 1


def test_to_a_third_party(moves: MoveSite, elsewhere: Study) -> None:
    peer = StoreScp()
    peer.start()
    moves.peers.append(peer)
    archive = moves.archive(lambda talk: talk.deliver(list(elsewhere.files.values())))
    archive.destinations["STORESCP"] = peer.port
    (pk,) = ask(moves, elsewhere, destination_aet="STORESCP").staged
    assert ended(moves, pk).status is TaskStatus.COMPLETED
    assert sorted(peer.received_uids()) == sorted(elsewhere.files)


def test_unknown_archive_is_refused(moves: MoveSite, elsewhere: Study) -> None:
    requests = Requests(moves.ledger, moves.runtime.source, actor="test")
    with pytest.raises(InvalidValueError, match="no AE NOWHERE"):
        requests.place(RetrieveOrder("NOWHERE"), [Entity(elsewhere.study_instance_uid)])
