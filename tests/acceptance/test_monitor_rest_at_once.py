"""REST whose answer comes when the work is done: to peers, through the running system."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fix_monitor import Monitor, protected, start_monitor
from tests.fix_objects import secondary_capture, write
from tests.fix_peer import IanScp, StoreScp, echo
from tests.fix_system import System

STUDY = "1.2.826.0.1.3680043.2.99.8"
ENTITY = f"/dcm4chee-arc/aets/DCM4CHEE/rs/studies/{STUDY}"


@pytest.fixture
def rest(idle_system: System, tmp_path: Path) -> Iterator[tuple[System, Monitor]]:
    """A running dicomq that holds a study, and Flower beside it."""
    for name in ("scp-0", "dispatcher", "notify", "retrieve"):
        idle_system.start(name)
    idle_system.wait_until(lambda: echo(idle_system.port), what="a C-ECHO of DCM4CHEE")
    monitor = start_monitor(idle_system.environment, tmp_path / "flower.log", *protected())
    files = [write(secondary_capture(STUDY, 1, n), tmp_path / f"{n}.dcm") for n in (1, 2)]
    idle_system.store(files)
    yield idle_system, monitor
    monitor.process.stop()


def post(monitor: Monitor, path: str) -> tuple[int, Any]:
    answer = monitor.ask(path, "POST")
    return answer.status, json.loads(answer.body)


def test_store_and_notify_at_once(
    rest: tuple[System, Monitor],
    store_scp: Callable[..., StoreScp],
    ian_scp: Callable[..., IanScp],
) -> None:
    system, monitor = rest
    destination, receiver = store_scp(), ian_scp()
    system.place_peer("STORESCP", destination.port)
    system.place_peer("IANSCP", receiver.port)

    assert post(monitor, f"{ENTITY}/export/dicom:STORESCP") == (200, {"completed": 2})
    assert len(destination.received_uids()) == 2
    assert post(monitor, f"{ENTITY}/ian/dicom:IANSCP") == (200, {"status": "0000", "instances": 2})
    assert receiver.wait_for(1)[0].dataset.StudyInstanceUID == STUDY

    destination.stop()
    status, body = post(monitor, f"{ENTITY}/export/dicom:STORESCP")
    assert (status, body["completed"], "error" in body) == (502, 0, True)
