"""What operators do to tasks, through the service behind command line, REST and Flower."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from archive.configuration.descriptors import ArchiveDevice, Exporter, Snapshot
from archive.errors import IllegalTransitionError, InvalidValueError, NoSuchTaskError
from archive.ledger import deliveries, tasks
from archive.ledger.connection import Ledger
from archive.ledger.operations import Operation, PageOrder
from archive.model.retry import Finish, RetryIn
from archive.model.task import Failure, NewTask, Outcome, Task, TaskKind, TaskStatus
from archive.model.task_filter import BulkProgress, TaskFilter, TimeRange
from workers.operations import BulkRun, Operations, Target, UnknownNameError, position_of

DEVICE = "dcm4chee-arc"
S = TaskStatus
ENDED = {
    S.COMPLETED: Outcome(S.COMPLETED, "all delivered"),
    S.WARNING: Outcome(S.WARNING, "some delivered", Failure.PERMANENT),
    S.FAILED: Outcome(S.FAILED, "none delivered", Failure.PERMANENT),
    S.CANCELED: Outcome(S.CANCELED, "stopped"),
}


def exporter(exporter_id: str, queue: str, aet: str | None = "ARC2") -> Exporter:
    return Exporter(exporter_id, "dicom", f"TO-{exporter_id}", queue, aet=aet)


@dataclass(frozen=True)
class FixedSource:
    """A configuration with the exporters A and B, and C without local AE."""

    def snapshot(self) -> Snapshot:
        exporters = [exporter("A", "QA"), exporter("B", "QB"), exporter("C", "QC", None)]
        device = ArchiveDevice(
            name=DEVICE,
            aes={},
            exporters={each.exporter_id: each for each in exporters},
            queues={},
            storages={},
        )
        return Snapshot(device, {}, (), "1")


@pytest.fixture
def service(ledger: Ledger) -> Operations:
    return Operations(ledger, FixedSource(), actor="anna@pacs")


NEW = NewTask(TaskKind.EXPORT, "QA", DEVICE, "ARC", "TO-A", "1.2.3", exporter_id="A")


def stage(ledger: Ledger, new: NewTask = NEW, count: int = 1) -> list[int]:
    with ledger.transaction() as tx:
        return [
            tasks.stage(
                tx, replace(new, study_instance_uid=f"{new.study_instance_uid}.{n}"), actor="t"
            )
            for n in range(count)
        ]


def claim(ledger: Ledger, queue: str = "QA") -> Task:
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, queue, 1)
        task = tasks.claim(tx, hint, worker="w", lease_s=60)
    assert task is not None
    return task


def put(ledger: Ledger, status: TaskStatus, new: NewTask = NEW) -> int:
    """Bring a new task into a status and return its primary key."""
    (pk,) = stage(ledger, new)
    if status is S.SCHEDULED:
        return pk
    task = claim(ledger, new.queue_name)
    if status is S.IN_PROCESS:
        return pk
    with ledger.transaction() as tx:
        if status is S.SCHEDULED_FOR_RETRY:
            tasks.finish(tx, task, ENDED[S.FAILED], RetryIn(1e6), actor="w")
        else:
            tasks.finish(tx, task, ENDED[status], Finish(status), actor="w")
    return pk


def get(ledger: Ledger, pk: int) -> Task:
    with ledger.statement() as tx:
        return tasks.get(tx, pk)


# --- one task


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (S.SCHEDULED, S.CANCELED),
        (S.SCHEDULED_FOR_RETRY, S.CANCELED),
        (S.IN_PROCESS, S.IN_PROCESS),
        (S.COMPLETED, None),
        (S.WARNING, None),
        (S.FAILED, None),
        (S.CANCELED, None),
    ],
)
def test_cancel_one(
    ledger: Ledger, service: Operations, before: TaskStatus, after: TaskStatus | None
) -> None:
    pk = put(ledger, before)
    if after is None:
        with pytest.raises(IllegalTransitionError, match=f"task {pk} is {before} already"):
            service.cancel(pk)
        assert get(ledger, pk).status is before
    else:
        assert service.cancel(pk) is after
        assert get(ledger, pk).cancel_requested == (before is S.IN_PROCESS)


@pytest.mark.parametrize("before", list(S))
def test_reschedule_one(ledger: Ledger, service: Operations, before: TaskStatus) -> None:
    """Every status may be rescheduled; a running task is stopped first and scheduled then."""
    pk = put(ledger, before)
    at = datetime(2100, 1, 1, tzinfo=UTC)
    after = service.reschedule(pk, Target(at=at))
    task = get(ledger, pk)
    if before is S.IN_PROCESS:
        assert (after, task.status, task.cancel_requested) == (S.IN_PROCESS, S.IN_PROCESS, True)
        with ledger.transaction() as tx:
            tasks.finish(tx, task, ENDED[S.CANCELED], Finish(S.CANCELED), actor="w")
        task = get(ledger, pk)
    else:
        assert after is S.SCHEDULED
    assert (task.status, task.scheduled_time, task.failures) == (S.SCHEDULED, at, 0)
    assert task.round == 1 + (before is S.COMPLETED)
    assert task.error_message is None


@pytest.mark.parametrize("before", list(S))
def test_delete_one(ledger: Ledger, service: Operations, before: TaskStatus) -> None:
    pk = put(ledger, before)
    service.delete(pk)
    with pytest.raises(NoSuchTaskError):
        service.show(pk)


def test_cancel_after_reschedule_of_a_running_task_wins(
    ledger: Ledger, service: Operations
) -> None:
    pk = put(ledger, S.IN_PROCESS)
    service.reschedule(pk)
    service.cancel(pk)
    with ledger.transaction() as tx:
        running = tasks.get(tx, pk)
        tasks.finish(tx, running, ENDED[S.CANCELED], Finish(S.CANCELED), actor="w")
    assert get(ledger, pk).status is S.CANCELED


def test_missing_task_is_named(service: Operations) -> None:
    for act in (service.cancel, service.reschedule, service.delete, service.show):
        with pytest.raises(NoSuchTaskError, match="there is no task 4711"):
            act(4711)


def test_another_exporter_brings_queue_and_titles(ledger: Ledger, service: Operations) -> None:
    """A new round begins: what went to the old destination does not count for the new one."""
    pk = put(ledger, S.FAILED)
    service.reschedule(pk, Target(exporter_id="B"))
    task = get(ledger, pk)
    assert (task.exporter_id, task.queue_name, task.local_aet, task.remote_aet, task.round) == (
        *("B", "QB", "ARC2", "TO-B"),
        2,
    )
    assert claim(ledger, "QB").pk == pk


RETRIEVE = replace(NEW, kind=TaskKind.RETRIEVE, queue_name="Retrieve", exporter_id=None)


@pytest.mark.parametrize(
    ("new", "status", "target", "error", "words"),
    [
        (NEW, S.FAILED, Target(exporter_id="X"), UnknownNameError, "no exporter X .*A, B, C"),
        (NEW, S.FAILED, Target(exporter_id="C"), UnknownNameError, "names no local AE"),
        (NEW, S.FAILED, Target(queue_name="X"), UnknownNameError, "there is no queue X"),
        (NEW, S.FAILED, Target(queue_name="QB"), IllegalTransitionError, "EXPORT is no retrieve"),
        (
            RETRIEVE,
            S.FAILED,
            Target(exporter_id="B"),
            IllegalTransitionError,
            "RETRIEVE is no export",
        ),
        (NEW, S.IN_PROCESS, Target(exporter_id="B"), IllegalTransitionError, "cancel it before"),
        (
            NEW,
            S.FAILED,
            Target(exporter_id="B", queue_name="QB"),
            InvalidValueError,
            "either a new exporter or",
        ),
    ],
)
def test_refused_places(
    ledger: Ledger,
    service: Operations,
    new: NewTask,
    status: TaskStatus,
    target: Target,
    error: type[Exception],
    words: str,
) -> None:
    pk = put(ledger, status, new)
    before = get(ledger, pk)
    with pytest.raises(error, match=words):
        service.reschedule(pk, target)
    assert get(ledger, pk) == before


def test_another_queue_for_a_retrieve(ledger: Ledger, service: Operations) -> None:
    pk = put(ledger, S.FAILED, RETRIEVE)
    service.reschedule(pk, Target(queue_name="QB"))
    assert get(ledger, pk).queue_name == "QB"


# --- looking


def test_show_tells_the_history(ledger: Ledger, service: Operations) -> None:
    pk = put(ledger, S.FAILED)
    service.reschedule(pk)
    report = service.show(pk)
    assert report.task.pk == pk
    assert [each.to_status for each in report.history] == [
        *(S.SCHEDULED, S.IN_PROCESS, S.FAILED, S.SCHEDULED)
    ]
    assert report.history[-1].actor == "anna@pacs"
    assert report.summary is not None


def test_walk_visits_each_task_once(ledger: Ledger, service: Operations) -> None:
    """Page by page, in either direction, also among equal times."""
    pks = stage(ledger, count=7)
    for order in PageOrder:
        found = [task.pk for task in service.walk(TaskFilter(), order=order)]
        assert sorted(found) == pks
        paged: list[int] = []
        first = service.page(TaskFilter(), order=order, limit=3)
        paged = [task.pk for task in first]
        assert paged == found[:3]
        second = service.page(TaskFilter(), order=order, after=position_of(first[-1], order))
        assert [task.pk for task in second] == found[3:]
    assert len(list(service.walk(TaskFilter(), limit=5))) == 5
    assert list(service.walk(TaskFilter(), limit=0)) == []


@pytest.mark.parametrize("order", PageOrder)
@pytest.mark.parametrize(
    "statuses", [(S.FAILED,), (S.FAILED, S.CANCELED), (S.COMPLETED, S.FAILED, S.FAILED)]
)
def test_pages_of_statuses_are_parts_of_the_whole(
    ledger: Ledger, service: Operations, order: PageOrder, statuses: tuple[TaskStatus, ...]
) -> None:
    """In order, also among equal times, from any task on, and within any range of changes."""
    for status in (S.FAILED, S.CANCELED, S.COMPLETED, S.WARNING) * 3:
        put(ledger, status)
    with ledger.statement() as tx:
        tx.execute(
            "UPDATE task SET updated_time = date_trunc('day', now()) + mod(pk, 4) * interval '1 h'"
        )
    whole = [task for task in service.walk(TaskFilter(), order=order) if task.status in statuses]
    wanted = TaskFilter(statuses=statuses)
    assert service.page(wanted, order=order) == whole
    for place, task in enumerate(whole):
        after = position_of(task, order)
        rest = whole[place + 1 :]
        assert service.page(wanted, order=order, after=after) == rest
        assert service.page(wanted, order=order, after=after, limit=2) == rest[:2]
    since = min(task.updated_time for task in whole)
    until = since + timedelta(hours=2)
    spans = [
        (TimeRange(since=until), lambda time: time >= until),
        (TimeRange(until=until), lambda time: time < until),
        (TimeRange(since, until), lambda time: since <= time < until),
    ]
    for span, matches in spans:
        narrowed = [task for task in whole if matches(task.updated_time)]
        assert service.page(replace(wanted, updated=span), order=order) == narrowed
        if len(narrowed) > 1:
            after = position_of(narrowed[0], order)
            page = service.page(replace(wanted, updated=span), order=order, after=after)
            assert page == narrowed[1:]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (TaskFilter(queue_names=("QA",)), 3),
        (TaskFilter(queue_names=("QA", "QB")), 4),
        (TaskFilter(kinds=(TaskKind.RETRIEVE,)), 1),
        (TaskFilter(statuses=(S.FAILED,)), 1),
        (TaskFilter(statuses=(S.FAILED, S.SCHEDULED)), 5),
        (TaskFilter(exporter_ids=("A",)), 4),
        (TaskFilter(local_aets=("ARC",), remote_aets=("TO-B",)), 1),
        (TaskFilter(destination_aets=("TO-B",)), 0),
        (TaskFilter(batch_ids=("nightly",)), 1),
        (TaskFilter(device_names=("elsewhere",)), 0),
        (TaskFilter(study_instance_uids=("1.2.3.0",)), 5),
        (TaskFilter(task_pks=(1, 2, 99)), 2),
        (TaskFilter(created=TimeRange(since=datetime(2100, 1, 1, tzinfo=UTC))), 0),
        (TaskFilter(scheduled=TimeRange(until=datetime(2100, 1, 1, tzinfo=UTC))), 5),
        (TaskFilter(), 5),
    ],
)
def test_filters(ledger: Ledger, service: Operations, wanted: TaskFilter, expected: int) -> None:
    """List, count and change agree on what a filter means."""
    put(ledger, S.FAILED)
    stage(ledger)
    stage(ledger, replace(NEW, batch_id="nightly"))
    stage(ledger, replace(NEW, queue_name="QB", remote_aet="TO-B"))
    stage(ledger, RETRIEVE)
    assert len(service.page(wanted)) == expected
    assert service.count(wanted) == expected
    assert sum(service.count_by_status(wanted).values()) == expected
    assert service.preview(Operation.DELETE, wanted).visited == expected
    assert service.change(Operation.DELETE, wanted).changed == expected


def test_batches(ledger: Ledger, service: Operations) -> None:
    stage(ledger, replace(NEW, batch_id="b1"), count=3)
    stage(ledger, replace(NEW, batch_id="b1", exporter_id="B", queue_name="QB"))
    put(ledger, S.COMPLETED, replace(NEW, batch_id="b2", queue_name="QC"))
    stage(ledger)
    last, first = service.batches(TaskFilter())
    assert (last.batch_id, last.counts) == ("b2", {S.COMPLETED: 1})
    assert (first.batch_id, first.counts, first.exporter_ids) == (
        "b1",
        {S.SCHEDULED: 4},
        ("A", "B"),
    )
    assert first.created[0] < first.created[1]
    assert [b.batch_id for b in service.batches(TaskFilter(statuses=(S.SCHEDULED,)))] == ["b1"]


# --- many tasks


def all_statuses(ledger: Ledger) -> dict[TaskStatus, int]:
    """Stage a task in each status; return their primary keys."""
    return {
        status: put(
            ledger, status, replace(NEW, queue_name=f"Q{number}", study_instance_uid=f"1.{number}")
        )
        for number, status in enumerate(S)
    }


@pytest.mark.parametrize(
    ("operation", "target", "changed", "skipped"),
    [
        (
            Operation.CANCEL,
            Target(),
            {"SCHEDULED", "SCHEDULED FOR RETRY", "IN PROCESS"},
            {"COMPLETED", "WARNING", "FAILED", "CANCELED"},
        ),
        (Operation.RESCHEDULE, Target(), set(S), set()),
        (Operation.RESCHEDULE, Target(exporter_id="B"), set(S) - {S.IN_PROCESS}, {"IN PROCESS"}),
        (Operation.DELETE, Target(), set(S), set()),
    ],
)
def test_bulk_says_what_it_did(
    ledger: Ledger,
    service: Operations,
    operation: Operation,
    target: Target,
    changed: set[str],
    skipped: set[str],
) -> None:
    """The dry run tells the same, and changes nothing."""
    pks = all_statuses(ledger)
    expected = service.preview(operation, TaskFilter(), target)
    assert {status: get(ledger, pk).status for status, pk in pks.items()} == {s: s for s in S}
    done = service.change(operation, TaskFilter(), target, BulkRun(chunk=3))
    assert dict(done.changed_from) == dict.fromkeys(changed, 1)
    assert dict(done.skipped) == dict.fromkeys(skipped, 1)
    assert (expected.changed_from, expected.skipped) == (done.changed_from, done.skipped)
    assert done.visited == len(S)
    assert done.last_pk is None


def test_bulk_stops_when_told(ledger: Ledger, service: Operations) -> None:
    """Between two chunks; what is done stays done, and the count so far is returned."""
    stage(ledger, count=10)
    seen: list[BulkProgress] = []

    def note(progress: BulkProgress) -> bool:
        seen.append(progress)
        return len(seen) < 2

    done = service.change(Operation.CANCEL, TaskFilter(), run=BulkRun(note, chunk=3))
    assert [progress.changed for progress in seen] == [3, 6]
    assert done.last_pk is not None
    assert service.count_by_status(TaskFilter()) == {S.CANCELED: 6, S.SCHEDULED: 4}
    again = service.change(Operation.CANCEL, TaskFilter(statuses=(S.SCHEDULED,)))
    assert (again.changed, again.last_pk) == (4, None)


def test_bulk_reschedule_does_not_meet_its_own_results(ledger: Ledger, service: Operations) -> None:
    stage(ledger, count=5)
    wanted = TaskFilter(statuses=(S.SCHEDULED,))
    done = service.change(Operation.RESCHEDULE, wanted, run=BulkRun(chunk=2))
    assert done.changed == 5


def test_every_change_is_stamped(ledger: Ledger, service: Operations) -> None:
    """Decision 20: updated time and history also of bulk changes."""
    (pk,) = stage(ledger)
    before = get(ledger, pk).updated_time
    service.change(Operation.CANCEL, TaskFilter(task_pks=(pk,)))
    report = service.show(pk)
    assert report.task.updated_time > before
    assert (report.history[-1].actor, report.history[-1].reason) == ("anna@pacs", "canceled")


def test_unknown_exporter_changes_nothing(ledger: Ledger, service: Operations) -> None:
    stage(ledger, count=3)
    for act in (service.preview, service.change):
        with pytest.raises(UnknownNameError):
            act(Operation.RESCHEDULE, TaskFilter(), Target(exporter_id="X"))
    assert service.count_by_status(TaskFilter()) == {S.SCHEDULED: 3}


def work(ledger: Ledger) -> list[int]:
    """Be a worker until nothing comes any more; return the tasks that were completed."""
    completed: list[int] = []
    idle = 0
    while idle < 20:
        with ledger.transaction() as tx:
            hints = tasks.dispatch(tx, DEVICE, "QA", 8)
        with ledger.statement() as tx:
            held = [tasks.claim(tx, hint, worker="w", lease_s=60) for hint in hints]
            tasks.renew(tx, hints, lease_s=60)
        for task in filter(None, held):
            with ledger.transaction() as tx:
                outcome, decision = ENDED[S.COMPLETED], Finish(S.COMPLETED)
                if tasks.finish(tx, task, outcome, decision, actor="w") is S.COMPLETED:
                    completed.append(task.pk)
        idle = 0 if hints else idle + 1
    return completed


@pytest.mark.parametrize("operation", list(Operation))
def test_bulk_against_claiming_workers(
    ledger: Ledger, service: Operations, operation: Operation
) -> None:
    """Workers claim, renew and finish while all tasks are changed: nothing is lost or doubled."""
    total = 300
    stage(ledger, count=total)
    with ThreadPoolExecutor(4) as threads:
        workers = [threads.submit(work, ledger) for _ in range(3)]
        done = service.change(operation, TaskFilter(), run=BulkRun(chunk=7))
        completed = [pk for worker in workers for pk in worker.result()]
    completed += work(ledger)
    assert done.visited == total
    counts = service.count_by_status(TaskFilter())
    match operation:
        case Operation.DELETE:
            assert (done.changed, counts) == (total, {})
        case Operation.CANCEL:
            assert counts[S.CANCELED] + counts.get(S.COMPLETED, 0) == total
            assert len(set(completed)) == len(completed) == counts.get(S.COMPLETED, 0)
        case Operation.RESCHEDULE:
            assert counts == {S.COMPLETED: total}
            assert set(completed) == {task.pk for task in service.walk(TaskFilter())}


def test_results_of_an_export_are_shown(ledger: Ledger, service: Operations) -> None:
    """A task that never ran has none; its summary is zero."""
    (pk,) = stage(ledger)
    report = service.show(pk)
    assert report.results == ()
    with ledger.statement() as tx:
        assert report.summary == deliveries.summary(tx, report.task)
    assert service.extents([pk])[pk].num_instances is None


def test_scheduled_time_is_taken_as_given(ledger: Ledger, service: Operations) -> None:
    """Noon is noon (decision 19)."""
    (pk,) = stage(ledger)
    noon = datetime(2100, 6, 1, 12, 0, tzinfo=UTC)
    service.reschedule(pk, Target(at=noon))
    assert get(ledger, pk).scheduled_time - noon == timedelta(0)
