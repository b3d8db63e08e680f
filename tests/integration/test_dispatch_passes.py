"""Passes of the dispatcher and the rescuer, driven by hand over a real ledger and broker."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest
from celery import Celery

from archive.clock import SYSTEM_CLOCK
from archive.configuration.descriptors import ArchiveDevice, Queue, Snapshot
from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.retry import Finish, RetryPolicy
from archive.model.schedule import Schedule
from archive.model.task import Hint, NewTask, Outcome, Task, TaskKind, TaskStatus
from tests.fix_process import free_port, wait_until
from tests.fix_redis import RedisServer
from workers.app import celery_settings
from workers.dispatcher import Dispatcher, DispatcherConfig
from workers.hints import BrokerUnavailableError, HintBroker
from workers.rescuer import Rescuer, RescuerConfig

DEVICE = "dcm4chee-arc"


@dataclass
class FixedSource:
    """Configuration with the queues of a test."""

    queues: dict[str, Queue]

    def snapshot(self) -> Snapshot:
        device = ArchiveDevice(name=DEVICE, aes={}, exporters={}, queues=self.queues, storages={})
        return Snapshot(device, {}, (), "")


def source(*queues: Queue) -> FixedSource:
    return FixedSource({queue.name: queue for queue in queues})


def celery_app(redis_url: str) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_settings(redis_url))
    return app


@pytest.fixture
def broker(redis_url: str) -> Iterator[HintBroker]:
    with closing(HintBroker(celery_app(redis_url))) as opened:
        yield opened


def dispatcher(
    ledger: Ledger, broker: HintBroker, queues: FixedSource, *, recall_after_s: float = 60.0
) -> Dispatcher:
    config = DispatcherConfig(DEVICE, recall_after_s=recall_after_s)
    return Dispatcher(ledger, queues, broker, clock=SYSTEM_CLOCK, config=config)


def stage(ledger: Ledger, count: int, queue: str = "Export", *, due_in_s: float = 0.0) -> list[int]:
    new = NewTask(
        kind=TaskKind.RETRIEVE,
        queue_name=queue,
        device_name=DEVICE,
        local_aet="A",
        remote_aet="B",
        study_instance_uid="1.2",
        due_in_s=due_in_s,
    )
    with ledger.transaction() as tx:
        return [tasks.stage(tx, new, actor="test") for _ in range(count)]


def claim(ledger: Ledger, hint: Hint, *, lease_s: float = 60.0) -> Task | None:
    with ledger.transaction() as tx:
        return tasks.claim(tx, hint, worker="worker@test#1", lease_s=lease_s)


def get(ledger: Ledger, pk: int) -> Task:
    with ledger.statement() as tx:
        return tasks.get(tx, pk)


def closed_schedule() -> Schedule:
    """Return a window that opens in some hours."""
    hour = (SYSTEM_CLOCK.now().astimezone().hour + 3) % 24
    return Schedule.parse([f"hour={hour}"])


def test_as_many_as_the_queue_leaves_room_for(ledger: Ledger, broker: HintBroker) -> None:
    pks = stage(ledger, 5)
    passes = dispatcher(ledger, broker, source(Queue("Export", max_tasks_parallel=2)))
    assert passes.run_once().dispatched == 2
    assert passes.run_once().dispatched == 0
    assert broker.waiting("Export") == 2
    task = claim(ledger, Hint(pks[0], 1))
    assert task is not None
    assert passes.run_once().dispatched == 0
    with ledger.transaction() as tx:
        outcome = Outcome(TaskStatus.COMPLETED, "")
        tasks.finish(tx, task, outcome, Finish(TaskStatus.COMPLETED), actor="test")
    assert passes.run_once().dispatched == 1


def test_several_dispatchers_do_not_exceed_the_limit(
    ledger: Ledger, broker: HintBroker, redis_url: str
) -> None:
    stage(ledger, 200)
    queues = source(Queue("Export", max_tasks_parallel=7))
    barrier = threading.Barrier(4)

    def one() -> int:
        with closing(HintBroker(celery_app(redis_url))) as own:
            passes = dispatcher(ledger, own, queues)
            barrier.wait()
            return sum(passes.run_once().dispatched for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        total = sum(future.result() for future in [pool.submit(one) for _ in range(4)])
    assert total == 7
    assert broker.waiting("Export") == 7


@pytest.mark.parametrize(
    "queue",
    [
        Queue("Export", installed=False),
        Queue("Export", schedule=closed_schedule()),
    ],
    ids=["not installed", "outside its schedule"],
)
def test_a_closed_queue_is_left_alone(ledger: Ledger, broker: HintBroker, queue: Queue) -> None:
    stage(ledger, 1)
    stage(ledger, 1, "Other")
    passes = dispatcher(ledger, broker, source(queue))
    assert passes.run_once().dispatched == 1
    assert broker.waiting("Export") == 0
    assert broker.waiting("Other") == 1


def test_the_pause_ends_when_the_next_task_is_due(ledger: Ledger, broker: HintBroker) -> None:
    passes = dispatcher(ledger, broker, source(Queue("Export")))
    assert passes.run_once().idle_s is None
    stage(ledger, 1, due_in_s=100)
    stage(ledger, 1, due_in_s=10)
    idle_s = passes.run_once().idle_s
    assert idle_s is not None
    assert 9 < idle_s <= 10


def test_lost_hints_are_given_again_under_a_new_attempt(
    ledger: Ledger, broker: HintBroker, redis_server: RedisServer
) -> None:
    pk = stage(ledger, 1)[0]
    passes = dispatcher(ledger, broker, source(Queue("Export")), recall_after_s=0.0)
    passes.run_once()
    assert passes.recall() == 0
    redis_server.flush()
    assert passes.recall() == 1
    assert broker.waiting("Export") == 1
    assert claim(ledger, Hint(pk, 1)) is None
    assert claim(ledger, Hint(pk, 2)) is not None
    assert passes.recall() == 0


def test_a_broker_that_is_away_is_named(ledger: Ledger) -> None:
    stage(ledger, 1)
    absent = HintBroker(celery_app(f"redis://127.0.0.1:{free_port()}/0"))
    passes = dispatcher(ledger, absent, source(Queue("Export")))
    with pytest.raises(BrokerUnavailableError, match="start Redis or correct REDIS_URL"):
        passes.run_once()


@pytest.mark.parametrize("name", ["Nearline Storage Export", "Süd ✓", "a,b;c", "x" * 200])
def test_any_name_of_a_queue_works(ledger: Ledger, broker: HintBroker, name: str) -> None:
    stage(ledger, 3, name)
    passes = dispatcher(ledger, broker, source(Queue(name, max_tasks_parallel=2)))
    assert passes.run_once().dispatched == 2
    assert broker.waiting(name) == 2


def rescuer(ledger: Ledger, queue: Queue) -> Rescuer:
    return Rescuer(ledger, source(queue), SYSTEM_CLOCK, config=RescuerConfig(DEVICE))


@pytest.mark.parametrize(
    ("max_retries", "cancel", "status", "message"),
    [
        (1, False, TaskStatus.SCHEDULED_FOR_RETRY, "retry 1 of 1 in 30 s"),
        (0, False, TaskStatus.FAILED, "given up after 1 attempts"),
        (1, True, TaskStatus.CANCELED, "worker lost: worker@test#1"),
        (0, True, TaskStatus.CANCELED, "worker lost: worker@test#1"),
    ],
)
def test_a_lapsed_lease_goes_to_the_retry_policy(
    ledger: Ledger, *, max_retries: int, cancel: bool, status: TaskStatus, message: str
) -> None:
    pk = stage(ledger, 1)[0]
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 1)
    task = claim(ledger, hint, lease_s=0.05)
    assert task is not None
    if cancel:
        with ledger.transaction() as tx:
            tasks.cancel(tx, pk, actor="test")
    policy = RetryPolicy(max_retries=max_retries, delay_s=30)
    rescue = rescuer(ledger, Queue("Export", retry=policy))
    wait_until(lambda: rescue.run_once() == 1, what="the lease to lapse")
    rescued = get(ledger, pk)
    assert rescued.status is status
    assert message in (rescued.outcome_message or "")
    with ledger.transaction() as tx:
        late = tasks.finish(
            tx,
            task,
            Outcome(TaskStatus.COMPLETED, ""),
            Finish(TaskStatus.COMPLETED),
            actor="the lost worker",
        )
    assert late is None
    assert get(ledger, pk) == rescued


def test_a_renewed_lease_is_left_alone(ledger: Ledger) -> None:
    stage(ledger, 1)
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 1)
    assert claim(ledger, hint) is not None
    assert rescuer(ledger, Queue("Export")).run_once() == 0


def test_purge_deletes_what_the_queue_does_not_keep(ledger: Ledger) -> None:
    canceled, waiting = stage(ledger, 2)
    kept = stage(ledger, 1, "Other")[0]
    with ledger.transaction() as tx:
        tasks.cancel(tx, canceled, actor="test")
        tasks.cancel(tx, kept, actor="test")
    rescue = rescuer(ledger, Queue("Export", purge_canceled_s=0.0, purge_completed_s=0.0))
    assert rescue.purge_once(threading.Event()) == 1
    with ledger.statement() as tx:
        counts = tasks.count_by_status(tx)
    assert counts == {
        (TaskKind.RETRIEVE, TaskStatus.SCHEDULED): 1,
        (TaskKind.RETRIEVE, TaskStatus.CANCELED): 1,
    }
    assert get(ledger, waiting).status is TaskStatus.SCHEDULED
