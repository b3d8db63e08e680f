"""C-MOVE while processes die: another worker takes over, or the requestor is told."""

import signal
import threading
from pathlib import Path

from pynetdicom.events import Event

from tests.fix_move import MoveClient
from tests.fix_objects import generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import wait_until
from tests.fix_retrieve import Retrieval


def test_killed_worker_is_replaced(retrieval: Retrieval, tmp_path: Path) -> None:
    killed = threading.Event()

    def status(_event: Event) -> int:
        if not killed.is_set():
            killed.set()
            retrieval.system.kill("retrieve", signal.SIGKILL)
        return 0

    peer = StoreScp(status=status)
    peer.start()
    retrieval.place("STORESCP", peer.port)
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
    began = threading.Event()

    def status(_event: Event) -> int:
        if not began.is_set():
            began.set()
            retrieval.system.kill("scp-0", signal.SIGKILL)
        return 0

    peer = StoreScp(status=status)
    peer.start()
    retrieval.place("STORESCP", peer.port)
    (study,) = generate_studies(tmp_path / "o", studies=1, instances=5)
    retrieval.store(study)
    moved = retrieval.study(study)
    assert "Peer aborted" in moved.output
    peer.wait_for(5)
    peer.stop()
    task = retrieval.system.wait_for_task("RETRIEVE", "COMPLETED")
    assert "completed:5" in (task.outcome_message or "")
