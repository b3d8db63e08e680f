"""What was handed over in time may not start when its queue has closed meanwhile."""

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK, SystemClock
from archive.configuration.descriptors import ArchiveDevice, Queue, Snapshot
from archive.configuration.settings import Settings
from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.schedule import Schedule
from archive.model.task import Hint, NewTask, Outcome, Task, TaskKind, TaskStatus
from workers.dispatcher import plan_pass
from workers.leases import LeaseConfig, LeaseKeeper
from workers.processor import TaskContext
from workers.runner import Runner, RunnerServices

DEVICE = "dcm4chee-arc"


@dataclass
class Room:
    """A runner over a real ledger with one queue, and what it performed."""

    ledger: Ledger
    queue: Queue
    clock: SystemClock = SYSTEM_CLOCK
    performed: list[int] = field(default_factory=list)

    def snapshot(self) -> Snapshot:
        queues = {self.queue.name: self.queue}
        device = ArchiveDevice(name=DEVICE, aes={}, exporters={}, queues=queues, storages={})
        return Snapshot(device, {}, (), "")

    def perform(self, task: Task, context: TaskContext) -> Outcome:  # noqa: ARG002 - the protocol
        self.performed.append(task.pk)
        return Outcome(TaskStatus.COMPLETED, "done")

    def hand_over(self) -> Hint:
        new = NewTask(
            kind=TaskKind.RETRIEVE,
            queue_name=self.queue.name,
            device_name=DEVICE,
            local_aet="A",
            remote_aet="B",
            study_instance_uid="1.2",
        )
        with self.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="test")
        with self.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, self.queue.name, 4)
        return hint

    def run(self, hint: Hint) -> str:
        services = RunnerServices(
            ledger=self.ledger,
            source=self,
            processors=dict.fromkeys(TaskKind, self),
            settings=Settings(device_name=DEVICE),
            clock=self.clock,
            worker="worker@test#1",
        )
        config = LeaseConfig(lease_s=20, heartbeat_s=5)
        with closing(LeaseKeeper(self.ledger, config, self.clock)) as keeper:
            return Runner(services, keeper).run(hint.task_pk, hint.attempt)

    def get(self, hint: Hint) -> Task:
        with self.ledger.statement() as tx:
            return tasks.get(tx, hint.task_pk)


@pytest.fixture
def room(ledger: Ledger) -> Room:
    return Room(ledger, Queue("Export", schedule=opens_in(0)))


def opens_in(hours: int) -> Schedule:
    """Return a window of two hours that opens at the start of one of the next."""
    hour = SYSTEM_CLOCK.now().astimezone().hour + hours
    return Schedule.parse([f"hour={hour % 24}-{(hour + 2) % 24}"])


class WrongClock(SystemClock):
    """The clock of a host that is half a day off."""

    @override
    def now(self) -> datetime:
        return super().now() + timedelta(hours=12)


def test_the_clock_of_the_host_decides_nothing(room: Room) -> None:
    room.clock = WrongClock()
    hint = room.hand_over()
    assert room.run(hint) == "COMPLETED: done"
    room.queue = Queue("Export", schedule=opens_in(11))
    assert "the window of queue Export (dcmSchedule) has closed" in room.run(room.hand_over())


def test_inside_the_window_it_runs(room: Room) -> None:
    hint = room.hand_over()
    assert room.run(hint) == "COMPLETED: done"
    assert room.performed == [hint.task_pk]


def test_after_the_window_it_waits_uncounted(room: Room) -> None:
    hint = room.hand_over()
    room.queue = Queue("Export", schedule=opens_in(4))
    assert room.run(hint) == "not started: the window of queue Export (dcmSchedule) has closed"
    assert room.performed == []
    task = room.get(hint)
    assert (task.status, task.failures) == (TaskStatus.SCHEDULED_FOR_RETRY, 0)
    with room.ledger.statement() as tx:
        waiting = tasks.waiting_queues(tx, DEVICE)
    plan = plan_pass(room.snapshot(), waiting)
    assert not plan.open_queues
    assert plan.idle_s is not None
    assert plan.idle_s > 3600


def test_a_queue_that_was_taken_out_of_service_does_not_start_it(room: Room) -> None:
    hint = room.hand_over()
    room.queue = Queue("Export", installed=False)
    assert "is not installed (dicomInstalled) any more" in room.run(hint)
    assert room.performed == []
    room.queue = Queue("Export")
    with room.ledger.transaction() as tx:
        (again,) = tasks.dispatch(tx, DEVICE, "Export", 4)
    assert room.run(again) == "COMPLETED: done"
