"""Sub-operations of the archive's own C-MOVEs are answered before they are safe, nothing else is.

Whatever happens in between, nothing is called delivered that was not, and asking again brings it.
"""

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fix_move import THROUGH, MoveSite, MoveTalk
from tests.fix_objects import Study
from tests.fix_peer import StoreScp
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until

OBJECTS = 12


@pytest.fixture
def destination(moves: MoveSite) -> StoreScp:
    peer = StoreScp("STORESCP")
    peer.start()
    moves.peers.append(peer)
    moves.place("STORESCP", peer.port)
    moves.set(**THROUGH)
    return peer


@pytest.fixture
def study(moves: MoveSite, destination: StoreScp) -> Study:  # noqa: ARG001 - has to be there
    """A purged study of one series."""
    made = moves.study(instances=OBJECTS)
    moves.purge(made)
    return made


def start_victim(moves: MoveSite, checkpoint: str) -> tuple[RunningProcess, int]:
    """Start an SCP on a port of its own that ends itself by SIGKILL."""
    port = free_port()
    process = start_process(
        [sys.executable, "-m", "scp", "--port", str(port)],
        log=moves.directory / "victim.log",
        env={**moves.site.environment, "DICOMQ_CHECKPOINT": checkpoint},
    )
    moves.site.processes.append(process)
    wait_until(partial(listens, process.pid, port), what="the SCP")
    return process, port


def report(talk: MoveTalk, statuses: list[int | None]) -> None:
    """Count sub-operations as an archive does that believes each response."""
    done = statuses.count(0)
    failed = len(statuses) - done
    talk.respond(0xB000 if failed else 0, (None, done, failed, 0))


def deliver(talk: MoveTalk, *, files: list[Path]) -> None:
    report(talk, talk.send(files))


@pytest.mark.parametrize("checkpoint", ["scp.file-durable:KILL:4", "scp.committed:KILL:3"])
def test_scp_killed_in_the_middle(
    moves: MoveSite, destination: StoreScp, study: Study, checkpoint: str
) -> None:
    victim, port = start_victim(moves, checkpoint)
    files = list(study.files.values())
    answered: list[int | None] = []

    def to_the_victim(talk: MoveTalk) -> None:
        answered.extend(talk.send(files, port=port, patience_s=6))
        report(talk, answered)

    archive = moves.archive(to_the_victim, partial(deliver, files=files))
    final = moves.client().study(study)
    assert not archive.errors
    wait_until(lambda: not victim.is_alive(), what="the end of the process")
    arrived = moves.site.count("location")
    assert 0 < arrived < OBJECTS
    assert final.status == 0xB000, final
    assert final.counts == (None, arrived, OBJECTS - arrived, 0)
    assert len(destination.received_uids()) == arrived
    if "durable" in checkpoint:
        assert answered.count(0) > arrived, "the archive counts what is gone"
    moves.site.start()  # sweeps what the other one left behind
    again = moves.client().study(study)
    assert (again.status, again.counts) == (0, (None, OBJECTS, 0, 0)), again
    assert set(destination.received_uids()) == set(study.files)
    assert moves.site.count("location") == OBJECTS
    wait_until(lambda: len(moves.site.files()) == OBJECTS, what="files and rows to agree")
    assert not archive.errors


def test_scp_stopped_in_the_middle_makes_safe_what_was_answered(
    moves: MoveSite, study: Study
) -> None:
    victim, port = start_victim(moves, "scp.before-response:TERM:6")
    answered: list[int | None] = []

    def to_the_victim(talk: MoveTalk) -> None:
        answered.extend(talk.send(list(study.files.values()), port=port, patience_s=6))
        wait_until(lambda: not victim.is_alive(), what="the end of the process")
        report(talk, answered)

    archive = moves.archive(to_the_victim)
    final = moves.client().study(study)
    assert not archive.errors
    assert 6 <= answered.count(0) == moves.site.count("location")
    assert final.counts[1] == answered.count(0)


def test_own_sub_operations_are_answered_early(
    moves: MoveSite, study: Study, destination: StoreScp
) -> None:
    files = list(study.files.values())

    def while_nothing_can_be_indexed(talk: MoveTalk) -> None:
        statuses = talk.send(files[:2])
        association = talk.open(files)
        with moves.ledger.transaction() as tx:
            tx.execute("LOCK TABLE location IN SHARE MODE")
            statuses += talk.store(association, files[2:])
        association.release()
        report(talk, statuses)

    archive = moves.archive(while_nothing_can_be_indexed)
    final = moves.client().study(study)
    assert not archive.errors
    assert (final.status, final.counts) == (0, (None, OBJECTS, 0, 0))
    assert sorted(destination.received_uids()) == sorted(study.files)


def test_nothing_else_is_answered_early(moves: MoveSite, study: Study) -> None:
    """Each is in the index when it is answered: other senders, other requests, ended ones."""
    files = list(study.files.values())
    safe: list[int] = []

    def look() -> None:
        safe.append(moves.site.count("location"))

    def send(talk: MoveTalk) -> None:
        number = talk.message_id
        talk.send(files[:3], after_each=look, calling_aet="OTHER")
        talk.send(files[3:5], after_each=look, originator=None)
        talk.send(files[5:7], after_each=look, originator=("DCM4CHEE", number + 1))
        talk.send(files[7:9], after_each=look, originator=("OTHER", number))
        talk.respond(0, (None, 9, 0, 0))

    archive = moves.archive(send)
    moves.client().study(study)
    archive.talks[0].send(files[9:], after_each=look)
    assert not archive.errors
    assert safe == list(range(1, OBJECTS + 1))


@pytest.mark.parametrize("ending", ["release", "echo"])
def test_safe_before_anything_else_is_answered(
    moves: MoveSite, study: Study, ending: str, destination: StoreScp
) -> None:
    files = list(study.files.values())
    safe: list[int] = []

    def look() -> None:
        safe.append(moves.site.count("location"))

    def send(talk: MoveTalk) -> None:
        statuses = talk.send(files, after_echo=look if ending == "echo" else None)
        look()
        report(talk, statuses)

    archive = moves.archive(send)
    final = moves.client().study(study)
    assert not archive.errors
    assert set(safe) == {OBJECTS}
    assert (final.status, final.counts) == (0, (None, OBJECTS, 0, 0))
    assert sorted(destination.received_uids()) == sorted(study.files)


def test_object_that_cannot_be_indexed_is_not_called_delivered(
    moves: MoveSite, study: Study, destination: StoreScp
) -> None:
    uids = list(study.files)
    with moves.ledger.statement() as tx:
        tx.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no'; END $$"
        )
        row = tx.execute("SELECT pk FROM instance WHERE sop_instance_uid = %s", (uids[5],))
        (pk,) = row.fetchone() or (0,)
        tx.execute(
            "CREATE TRIGGER refused BEFORE INSERT ON location FOR EACH ROW"
            f" WHEN (NEW.instance_fk = {pk}) EXECUTE FUNCTION refuse()".encode()
        )
    archive = moves.archive(partial(deliver, files=list(study.files.values())))
    final = moves.client().study(study)
    assert not archive.errors
    assert final.status == 0xB000
    assert final.counts == (None, OBJECTS - 1, 1, 0)
    assert final.failed_uids == (uids[5],)
    assert sorted(destination.received_uids()) == sorted(set(uids) - {uids[5]})
    assert len(moves.site.files()) == OBJECTS - 1
    assert "scp.object-abandoned" in moves.site.log()
    assert uids[5] in moves.site.log()
