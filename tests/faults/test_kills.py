"""Any process may be killed at any point: nothing accepted is lost, nothing is announced twice.

A sender stores 500 objects and repeats what was not acknowledged, as modalities do. A victim is
killed at a chosen moment and started again, as a supervisor does. Afterwards every object has to
be at the destination with the bytes that were sent, and exactly one notification per study must
have been accepted. The moments are given by what the peers have seen, never by time.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.events import Event

from tests.fix_objects import Study, encoded_dataset, generate_studies
from tests.fix_peer import SUCCESS, IanScp, StoreScp
from tests.fix_system import System

STUDIES, SERIES, INSTANCES = 5, 2, 50
TOTAL = STUDIES * SERIES * INSTANCES
SOON = ("dcmRetryDelay: PT0.2S", "dcmRetryDelayMultiplier: 100")

pytestmark = pytest.mark.timeout(400)


class Scene:
    """A system with a destination and a receiver of notifications, and studies to be stored."""

    def __init__(self, system: System, directory: Path) -> None:
        self.system = system
        self.studies = generate_studies(
            directory / "objects", studies=STUDIES, series=SERIES, instances=INSTANCES
        )
        self.on_store: Callable[[int], None] = lambda _count: None
        self.on_create: Callable[[int], None] = lambda _count: None
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.destination = StoreScp(status=self._store_status)
        self.receiver = IanScp(status=self._create_status)

    def _store_status(self, _event: Event) -> int:
        self.on_store(self._count("stored"))
        return SUCCESS

    def _create_status(self, _event: Event) -> int:
        self.on_create(self._count("created"))
        return SUCCESS

    def _count(self, name: str) -> int:
        with self._lock:
            self._counts[name] += 1
            return self._counts[name]

    @property
    def files(self) -> dict[str, Path]:
        """Every file by SOP Instance UID."""
        return {uid: path for study in self.studies for uid, path in study.files.items()}

    @contextmanager
    def sending(self) -> Iterator[threading.Thread]:
        """Store everything in the background; at the end of the block it has been accepted."""
        failures: list[BaseException] = []

        def send() -> None:
            try:
                self.system.store_all(self.files, senders=4)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield thread
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def accepted(self) -> int:
        """Return how many objects the archive holds."""
        with self.system.ledger.statement() as tx:
            row = tx.execute("SELECT count(*) FROM instance").fetchone()
        return int(row[0]) if row else 0

    def at_destination(self) -> int:
        """Return how many different objects the destination holds."""
        return len(set(self.destination.received_uids()))

    def reach(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the moment at which something is to happen."""
        self.system.wait_until(condition, deadline_s=120, what=what)

    def reach_accepted(self, count: int) -> None:
        """Wait until the archive holds `count` objects."""
        self.reach(lambda: self.accepted() >= count, f"{count} objects in the archive")

    def reach_exported(self, count: int) -> None:
        """Wait until the destination holds `count` objects."""
        self.reach(lambda: self.at_destination() >= count, f"{count} objects at the destination")

    def replace(self, victim: str) -> None:
        """Wait until a hook has killed `victim`, then start it anew."""
        process = self.system.processes[victim]
        self.reach(lambda: not process.is_alive(), f"{victim} to be killed")
        self.system.restart(victim)

    def check(self) -> None:
        """Check what was promised, once everything has come to rest."""
        expected = set(self.files)
        self.reach(lambda: set(self.destination.received_uids()) >= expected, "every object")
        self.reach(lambda: len(self.receiver.accepted) >= STUDIES, "every notification")
        self.system.wait_until_idle()
        for received in self.destination.received:
            path = self.files[received.sop_instance_uid]
            assert received.dataset == encoded_dataset(path), received.sop_instance_uid
        announced = Counter(str(each.dataset.StudyInstanceUID) for each in self.receiver.accepted)
        assert announced == {study.study_instance_uid: 1 for study in self.studies}, (
            self.system.explain()
        )
        for study in self.studies:
            assert self._announced_objects(study) == set(study.files)
        assert {task.status for task in self.system.tasks()} == {"COMPLETED"}

    def _announced_objects(self, study: Study) -> set[str]:
        return {
            str(item.ReferencedSOPInstanceUID)
            for each in self.receiver.accepted
            if each.dataset.StudyInstanceUID == study.study_instance_uid
            for series in each.dataset.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }


