"""C-MOVE of what is not known here: dcmFallbackCMoveSCP and dcmAltCMoveSCP (decision 14)."""

from pathlib import Path

import pytest

from tests.fix_move import THROUGH, MoveSite, MoveTalk
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import StoreScp

A702, A801 = 0xA702, 0xA801
FALLBACK = {"dcmFallbackCMoveSCP": "QRSCP"}
INTO_ARCHIVE = {**FALLBACK, "dcmFallbackCMoveSCPDestination": "DCM4CHEE"}


@pytest.fixture
def peer(moves: MoveSite) -> StoreScp:
    return moves.destination()


@pytest.fixture
def unknown(tmp_path: Path) -> Study:
    return generate_studies(tmp_path / "elsewhere", studies=1, instances=3, root="1.2.7.7")[0]


@pytest.mark.usefixtures("peer")
def test_unknown_without_fallback_is_an_empty_success(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    final = moves.client().move(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.99")
    assert (final.status, final.counts) == (0, (None, 0, 0, 0))
    (task,) = moves.wait_for_tasks()
    assert "no dcmFallbackCMoveSCP" in (task.outcome_message or "")


def test_unknown_through_the_fallback(moves: MoveSite, peer: StoreScp, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    archive = moves.archive(lambda talk: talk.deliver(list(unknown.files.values())))
    final = moves.client().study(unknown)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0)), final.comment
    assert sorted(peer.received_uids()) == sorted(unknown.files)
    assert archive.talks[0].destination == "DCM4CHEE"
    again = moves.client().study(unknown)
    assert (again.status, again.counts, len(archive.talks)) == (0, (None, 3, 0, 0), 1)


def test_unknown_by_the_fallback_as_a_proxy(
    moves: MoveSite, peer: StoreScp, unknown: Study
) -> None:
    moves.set(**FALLBACK, dcmFallbackCMoveSCPCallingAET="GATEWAY")
    archive = moves.archive(lambda talk: talk.deliver(list(unknown.files.values())))
    archive.destinations["STORESCP"] = peer.port
    final = moves.client().study(unknown)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0))
    assert archive.talks[0].calling_aet == "GATEWAY"
    assert moves.site.count("study") == 0


@pytest.mark.usefixtures("peer")
def test_unknown_there_too(moves: MoveSite, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    moves.archive(lambda talk: talk.respond(0, (None, 0, 0, 0)))
    final = moves.client().study(unknown)
    assert (final.status, final.counts) == (0, (None, 0, 0, 0))


@pytest.mark.usefixtures("peer")
def test_fallback_that_counts_more_than_arrives(moves: MoveSite, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    files = list(unknown.files.values())

    def boast(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.respond(0, (None, 3, 0, 0))

    moves.archive(boast)
    final = moves.client().study(unknown)
    assert (final.status, final.counts) == (0xB000, (None, 1, 2, 0))
    assert "1 arrived" in final.comment


@pytest.mark.usefixtures("peer")
def test_fallback_that_refuses(moves: MoveSite, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    moves.archive(lambda talk: talk.respond(A801))
    final = moves.client().study(unknown)
    assert (final.status, final.counts) == (A702, (None, 0, 0, 0))


@pytest.mark.usefixtures("peer")
def test_fallback_never_asks_the_requestor(moves: MoveSite, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    archive = moves.archive(lambda talk: talk.respond(0))
    final = moves.client("QRSCP").study(unknown)
    assert (final.status, final.counts) == (0, (None, 0, 0, 0))
    assert not archive.talks


@pytest.mark.usefixtures("peer")
def test_whole_patient_from_the_fallback(moves: MoveSite, unknown: Study) -> None:
    moves.set(**INTO_ARCHIVE)
    archive = moves.archive(lambda talk: talk.deliver(list(unknown.files.values())))
    final = moves.client().move(
        "STORESCP", "1.2.840.10008.5.1.4.1.2.1.2", QueryRetrieveLevel="PATIENT", PatientID="P1"
    )
    assert (final.status, final.counts) == (0, (None, 3, 0, 0)), final.comment
    assert archive.talks[0].identifier.PatientID == "P1"


def test_alternative_for_files_on_foreign_storages(moves: MoveSite, peer: StoreScp) -> None:
    moves.set(**THROUGH, dcmAltCMoveSCP="QRSCP")
    study = moves.study(instances=2)
    with moves.ledger.transaction() as tx:
        tx.execute("UPDATE location SET storage_id = 'foreign'")
    archive = moves.archive(lambda talk: talk.deliver(list(study.files.values())))
    archive.destinations["STORESCP"] = peer.port
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 2, 0, 0)), final.comment
    assert archive.talks[0].destination == "STORESCP"  # always as a proxy
    # asked by the alternative itself: what is not here is left out, or two would ask each other
    back = moves.client("QRSCP").study(study)
    assert (back.status, back.counts, len(archive.talks)) == (0, (None, 0, 0, 0), 1)


@pytest.mark.usefixtures("peer")
def test_nobody_holds_the_files(moves: MoveSite) -> None:
    study = moves.study(instances=2)
    moves.purge(study, None, force=True)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (A702, (None, 0, 2, 0))
    assert final.failed_uids == tuple(sorted(study.files))
