"""What goes wrong around a forwarded C-MOVE: each deviation with exactly one final response."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fix_move import THROUGH, MoveSite, MoveTalk, Response, Script
from tests.fix_objects import Study
from tests.fix_peer import StoreScp
from tests.fix_process import free_port

A702, A801, B000, FE00, FF00 = 0xA702, 0xA801, 0xB000, 0xFE00, 0xFF00


@pytest.fixture
def peer(moves: MoveSite) -> StoreScp:
    """The move destination."""
    return moves.destination()


def purged(moves: MoveSite, **shape: int) -> tuple[Study, list[Path]]:
    """Return a study whose files are with QRSCP only."""
    study = moves.study(**shape)
    report = moves.purge(study)
    assert report.study.refusal is None
    return study, list(study.files.values())


def uids(study: Study) -> tuple[str, ...]:
    return tuple(sorted(study.files))


def sending(files: Sequence[Path], **how: object) -> Script:
    """Return the script of an archive that does all that is asked."""
    return lambda talk: talk.deliver(files, **how)


def refused(moves: MoveSite, study: Study) -> Response:
    """Retrieve a study of two objects, neither of which can be delivered."""
    final = moves.client().study(study)
    assert (final.status, final.counts) == (A702, (None, 0, 2, 0))
    assert final.failed_uids == uids(study)
    return final


# --- everything as it should be


def test_as_documented(moves: MoveSite, peer: StoreScp) -> None:
    moves.set(**THROUGH)
    study, files = purged(moves, instances=3)
    archive = moves.archive(sending(files))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0)), moves.site.log()
    assert sorted(peer.received_uids()) == list(uids(study))
    (talk,) = archive.talks
    assert (talk.calling_aet, talk.destination) == ("DCM4CHEE", "DCM4CHEE")
    assert talk.identifier.StudyInstanceUID == study.study_instance_uid
    assert not archive.errors


# --- the destination


def test_unknown_destination_is_refused_before_anything_is_forwarded(moves: MoveSite) -> None:
    study, files = purged(moves)
    archive = moves.archive(sending(files))
    final = moves.client().study(study, destination="NOWHERE")
    assert final.status == A801
    assert "NOWHERE" in final.comment
    assert not archive.talks
    assert not moves.tasks()


def test_destination_down(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    moves.place("STORESCP", free_port())
    study, files = purged(moves, instances=3)
    moves.archive(sending(files))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (A702, (None, 0, 3, 0))
    assert final.failed_uids == uids(study)
    assert "cannot connect to STORESCP" in final.comment
    assert moves.site.count("location") == 3  # fetched and kept all the same


# --- the other archive does not come about


@pytest.mark.usefixtures("peer")
def test_archive_not_in_the_directory(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study = moves.study(instances=2)
    moves.purge(study, "STORESCP")
    for uid in study.files:
        moves.forget_file(uid, "GONE")
    final = refused(moves, study)
    assert "GONE" in final.comment


@pytest.mark.usefixtures("peer")
def test_archive_down(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    moves.place("QRSCP", free_port())
    study, _ = purged(moves, instances=2)
    final = refused(moves, study)
    assert "cannot connect to QRSCP" in final.comment


@pytest.mark.usefixtures("peer")
def test_archive_accepts_and_says_nothing(moves: MoveSite, raw_peer: object) -> None:
    moves.set(**THROUGH)
    moves.limits(dcmRetrieveTimeout="1000")
    study, _ = purged(moves, instances=2)

    def mute(connection: object) -> None:
        connection.accept()  # type: ignore[attr-defined]
        connection.hold()  # type: ignore[attr-defined]

    moves.place("QRSCP", raw_peer(mute).port)  # type: ignore[operator]
    final = moves.client().study(study)
    assert (final.status, final.counts) == (A702, (None, 0, 2, 0))
    assert "QRSCP" in final.comment


@pytest.mark.usefixtures("peer")
def test_archive_does_not_know_this_one(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, _ = purged(moves, instances=2)
    moves.archive(lambda talk: talk.respond(A801, comment="who is that"))
    final = moves.client().study(study)
    # its A801 is about us: relayed, it would tell the requestor that its own destination is unknown
    assert (final.status, final.counts) == (A702, (None, 0, 2, 0))
    assert final.failed_uids == uids(study)
    assert "QRSCP: A801" in final.comment


# --- the other archive does less than it says


@pytest.mark.usefixtures("peer")
def test_success_with_nothing_delivered(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, _ = purged(moves, instances=2)
    moves.archive(lambda talk: talk.respond(0))
    assert refused(moves, study).status == A702


@pytest.mark.usefixtures("peer")
def test_some_of_the_objects_fail_there(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, files = purged(moves, instances=5)
    lost = sorted(study.files)[:2]

    def partly(talk: MoveTalk) -> None:
        talk.send([path for path in files if path.stem not in lost])
        talk.respond(B000, (None, 3, 2, 0), failed_uids=lost)

    moves.archive(partly)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 3, 2, 0))
    assert final.failed_uids == tuple(lost)


@pytest.mark.usefixtures("peer")
def test_dies_on_the_way(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, files = purged(moves, instances=4)

    def die(talk: MoveTalk) -> None:
        talk.send(files[:3])
        talk.respond(FF00, (1, 3, 0, 0))
        talk.assoc.abort()

    moves.archive(die)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 3, 1, 0))
    assert final.failed_uids == (files[3].stem,)


@pytest.mark.usefixtures("peer")
def test_releases_without_a_final_response(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, files = purged(moves, instances=2)

    def leave(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.assoc.release()

    moves.archive(leave)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 1, 1, 0))


@pytest.mark.usefixtures("peer")
def test_pending_for_ever(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    moves.limits(dcmRetrieveTimeout="500")
    study, files = purged(moves, instances=2)

    def dawdle(talk: MoveTalk) -> None:
        talk.send(files[:1])
        while talk.assoc.dul.is_alive() and talk.assoc.is_established:
            talk.respond(FF00, (1, 1, 0, 0))
            talk.assoc.dul.join(0.2)

    moves.archive(dawdle)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 1, 1, 0))
    assert "no progress" in final.comment


# --- telling to which C-MOVE an object belongs


@pytest.mark.parametrize(
    ("how", "mapping"),
    [
        ({"originator": None}, {}),
        (
            {"originator": None, "calling_aet": "GATEWAY"},
            {"dcmCStoreSCUOfCMoveSCP": "GATEWAY=QRSCP"},
        ),
        ({"originator": ("SOMEBODY", 1)}, {}),
        ({"calling_aet": "OTHER_TITLE"}, {}),
    ],
    ids=["no originator", "map of calling titles", "wrong originator", "other calling title"],
)
def test_objects_are_recognised(
    moves: MoveSite, peer: StoreScp, how: dict[str, object], mapping: dict[str, str]
) -> None:
    moves.set(**THROUGH, **mapping)
    study, files = purged(moves, instances=3)
    moves.archive(sending(files, **how))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0))
    assert sorted(peer.received_uids()) == list(uids(study))


def test_objects_that_are_here_already_are_passed_on(moves: MoveSite, peer: StoreScp) -> None:
    """An ignored duplicate is a delivery: here the files come back while the C-MOVE runs."""
    moves.set(**THROUGH)
    study, files = purged(moves, instances=3)

    def twice(talk: MoveTalk) -> None:
        talk.send(files, originator=None, calling_aet="MODALITY")
        talk.deliver(files)

    moves.archive(twice)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0))
    assert sorted(peer.received_uids()) == list(uids(study))  # each once


@pytest.mark.usefixtures("peer")
def test_objects_that_come_after_the_final_response(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study, files = purged(moves, instances=2)

    def late(talk: MoveTalk) -> None:
        talk.respond(0, (None, 2, 0, 0))
        talk.send(files)

    moves.archive(late)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 2, 0, 0))


def test_only_what_is_missing_is_asked_for(moves: MoveSite, peer: StoreScp) -> None:
    moves.set(**THROUGH)
    study = moves.study(series=2, instances=2)
    missing = sorted(study.files)[:2]
    for uid in missing:
        moves.forget_file(uid, "QRSCP")
    archive = moves.archive(sending([study.files[uid] for uid in missing]))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 4, 0, 0))
    assert sorted(peer.received_uids()) == list(uids(study))
    (talk,) = archive.talks
    assert talk.identifier.QueryRetrieveLevel == "SERIES"
    assert talk.identifier.SeriesInstanceUID == f"{study.study_instance_uid}.1"


def test_archive_down_does_not_keep_the_rest_from_being_sent(
    moves: MoveSite, peer: StoreScp
) -> None:
    moves.set(**THROUGH)
    moves.place("QRSCP", free_port())
    study = moves.study(instances=4)
    missing = sorted(study.files)[:1]
    moves.forget_file(missing[0], "QRSCP")
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 3, 1, 0))
    assert final.failed_uids == tuple(missing)
    assert len(peer.received_uids()) == 3


# --- cancel


@pytest.mark.usefixtures("peer")
def test_cancel_is_relayed(moves: MoveSite) -> None:
    moves.set(**THROUGH, dcmSendPendingCMoveInterval="PT1S")
    study, files = purged(moves, instances=4)

    def until_canceled(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.respond(FF00, (3, 1, 0, 0))
        talk.wait_for_cancel()
        talk.respond(FE00, (3, 1, 0, 0))

    archive = moves.archive(until_canceled)
    final = moves.client().study(study, on_response=_cancel_after_one)
    assert (final.status, final.counts) == (FE00, (3, 1, 0, 0))
    assert not archive.errors
    assert [task.status for task in moves.wait_for_tasks()] == ["CANCELED"]


def test_cancel_of_a_proxied_move(moves: MoveSite, peer: StoreScp) -> None:
    moves.set(dcmSendPendingCMoveInterval="PT1S")
    study, files = purged(moves, instances=4)

    def until_canceled(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.respond(FF00, (3, 1, 0, 0))
        talk.wait_for_cancel()
        talk.respond(FE00, (3, 1, 0, 0))

    archive = moves.archive(until_canceled)
    archive.destinations["STORESCP"] = peer.port
    final = moves.client().study(study, on_response=_cancel_after_one)
    assert (final.status, final.counts) == (FE00, (3, 1, 0, 0))
    assert not archive.errors


@pytest.mark.usefixtures("peer")
def test_cancel_at_an_archive_that_does_not_listen(moves: MoveSite) -> None:
    moves.set(**THROUGH, dcmSendPendingCMoveInterval="PT1S")
    moves.limits(dcmResponseTimeout="1000")
    study, files = purged(moves, instances=3)

    def deaf(talk: MoveTalk) -> None:
        talk.send(files[:1])
        talk.assoc.dul.join(15)

    moves.archive(deaf)
    final = moves.client().study(study, on_response=_cancel_after_one)
    assert (final.status, final.counts) == (FE00, (2, 1, 0, 0))


def _cancel_after_one(association: object, response: object) -> None:
    if response.status == FF00 and response.counts[1] == 1:  # type: ignore[attr-defined]
        association.send_c_cancel(1, 1)  # type: ignore[attr-defined]


# --- proxy


def test_proxy_carries_the_original_destination(moves: MoveSite, peer: StoreScp) -> None:
    study, files = purged(moves, instances=3)
    archive = moves.archive(sending(files))
    archive.destinations["STORESCP"] = peer.port
    final = moves.client("VIEWER").study(study, message_id=77)
    assert (final.status, final.counts) == (0, (None, 3, 0, 0))
    (talk,) = archive.talks
    assert (talk.calling_aet, talk.message_id, talk.destination) == ("VIEWER", 77, "STORESCP")
    assert moves.site.count("location") == 0


@pytest.mark.usefixtures("peer")
def test_proxy_relays_a_refusal(moves: MoveSite) -> None:
    study, _ = purged(moves, instances=2)
    moves.archive(lambda talk: talk.respond(A801, comment="STORESCP unknown here"))
    final = moves.client().study(study)
    assert (final.status, final.comment) == (A801, "STORESCP unknown here")
    assert final.counts == (None, 0, 2, 0)


@pytest.mark.usefixtures("peer")
def test_proxy_relays_failures_with_their_uids(moves: MoveSite) -> None:
    study, _ = purged(moves, instances=3)
    lost = sorted(study.files)[:2]
    moves.archive(lambda talk: talk.respond(B000, (None, 1, 2, 0), failed_uids=lost))
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 1, 2, 0))
    assert final.failed_uids == tuple(lost)


@pytest.mark.usefixtures("peer")
def test_proxy_whose_archive_dies(moves: MoveSite) -> None:
    study, _ = purged(moves, instances=3)

    def die(talk: MoveTalk) -> None:
        talk.respond(FF00, (2, 1, 0, 0))
        talk.assoc.abort()

    moves.archive(die)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (B000, (None, 1, 2, 0))