@pytest.fixture
def scene(idle_system: System, tmp_path: Path) -> Iterator[Scene]:
    """A running system that exports studies after a quiet period longer than a restart.

    What a killed worker had in hand is tried again without delay: the lease is waiting enough.
    """
    system = idle_system
    made = Scene(system, tmp_path)
    made.destination.start()
    made.receiver.start()
    system.queue("STORESCP", "dcmMaxTasksParallel: 4", "dcmMaxRetries: 10", *SOON)
    system.change_queue("IANSCU", *SOON)
    more = ["dcmRetrieveAET: STORESCP"]
    system.export_to(
        made.destination.port, ian_port=made.receiver.port, more=more, duration="PT12S"
    )
    system.start_all()
    yield made
    made.destination.stop()
    made.receiver.stop()


def at(moments: set[int], action: Callable[[], None]) -> Callable[[int], None]:
    """Return a hook that runs `action` in place when the count is one of `moments`."""
    return lambda count: action() if count in moments else None


def test_scp_killed_while_it_receives(scene: Scene) -> None:
    with scene.sending():
        for moment, victim in ((60, "scp-0"), (160, "scp-1"), (260, "scp-0"), (360, "scp-1")):
            scene.reach_accepted(moment)
            scene.system.restart(victim)

    scene.check()


def test_dispatcher_killed_while_it_hands_over(scene: Scene) -> None:
    scene.on_store = at({1}, lambda: scene.system.kill("dispatcher"))

    with scene.sending():
        for moment in (100, 300):
            scene.reach_accepted(moment)
            scene.system.restart("dispatcher")
    scene.replace("dispatcher")

    scene.check()


def test_worker_killed_between_receipt_and_acknowledgement(scene: Scene) -> None:
    scene.on_store = at({40, 200, 380}, lambda: scene.system.kill("export"))

    with scene.sending():
        pass
    for _ in range(3):
        scene.replace("export")

    scene.check()


def test_worker_killed_before_the_notification_is_acknowledged(scene: Scene) -> None:
    scene.on_create = at({1, 3}, lambda: scene.system.kill("notify"))

    with scene.sending():
        pass
    for _ in range(2):
        scene.replace("notify")

    scene.check()
    # The repeated N-CREATE carried the same SOP Instance UID and was refused as a duplicate.
    assert len(scene.receiver.received) > len(scene.receiver.accepted)


def test_redis_killed_and_started_empty(scene: Scene) -> None:
    with scene.sending():
        scene.reach_accepted(100)
        scene.system.redis.kill()
        scene.reach_accepted(200)
        scene.system.redis.start()
    for moment in (60, 260):
        scene.reach_exported(moment)
        scene.system.redis.kill()
        scene.system.redis.start()

    scene.check()


def test_redis_flushed(scene: Scene) -> None:
    scene.on_store = at(set(range(1, TOTAL, 25)), scene.system.redis.flush)
    scene.on_create = at({1, 2, 3}, scene.system.redis.flush)

    with scene.sending():
        scene.reach_accepted(100)
        scene.system.redis.flush()

    scene.check()


def test_everything_killed_in_turn(scene: Scene) -> None:
    victims = ("scp-0", "dispatcher", "export", "notify", "scp-1")
    with scene.sending():
        for number, victim in enumerate(victims, start=1):
            scene.reach_accepted(number * 80)
            scene.system.restart(victim)
        scene.system.redis.kill()
        scene.system.redis.start()
    for number, victim in enumerate(victims, start=1):
        scene.reach_exported(number * 80)
        scene.system.restart(victim)

    scene.check()
