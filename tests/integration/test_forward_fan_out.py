"""Several retrieves of the same objects share one forwarded C-MOVE (design decision 15)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fix_move import THROUGH, MoveSite, MoveTalk, Response, ScriptedArchive
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import wait_until

FE00 = 0xFE00


def followers(moves: MoveSite) -> int:
    """Return how many retrieves are under way."""
    return sum(task.status == "IN PROCESS" for task in moves.tasks())


def joined(moves: MoveSite, archive: ScriptedArchive, study: Study) -> list[Response]:
    """Retrieve a study and, while it is fetched, its second series for another destination."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(moves.client("A").study, study)
        wait_until(lambda: archive.talks, what="the forwarded C-MOVE")
        second = pool.submit(
            moves.client("B").move,
            "SECOND",
            QueryRetrieveLevel="SERIES",
            StudyInstanceUID=study.study_instance_uid,
            SeriesInstanceUID=f"{study.study_instance_uid}.2",
        )
        return [first.result(), second.result()]


def check_delivered(study: Study, whole: StoreScp, part: StoreScp) -> None:
    """Check that one destination has a study and the other one its second series."""
    series = f"{study.study_instance_uid}.2."
    assert sorted(whole.received_uids()) == sorted(study.files)
    assert sorted(part.received_uids()) == sorted(u for u in study.files if u.startswith(series))


def test_one_flight_for_all_destinations(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    peers = [moves.destination(title) for title in ("STORESCP", "SECOND", "THIRD")]
    study = moves.study(instances=5)
    moves.purge(study)
    files = list(study.files.values())

    def when_all_wait(talk: MoveTalk) -> None:
        talk.send(files[:2])
        talk.wait(lambda: followers(moves) == 3, "three retrieves")
        talk.send(files[2:])
        talk.respond(0, (None, 5, 0, 0))

    archive = moves.archive(when_all_wait)
    with ThreadPoolExecutor(3) as pool:
        clients = [moves.client(f"VIEWER{number}") for number in range(3)]
        running = [
            pool.submit(client.study, study, destination=peer.title)
            for client, peer in zip(clients, peers, strict=True)
        ]
        finals = [each.result() for each in running]
    assert [final.status for final in finals] == [0, 0, 0], [final.comment for final in finals]
    assert [final.counts for final in finals] == [(None, 5, 0, 0)] * 3
    for peer in peers:
        assert sorted(peer.received_uids()) == sorted(study.files)
    assert len(archive.talks) == 1
    assert not archive.errors


def test_a_series_joins_the_flight_of_its_study(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    whole, part = moves.destination("STORESCP"), moves.destination("SECOND")
    study = moves.study(series=2, instances=2)
    moves.purge(study)
    files = list(study.files.values())

    def when_both_wait(talk: MoveTalk) -> None:
        talk.wait(lambda: followers(moves) == 2, "two retrieves")
        talk.deliver(files)

    archive = moves.archive(when_both_wait)
    assert [each.counts for each in joined(moves, archive, study)] == [
        (None, 4, 0, 0),
        (None, 2, 0, 0),
    ]
    check_delivered(study, whole, part)
    assert (len(archive.talks), archive.errors) == (1, [])


def test_a_series_joins_the_flight_of_an_unknown_study(moves: MoveSite, tmp_path: Path) -> None:
    """The counters of the flight are those of the study."""
    moves.set(dcmFallbackCMoveSCP="QRSCP", dcmFallbackCMoveSCPDestination="DCM4CHEE")
    whole, part = moves.destination("STORESCP"), moves.destination("SECOND")
    (study,) = generate_studies(tmp_path / "o", studies=1, series=2, instances=2, root="1.2.7.5")
    files = list(study.files.values())

    def when_both_wait(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.wait(lambda: followers(moves) == 2, "two retrieves")
        talk.deliver(files)

    archive = moves.archive(when_both_wait)
    answers = [(each.status, each.counts) for each in joined(moves, archive, study)]
    assert answers == [(0, (None, 4, 0, 0)), (0, (None, 2, 0, 0))]
    check_delivered(study, whole, part)
    assert (len(archive.talks), archive.errors) == (1, [])


def test_the_others_ask_again_when_the_first_gives_up(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    _, patient = moves.destination("STORESCP"), moves.destination("SECOND")
    study = moves.study(instances=4)
    files = list(study.files.values())
    moves.purge(study)
    joined = threading.Event()

    def until_canceled(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.wait(lambda: followers(moves) == 2, "two retrieves")
        joined.set()
        talk.wait_for_cancel()
        talk.respond(FE00, (3, 1, 0, 0))

    archive = moves.archive(until_canceled, lambda talk: talk.deliver(files))

    def cancel_later(association: object) -> None:
        joined.wait(20)
        association.send_c_cancel(1, 1)  # type: ignore[attr-defined]

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(moves.client("HASTY").study, study, started=cancel_later)
        wait_until(lambda: archive.talks, what="the forwarded C-MOVE")
        second = pool.submit(moves.client("PATIENT").study, study, destination="SECOND")
        assert first.result().status == FE00
        final = second.result()
    assert (final.status, final.counts) == (0, (None, 4, 0, 0)), final.comment
    assert sorted(patient.received_uids()) == sorted(study.files)
    assert (len(archive.talks), archive.errors) == (2, [])
