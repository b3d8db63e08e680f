"""Each way in which a destination can misbehave ends in an outcome with its reason."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom.events import Event

from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import generate_studies
from tests.fix_peer import SUCCESS, StoreScp, echo
from tests.fix_process import free_port
from tests.fix_system import ARCHIVE, DEVICES, System, TaskRow

QUEUE = "Destination"
SECOND = "1.2.826.0.1.9.1.1.2"

pytestmark = pytest.mark.timeout(200)


@dataclass(frozen=True)
class Misbehaviour:
    """A storescp with options, and what the task has to say about it."""

    options: tuple[str, ...]
    status: str
    failures: int
    message: str


MISBEHAVIOURS = {
    # rejected permanently: a retry cannot help
    "refuses": Misbehaviour(("--refuse",), "FAILED", 1, r"STORESCP.*reject"),
    "aborts during an object": Misbehaviour(("--abort-during",), "FAILED", 2, r"STORESCP"),
    "aborts after an object": Misbehaviour(("--abort-after",), "FAILED", 2, r"STORESCP"),
    "is slow": Misbehaviour(("--sleep-during", "1"), "COMPLETED", 0, r"3"),
}


@pytest.fixture
def stage(system: System, tmp_path: Path) -> Callable[[int], None]:
    """Send one study of three objects towards a destination on a port; one retry, at once."""

    def store(port: int) -> None:
        retry = ("dcmMaxRetries: 1", "dcmRetryDelay: PT1S")
        system.queue(QUEUE, "dcmMaxTasksParallel: 2", *retry)
        system.export_to(port, more=[], exporter=QUEUE)
        [study] = generate_studies(tmp_path / "objects", studies=1, instances=3)
        assert len(system.store(list(study.files.values())).accepted) == 3

    return store


def final(system: System) -> TaskRow:
    """Return the export task when it has come to its end."""
    statuses = ("COMPLETED", "WARNING", "FAILED", "CANCELED")
    return system.wait_for_task("EXPORT", *statuses, deadline_s=90)


def text(task: TaskRow) -> str:
    """Return what the task tells the administrator."""
    return f"{task.outcome_message or ''} {task.error_message or ''}"


@pytest.mark.parametrize("case", MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
def test_storescp(
    case: Misbehaviour, system: System, dcmtk: Dcmtk, stage: Callable[[int], None]
) -> None:
    destination = dcmtk.storescp(*case.options)

    stage(destination.port)

    task = final(system)
    assert (task.status, task.failures) == (case.status, case.failures), system.explain()
    assert re.search(case.message, text(task)), text(task)


def test_nobody_listens(system: System, stage: Callable[[int], None]) -> None:
    stage(free_port())

    task = final(system)
    assert (task.status, task.failures) == ("FAILED", 2)
    assert "STORESCP" in text(task)


def test_hangs(system: System, stage: Callable[[int], None]) -> None:
    system.configure(f"""\
        dn: cn=dicom,{ARCHIVE}
        changetype: modify
        replace: dcmTCPConnectTimeout
        dcmTCPConnectTimeout: 2000
        -
        replace: dcmAAACTimeout
        dcmAAACTimeout: 2000
        """)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        stage(deaf.getsockname()[1])

        task = final(system)

    assert (task.status, task.failures) == ("FAILED", 2)
    assert "STORESCP" in text(task)


def test_not_configured(system: System, stage: Callable[[int], None]) -> None:
    system.configure(f"""\
        dn: dicomAETitle=STORESCP,dicomDeviceName=storescp,{DEVICES}
        changetype: delete
        """)

    stage(free_port())

    task = final(system)
    assert (task.status, task.failures) == ("FAILED", 2)
    assert "dicomAETitle=STORESCP" in text(task)


@pytest.fixture
def picky(
    store_scp: Callable[..., StoreScp],
) -> Callable[[int, int], StoreScp]:
    """Start a destination that answers a status to the second object, a number of times."""

    def start(status: int, times: int) -> StoreScp:
        left = [times]

        def answer(event: Event) -> int:
            if event.request.AffectedSOPInstanceUID == SECOND and left[0] > 0:
                left[0] -= 1
                return status
            return SUCCESS

        return store_scp(status=answer)

    return start


def test_out_of_resources_once_sends_again_only_what_is_missing(
    system: System, stage: Callable[[int], None], picky: Callable[[int, int], StoreScp]
) -> None:
    destination = picky(0xA700, 1)

    stage(destination.port)

    task = final(system)
    assert (task.status, task.failures) == ("COMPLETED", 1), system.explain()
    assert len(destination.received_uids()) == 3
    assert destination.received_uids()[-1] == SECOND


def test_one_object_refused_for_good_is_a_warning(
    system: System, stage: Callable[[int], None], picky: Callable[[int, int], StoreScp]
) -> None:
    destination = picky(0xC000, 99)

    stage(destination.port)

    task = final(system)
    assert task.status == "WARNING", system.explain()
    assert re.search(r"\b2\b.*\b1\b", text(task)), text(task)
    assert SECOND not in destination.received_uids()


def test_one_bad_destination_does_not_hold_up_another(
    system: System, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    good = store_scp("QRSCP")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        system.export_to(deaf.getsockname()[1], exporter="BAD")
        system.export_to(good.port, title="QRSCP", exporter="GOOD")
        studies = generate_studies(tmp_path / "objects", studies=20)
        files = [path for study in studies for path in study.files.values()]
        assert len(system.store(files).accepted) == 20

        good.wait_for(20, deadline_s=60)

    assert echo(system.port)
