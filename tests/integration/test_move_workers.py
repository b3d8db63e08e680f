"""C-MOVE while processes die: another worker takes over, or the requestor is told."""

import signal
import threading
from pathlib import Path

from pynetdicom.events import Event

from tests.fix_move import MoveClient
from tests.fix_objects import generate_studies
from tests.fix_peer import StoreScp, send_files
from tests.fix_process import wait_until
from tests.fix_retrieve import Retrieval
from tests.fix_scp import Site


def start_killer(retrieval: Retrieval, victim: str) -> tuple[threading.Event, StoreScp]:
    """Start a destination that kills a process when the first object comes."""
    killed = threading.Event()

    def status(_event: Event) -> int:
        if not killed.is_set():
            killed.set()
            retrieval.system.kill(victim, signal.SIGKILL)
        return 0

    peer = StoreScp(status=status)
    peer.start()
    retrieval.place("STORESCP", peer.port)
    return killed, peer


def test_killed_worker_is_replaced(retrieval: Retrieval, tmp_path: Path) -> None:
    killed, peer = start_killer(retrieval, "retrieve")
    (study,) = generate_studies(tmp_path / "o", studies=1, instances=5)
    retrieval.store(study)
    answers = []
    client = MoveClient(retrieval.system.port)
    asking = threading.Thread(target=lambda: answers.append(client.study(study)))
    asking.start()
    wait_until(killed.is_set, what="the first object")
    retrieval.system.restart("retrieve")
    asking.join(60)
    peer.stop()
    assert [(answer.status, answer.counts) for answer in answers] == [(0, (None, 5, 0, 0))]
    assert set(peer.received_uids()) == set(study.files)
    (task,) = retrieval.system.tasks("RETRIEVE")
    assert task.failures == 1


def test_killed_scp_does_not_stop_the_delivery(retrieval: Retrieval, tmp_path: Path) -> None:
    _, peer = start_killer(retrieval, "scp-0")
    (study,) = generate_studies(tmp_path / "o", studies=1, instances=5)
    retrieval.store(study)
    moved = retrieval.study(study)
    assert "Peer aborted" in moved.output
    peer.wait_for(5)
    peer.stop()
    task = retrieval.system.wait_for_task("RETRIEVE", "COMPLETED")
    assert "completed:5" in (task.outcome_message or "")


def test_no_retrieve_worker_runs(site: Site) -> None:
    site.start(DICOMQ_RETRIEVE_CLAIM_S="0.5")
    (study,) = generate_studies(site.data.parent / "o", studies=1, instances=2)
    assert set(send_files(list(study.files.values()), site.port).statuses.values()) == {0}
    client = MoveClient(site.port)
    final = client.study(study)
    assert (final.status, final.counts) == (0xA702, (None, 0, 2, 0))
    assert final.comment == "no retrieve worker took it up within 0.5 s: start one"
    assert [each.status for each in client.responses].count(0xFF00) == len(client.responses) - 1
    with site.ledger.statement() as tx:
        rows = tx.execute("SELECT status, reason FROM task").fetchall()
    assert rows == [("CANCELED", final.comment)]
    assert "scp.retrieve-ended" in site.log()
