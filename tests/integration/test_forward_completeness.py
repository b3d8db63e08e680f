"""C-MOVE of what may be missing here in part: the fallback archive is asked for the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset

from tests.fix_find_peer import FindScp
from tests.fix_move import MoveSite, MoveTalk
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import free_port

B000 = 0xB000
FALLBACK = {"dcmFallbackCMoveSCP": "QRSCP", "dcmFallbackCMoveSCPDestination": "DCM4CHEE"}


@pytest.fixture
def peer(moves: MoveSite) -> StoreScp:
    return moves.destination()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Four objects in two series."""
    return generate_studies(
        tmp_path / "elsewhere", studies=1, series=2, instances=2, root="1.2.7.8"
    )[0]


def store(moves: MoveSite, study: Study, count: int) -> list[Path]:
    """Put the first objects of a study into the archive; return the files of the others."""
    files = dict(sorted(study.files.items()))
    part = dict(list(files.items())[:count])
    moves.store(Study(study.study_instance_uid, part))
    return [path for uid, path in files.items() if uid not in part]


def deliver(files: list[Path], *, counted: int | None = None) -> Callable[[MoveTalk], None]:
    """Return a script that sends files and, if told to, boasts of more."""

    def script(talk: MoveTalk) -> None:
        talk.send(files)
        talk.respond(0, (None, len(files) if counted is None else counted, 0, 0))

    return script


def states(moves: MoveSite) -> list[tuple[str, str, int]]:
    """Return series suffix, state and failed retrieves of what was fetched."""
    with moves.ledger.statement() as tx:
        return tx.execute(
            "SELECT series_instance_uid, state, failed_retrieves FROM completeness ORDER BY 1"
        ).fetchall()


def test_what_is_missing_of_an_old_study_is_fetched_once(
    moves: MoveSite, peer: StoreScp, study: Study
) -> None:
    store(moves, study, 2)
    moves.set(**FALLBACK, dcmFallbackCMoveSCPStudyOlderThan="29990101")
    archive = moves.archive(deliver(list(study.files.values())))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 4, 0, 0)), final.comment
    assert sorted(peer.received_uids()) == sorted(study.files)  # each once
    assert states(moves) == [("", "COMPLETE", 0)]
    again = moves.client().study(study)
    assert (again.status, again.counts, len(archive.talks)) == (0, (None, 4, 0, 0), 1)


@pytest.mark.usefixtures("peer")
def test_a_young_study_is_taken_as_whole(moves: MoveSite, study: Study) -> None:
    store(moves, study, 2)
    moves.set(**FALLBACK, dcmFallbackCMoveSCPStudyOlderThan="19000101")
    archive = moves.archive(deliver([]))
    assert moves.client().study(study).counts == (None, 2, 0, 0)
    assert not archive.talks


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(("retries", "asked"), [("0", 1), ("1", 2), ("-1", 4)])
def test_retries(moves: MoveSite, study: Study, retries: str, asked: int) -> None:
    files = list(study.files.values())
    moves.set(**FALLBACK, dcmFallbackCMoveSCPRetries=retries)
    archive = moves.archive(deliver(files[:3], counted=4))
    for _ in range(4):
        final = moves.client().study(study)
        assert final.counts[1] == 3
    assert len(archive.talks) == asked
    assert states(moves) == [("", "PARTIAL", asked)]


def test_a_series_alone_leaves_its_study_unknown(
    moves: MoveSite, peer: StoreScp, study: Study
) -> None:
    moves.set(**FALLBACK)
    series = f"{study.study_instance_uid}.1"
    part = [path for uid, path in study.files.items() if uid.startswith(f"{series}.")]
    archive = moves.archive(deliver(part), deliver(list(study.files.values())))
    for _ in range(2):
        final = moves.client().move(
            QueryRetrieveLevel="SERIES",
            StudyInstanceUID=study.study_instance_uid,
            SeriesInstanceUID=series,
        )
        assert (final.status, final.counts) == (0, (None, 2, 0, 0)), final.comment
    assert len(archive.talks) == 1
    assert states(moves) == [("", "UNKNOWN", 0), (series, "COMPLETE", 0)]
    peer.received.clear()
    whole = moves.client().study(study)
    assert (whole.status, whole.counts) == (0, (None, 4, 0, 0)), whole.comment
    assert sorted(peer.received_uids()) == sorted(study.files)
    assert states(moves) == [("", "COMPLETE", 0)]


@pytest.mark.usefixtures("peer")
def test_one_of_two_studies_is_unknown(moves: MoveSite, tmp_path: Path) -> None:
    first, second = generate_studies(tmp_path / "two", studies=2, instances=2, root="1.2.7.9")
    moves.store(first)
    moves.set(**FALLBACK)
    archive = moves.archive(deliver([*first.files.values(), *second.files.values()]))
    uids = [first.study_instance_uid, second.study_instance_uid]
    final = moves.client().move(QueryRetrieveLevel="STUDY", StudyInstanceUID=uids)
    assert (final.status, final.counts) == (0, (None, 4, 0, 0)), final.comment
    assert len(archive.talks) == 1


@pytest.mark.usefixtures("peer")
def test_a_fallback_that_is_down_makes_it_a_warning(moves: MoveSite, study: Study) -> None:
    store(moves, study, 2)
    moves.set(**FALLBACK, dcmFallbackCMoveSCPStudyOlderThan="29990101")
    moves.place("QRSCP", free_port())
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 2, 0, 0))
    assert "QRSCP" in final.comment
    assert states(moves) == []  # nothing was learnt: it is asked again


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(("named", "state"), [(2, "COMPLETE"), (4, "PARTIAL")])
def test_the_leading_archive_knows_how_many(
    moves: MoveSite, study: Study, named: int, state: str
) -> None:
    found = Dataset()
    found.StudyInstanceUID = study.study_instance_uid
    found.NumberOfStudyRelatedInstances = named
    leading = FindScp([found], "LEADING")
    leading.start()
    moves.peers.append(leading)
    moves.place("LEADING", leading.port)
    moves.set(**FALLBACK, dcmFallbackCMoveSCPLeadingCFindSCP="LEADING")
    moves.archive(deliver(list(study.files.values())[:2]))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 2, 0, 0)), final.comment
    assert states(moves)[0][1] == state
