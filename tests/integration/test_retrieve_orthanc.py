"""Orthanc as the other archive: retrieve tasks, and C-MOVEs forwarded in both ways."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.ledger import tasks
from archive.model.task import Task, TaskStatus
from tests.fix_move import THROUGH, MoveSite
from tests.fix_objects import Study, generate_studies
from tests.fix_orthanc import Orthanc
from tests.fix_peer import StoreScp
from tests.fix_process import wait_until
from workers.ordering import Entity
from workers.requesting import Requests, RetrieveOrder


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Six objects in two series."""
    return generate_studies(tmp_path / "o", studies=1, series=2, instances=3, root="1.2.7.3")[0]


@pytest.fixture
def other(moves: MoveSite, orthanc: Callable[[int], Orthanc], study: Study) -> Orthanc:
    """Orthanc with the study."""
    made = orthanc(moves.port)
    for path in study.files.values():
        made.store(path)
    moves.place("QRSCP", made.port)
    return made


@pytest.fixture
def peer(moves: MoveSite) -> StoreScp:
    """The move destination."""
    made = StoreScp()
    made.start()
    moves.peers.append(made)
    moves.place("STORESCP", made.port)
    return made


def make_known(orthanc: Orthanc, title: str, port: int) -> None:
    """Tell Orthanc of an AE, to which it sends and from which it takes requests."""
    body = json.dumps({"AET": title, "Host": "127.0.0.1", "Port": port}).encode()
    url = f"http://127.0.0.1:{orthanc.http_port}/modalities/{title.lower()}"
    request = urllib.request.Request(url, data=body, method="PUT")
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - loopback
        pass


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
def test_retrieve_task(moves: MoveSite, other: Orthanc, study: Study, level: str) -> None:
    assert other.title == "QRSCP"
    uid = study.study_instance_uid
    entity, count = {
        "STUDY": (Entity(uid), 6),
        "SERIES": (Entity(uid, f"{uid}.1"), 3),
        "IMAGE": (Entity(uid, f"{uid}.1", f"{uid}.1.2"), 1),
    }[level]
    requests = Requests(moves.ledger, moves.runtime.source, actor="test")
    (pk,) = requests.place(RetrieveOrder("QRSCP"), [entity]).staged

    def done() -> Task | None:
        with moves.ledger.statement() as tx:
            task = tasks.get(tx, pk)
        return task if task.status.is_final or task.failures else None

    task = wait_until(done, what="the retrieve")
    assert task is not None
    assert task.status is TaskStatus.COMPLETED, task.error_message
    assert f"completed:{count}" in (task.outcome_message or "")
    assert moves.site.count("location") == count


def test_through_the_archive(moves: MoveSite, other: Orthanc, peer: StoreScp, study: Study) -> None:
    moves.store(study)
    moves.purge(study, other.title)
    moves.set(**THROUGH)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 6, 0, 0)), final.comment
    assert sorted(peer.received_uids()) == sorted(study.files)
    assert moves.site.count("location") == 6


def test_proxy(moves: MoveSite, other: Orthanc, peer: StoreScp, study: Study) -> None:
    make_known(other, "STORESCP", peer.port)
    make_known(other, "MOVESCU", 104)
    moves.store(study)
    moves.purge(study, other.title)
    final = moves.client().study(study)
    assert (final.status, final.counts) == (0, (None, 6, 0, 0)), final.comment
    assert sorted(peer.received_uids()) == sorted(study.files)
    assert moves.site.count("location") == 0


def test_unknown_destination(moves: MoveSite, other: Orthanc, peer: StoreScp, study: Study) -> None:
    make_known(other, "MOVESCU", 104)
    moves.store(study)
    moves.purge(study, other.title)
    final = moves.client().study(study)
    assert final.status >= 0xA000
    assert final.counts == (None, 0, 6, 0)
    assert not peer.received
