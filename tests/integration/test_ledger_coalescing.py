"""Rule-staged exports join one waiting task per entity, whatever the order and whoever races."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from archive.ledger import deliveries, objects, tasks
from archive.ledger.connection import Ledger, Transaction
from archive.model.entities import (
    InstanceResult,
    ObjectAttributes,
    OverwritePolicy,
    Reception,
    StoredFile,
    StoreKind,
    StorePolicy,
    StoreResult,
)
from archive.model.retry import Finish
from archive.model.task import ExportEntity, ExportIntent, Hint, Outcome, Task, TaskStatus

STUDY = "1.2.3"
RECEPTION = Reception("MODALITY", "DCM4CHEE")
DEVICE = "dcm4chee-arc"


def intent(
    entity: str = "Study",
    due_in_s: float = 0.0,
    *,
    exporter: str = "X",
    reoccurred: str = "REPLACE",
) -> ExportIntent:
    """Return what a rule demands."""
    return ExportIntent(
        exporter,
        "Export",
        DEVICE,
        "DCM4CHEE",
        "STORESCP",
        ExportEntity(entity),
        due_in_s,
        reoccurred,
    )


def store(
    tx: Transaction,
    number: int,
    intents: Sequence[ExportIntent],
    *,
    series: str = "1.2.3.1",
    digest: str | None = None,
    policy: OverwritePolicy = OverwritePolicy.SAME_SOURCE,
) -> StoreResult:
    """Store object `number` of the study."""
    attributes = ObjectAttributes(
        "1.2.840.10008.5.1.4.1.1.2", f"{STUDY}.9.{number}", STUDY, series, "1.2.840.10008.1.2.1"
    )
    digest = digest or f"md5:{number}"
    file = StoredFile("fs1", f"{number}/{digest}", "1.2.840.10008.1.2.1", 1000, 300, digest)
    return objects.store_object(
        tx, attributes, file, RECEPTION, intents=intents, policy=StorePolicy(policy)
    )


def waiting(ledger: Ledger) -> list[tuple[str | None, str | None]]:
    """Return the entities (series, SOP) of all waiting export tasks."""
    with ledger.statement() as tx:
        return tx.execute(
            "SELECT series_instance_uid, sop_instance_uid FROM task WHERE kind = 'EXPORT'"
            " AND status = 'SCHEDULED' ORDER BY 1 NULLS FIRST, 2 NULLS FIRST"
        ).fetchall()


def run(ledger: Ledger) -> Task:
    """Dispatch and claim the one due task."""
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    with ledger.statement() as tx:
        task = tasks.claim(tx, hint, worker="w", lease_s=60)
    assert task is not None
    return task


def deliver_all(ledger: Ledger, task: Task) -> int:
    """Record every instance of the task as delivered and complete it; return how many it sent."""
    with ledger.transaction() as tx:
        instances = deliveries.instances_to_send(tx, task)
        results = [InstanceResult(i.instance_pk, i.version, delivered=True) for i in instances]
        deliveries.record(tx, task, results)
        done = Outcome(TaskStatus.COMPLETED, "done")
        assert tasks.finish(tx, task, done, Finish(done.status), actor="w") is TaskStatus.COMPLETED
    return len(instances)


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        (["Study", "Study"], [(None, None)]),
        (["Study", "Series", "Instance"], [(None, None)]),
        (["Instance", "Study"], [(None, None)]),
        (["Instance", "Instance", "Instance", "Study"], [(None, None)]),
        (["Instance", "Series"], [("1.2.3.1", None)]),
        (["Series", "Instance"], [("1.2.3.1", None)]),
        (["Series", "Study"], [(None, None)]),
        (["Instance", "Instance"], [("1.2.3.1", "1.2.3.9.0"), ("1.2.3.1", "1.2.3.9.1")]),
    ],
)
def test_coarser_entity_absorbs_finer(
    ledger: Ledger, entities: list[str], expected: list[tuple[str | None, str | None]]
) -> None:
    """Tasks are joined, widened and absorbed; finer ones of another object stay apart."""
    with ledger.statement() as tx:
        for number, entity in enumerate(entities):
            store(tx, number, [intent(entity, 60)])
    assert waiting(ledger) == expected


def test_each_arrival_moves_the_due_time_later(ledger: Ledger) -> None:
    """The quiet period counts from the last object; a shorter one never moves it back."""
    due = []
    with ledger.statement() as tx:
        for number, delay in enumerate([60.0, 120.0, 1.0]):
            store(tx, number, [intent(due_in_s=delay)])
            due.append(tasks.waiting_queues(tx, DEVICE)[0].due_in_s)
    assert due[0] == pytest.approx(60, abs=2)
    assert due[1] == pytest.approx(120, abs=2)
    assert due[2] == pytest.approx(120, abs=2)


def test_arrival_takes_a_postponed_task_back_from_the_broker(ledger: Ledger) -> None:
    """A hint sent before another object arrived does not start the export early."""
    with ledger.transaction() as tx:
        store(tx, 1, [intent()])
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    with ledger.statement() as tx:
        store(tx, 2, [intent(due_in_s=60)])
        assert tasks.claim(tx, hint, worker="w", lease_s=60) is None
    with ledger.transaction() as tx:
        assert tasks.dispatch(tx, DEVICE, "Export", 9) == []


def test_object_arriving_while_running_gets_a_follow_up_of_its_own(ledger: Ledger) -> None:
    """What arrives during the export is sent by a second task, and only that."""
    with ledger.statement() as tx:
        store(tx, 1, [intent()])
    first = run(ledger)
    with ledger.statement() as tx:
        store(tx, 2, [intent()])
    with ledger.transaction() as tx:
        assert tasks.dispatch(tx, DEVICE, "Export", 9) == [], "overlapping exports run in turn"
        assert len(deliveries.instances_to_send(tx, first)) == 2
    with ledger.statement() as tx:
        known = deliveries.instances_to_send(tx, first)[:1]
        deliveries.record(tx, first, [InstanceResult(known[0].instance_pk, 1, delivered=True)])
        done = Outcome(TaskStatus.COMPLETED, "done")
        tasks.finish(tx, first, done, Finish(done.status), actor="w")
    second = run(ledger)
    assert second.pk != first.pk
    assert deliver_all(ledger, second) == 1


@pytest.mark.parametrize(
    ("reoccurred", "digest", "kind", "tasks_after"),
    [
        ("REPLACE", None, StoreKind.DUPLICATE, 0),
        ("NEVER", None, StoreKind.DUPLICATE, 0),
        ("ALWAYS", None, StoreKind.DUPLICATE, 1),
        ("REPLACE", "md5:other", StoreKind.REPLACED, 1),
        ("NEVER", "md5:other", StoreKind.REPLACED, 0),
        ("ALWAYS", "md5:other", StoreKind.REPLACED, 1),
    ],
)
def test_reoccurred_instances(
    ledger: Ledger, reoccurred: str, digest: str | None, kind: StoreKind, tasks_after: int
) -> None:
    """The rule's dcmExportReoccurredInstances decides; what is exported again is sent again."""
    with ledger.statement() as tx:
        store(tx, 1, [intent(reoccurred=reoccurred)])
    assert deliver_all(ledger, run(ledger)) == 1
    with ledger.statement() as tx:
        assert store(tx, 1, [intent(reoccurred=reoccurred)], digest=digest).kind is kind
    assert len(waiting(ledger)) == tasks_after
    if tasks_after:
        assert deliver_all(ledger, run(ledger)) == 1


