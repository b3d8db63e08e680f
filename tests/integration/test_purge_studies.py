"""Purging: what is dropped, what is refused, and what comes back."""

from tests.fix_move import MoveSite
from tests.fix_peer import send_files


def instance_rows(moves: MoveSite) -> set[tuple[str, str | None]]:
    with moves.ledger.transaction() as tx:
        rows = tx.execute("SELECT availability, external_retrieve_aet FROM instance").fetchall()
    return {(availability, aet) for availability, aet in rows}


def test_files_go_and_the_index_stays(moves: MoveSite) -> None:
    study = moves.study(series=2, instances=2)
    report = moves.purge(study, "QRSCP")
    assert (report.study.refusal, report.study.instances, report.kept_files) == (None, 4, ())
    assert not moves.site.files()
    assert (moves.site.count("instance"), moves.site.count("location")) == (4, 0)
    assert instance_rows(moves) == {("NEARLINE", "QRSCP")}


def test_refused_when_nobody_else_holds_the_objects(moves: MoveSite) -> None:
    study = moves.study(instances=3)
    report = moves.purge(study, None)
    assert "3 of its objects are not known to be held" in (report.study.refusal or "")
    assert len(moves.site.files()) == 3
    assert instance_rows(moves) == {("ONLINE", None)}


def test_what_another_archive_has_committed_may_go(moves: MoveSite) -> None:
    study = moves.study(instances=2)
    with moves.ledger.transaction() as tx:
        tx.execute("UPDATE instance SET external_retrieve_aet = 'LTA'")
    assert moves.purge(study, None).study.refusal is None
    assert instance_rows(moves) == {("NEARLINE", "LTA")}


def test_forced(moves: MoveSite) -> None:
    study = moves.study(instances=2)
    assert moves.purge(study, None, force=True).study.refusal is None
    assert instance_rows(moves) == {("UNAVAILABLE", None)}


def test_purged_object_that_comes_again_is_available_and_exported_only_once(
    moves: MoveSite,
) -> None:
    study = moves.study(instances=2)
    moves.purge(study, "QRSCP")
    sent = send_files(list(study.files.values()), moves.port, calling_aet="ANYBODY")
    assert set(sent.statuses.values()) == {0}
    assert (moves.site.count("instance"), moves.site.count("location")) == (2, 2)
    assert instance_rows(moves) == {("ONLINE", "QRSCP")}
    assert not moves.tasks()


def test_unknown_study(moves: MoveSite) -> None:
    study = moves.study()
    moves.purge(study, "QRSCP")
    again = moves.purge(study, "QRSCP")
    assert (again.study.refusal, again.study.instances) == (None, 0)