@pytest.mark.parametrize(
    ("policy", "source", "digest", "kind"),
    [
        ("NEVER", "MODALITY", "md5:new", StoreKind.IGNORED),
        ("SAME_SOURCE", "MODALITY", "md5:new", StoreKind.REPLACED),
        ("SAME_SOURCE", "OTHER", "md5:new", StoreKind.IGNORED),
        ("ALWAYS", "OTHER", "md5:new", StoreKind.REPLACED),
        ("ALWAYS", "OTHER", "md5:1", StoreKind.DUPLICATE),
        ("EVEN_WITH_EQUAL_DIGEST", "OTHER", "md5:1", StoreKind.REPLACED),
    ],
)
def test_overwrite_policies(
    ledger: Ledger, policy: str, source: str, digest: str, kind: StoreKind
) -> None:
    """A second object of a known UID replaces the first only as dcmOverwritePolicy allows."""
    with ledger.statement() as tx:
        store(tx, 1, [])
        attributes = ObjectAttributes("1.2", f"{STUDY}.9.1", STUDY, "1.2.3.1", "1.2.840.10008.1.2")
        file = StoredFile("fs1", "second", "1.2.840.10008.1.2", 10, 5, digest)
        result = objects.store_object(
            tx,
            attributes,
            file,
            Reception(source, "DCM4CHEE"),
            intents=[],
            policy=StorePolicy(OverwritePolicy(policy)),
        )
        assert result.kind is kind
        kept = {path for (path,) in tx.execute("SELECT storage_path FROM location").fetchall()}
    replaced = kind is StoreKind.REPLACED
    assert kept == ({"second"} if replaced else {"1/md5:1"})
    assert [f.storage_path for f in result.obsolete_files] == (["1/md5:1"] if replaced else [])
    assert result.keep_file is replaced


def _race(ledger: Ledger, *actions: Callable[[Transaction, int], None]) -> None:
    """Run the actions in transactions of their own that all begin before any commits."""
    barrier = threading.Barrier(len(actions))

    def act(number: int) -> None:
        with ledger.transaction() as tx:
            tx.execute("SELECT 1")
            barrier.wait(10)
            actions[number](tx, number)

    with ThreadPoolExecutor(len(actions)) as threads:
        for future in [threads.submit(act, number) for number in range(len(actions))]:
            future.result()


@pytest.mark.parametrize("entity", ["Study", "Series"])
def test_first_objects_of_a_study_race(ledger: Ledger, entity: str) -> None:
    """Associations that store into a new study at the same time end with one task."""
    for repetition in range(5):

        def first(tx: Transaction, number: int, base: int = repetition * 10) -> None:
            store(tx, base + number, [intent(entity, 60, exporter=f"X{base}")])

        _race(ledger, *[first] * 4)
    assert len(waiting(ledger)) == 5
    with ledger.statement() as tx:
        assert objects.count_instances(tx, STUDY) == 20


def test_entities_of_different_grain_race(ledger: Ledger) -> None:
    """However an instance, a series and a study task race, the study task is what is left."""
    for repetition in range(8):
        entities = ["Study", "Instance", "Series", "Instance"]

        def arrive(tx: Transaction, number: int, base: int = repetition * 10) -> None:
            store(tx, base + number, [intent(entities[number], 60, exporter=f"X{base}")])  # noqa: B023 - the list never changes

        _race(ledger, *[arrive] * 4)
    rows = waiting(ledger)
    assert rows.count((None, None)) == 8
    assert len(rows) == 8


def test_claim_waits_for_an_object_that_is_joining(ledger: Ledger) -> None:
    """A worker cannot claim past a transaction that joined the task; it then sees the object."""
    with ledger.statement() as tx:
        store(tx, 1, [intent()])
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    claimed: list[Task | None] = []
    with ThreadPoolExecutor(1) as threads:
        with ledger.transaction() as joining:
            store(joining, 2, [intent()])
            future = threads.submit(_claim, ledger, hint, claimed)
            _wait_for_lock(ledger)
            assert not claimed
        future.result(10)
    (task,) = claimed
    assert task is not None
    assert deliver_all(ledger, task) == 2
    assert waiting(ledger) == []


def test_object_waits_for_a_claim_and_gets_its_own_task(ledger: Ledger) -> None:
    """An object that loses the race against the claim is not left out: a follow-up is staged."""
    with ledger.statement() as tx:
        store(tx, 1, [intent()])
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    with ThreadPoolExecutor(1) as threads:
        with ledger.transaction() as claiming:
            assert tasks.claim(claiming, hint, worker="w", lease_s=60) is not None

            def late() -> None:
                with ledger.statement() as tx:
                    store(tx, 2, [intent()])

            future = threads.submit(late)
            _wait_for_lock(ledger)
        future.result(10)
    assert len(waiting(ledger)) == 1


def _claim(ledger: Ledger, hint: Hint, claimed: list[Task | None]) -> None:
    with ledger.statement() as tx:
        claimed.append(tasks.claim(tx, hint, worker="w", lease_s=60))


def _wait_for_lock(ledger: Ledger) -> None:
    """Return as soon as some session of this database waits for a lock."""
    event = threading.Event()
    for _ in range(1000):
        with ledger.statement() as tx:
            row = tx.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
        if row and row[0]:
            return
        event.wait(0.01)
    pytest.fail("no session came to wait for a lock")
