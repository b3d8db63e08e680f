"""Notifications that follow exports: staged once with the outcome, fixed at the first attempt."""

import pytest

from archive.errors import NoSuchTaskError
from archive.ledger import deliveries, notifications, objects, tasks
from archive.ledger.connection import Ledger
from archive.model.entities import (
    FixedNotification,
    InstanceReference,
    InstanceResult,
    ObjectAttributes,
    Reception,
    StoredFile,
    StorePolicy,
)
from archive.model.retry import Finish
from archive.model.task import (
    ExportEntity,
    ExportIntent,
    IanDetails,
    NewTask,
    Outcome,
    Task,
    TaskKind,
    TaskStatus,
)

DEVICE = "dcm4chee-arc"
STUDY = "1.2.3"
DETAILS = IanDetails(("STORESCP",), "ONLINE", None, "X")
IAN = NewTask(
    TaskKind.IAN, "IANSCU", DEVICE, "DCM4CHEE", "IANSCP", STUDY, exporter_id="X", ian=DETAILS
)
INTENT = ExportIntent("X", "Export", DEVICE, "DCM4CHEE", "STORESCP", ExportEntity.STUDY, 0.0)


def store(ledger: Ledger, number: int) -> None:
    """Store an object for which a rule demands an export."""
    attributes = ObjectAttributes(
        "1.2.4", f"1.2.3.1.{number}", STUDY, "1.2.3.1", "1.2.840.10008.1.2"
    )
    file = StoredFile("fs1", str(number), "1.2.840.10008.1.2", 10, 5, f"md5:{number}")
    with ledger.statement() as tx:
        reception = Reception("MODALITY", "DCM4CHEE")
        objects.store_object(
            tx, attributes, file, reception, intents=[INTENT], policy=StorePolicy()
        )


def export(ledger: Ledger) -> Task:
    """Run the due export with an IAN as its follow-up."""
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 1)
        task = tasks.claim(tx, hint, worker="w", lease_s=60)
    assert task is not None
    with ledger.statement() as tx:
        results = [
            InstanceResult(i.instance_pk, i.version, delivered=True, dimse_status=0)
            for i in deliveries.instances_to_send(tx, task)
        ]
        deliveries.record(tx, task, results)
    with ledger.transaction() as tx:
        done = Outcome(TaskStatus.COMPLETED, "done", follow_ups=(IAN,))
        tasks.finish(tx, task, done, Finish(done.status), actor="w")
    return task


def claimed_ian(ledger: Ledger) -> Task:
    """Claim the one due notification."""
    with ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "IANSCU", 1)
        task = tasks.claim(tx, hint, worker="w", lease_s=60)
    assert task is not None
    return task


def count(ledger: Ledger) -> int:
    """Return how many notification tasks there are in all."""
    with ledger.statement() as tx:
        return sum(n for (kind, _), n in tasks.count_by_status(tx).items() if kind is TaskKind.IAN)


def test_follow_ups_are_staged_with_the_outcome(ledger: Ledger) -> None:
    """A completed export leaves one waiting notification."""
    store(ledger, 1)
    export(ledger)
    assert count(ledger) == 1


def test_waiting_notification_covers_later_deliveries(ledger: Ledger) -> None:
    """Two exports before the first attempt of the notification give one N-CREATE for both."""
    store(ledger, 1)
    export(ledger)
    store(ledger, 2)
    export(ledger)
    assert count(ledger) == 1
    with ledger.statement() as tx:
        held = deliveries.held_by(tx, STUDY, "X")
    assert held == [InstanceReference("1.2.3.1", "1.2.4", f"1.2.3.1.{n}") for n in (1, 2)]


def test_delivery_after_the_notification_is_announced_anew(ledger: Ledger) -> None:
    """What the first notification could not name needs a second one."""
    store(ledger, 1)
    export(ledger)
    claimed_ian(ledger)
    store(ledger, 2)
    export(ledger)
    assert count(ledger) == 2


def test_repeated_attempt_that_delivers_nothing_new_announces_nothing_new(ledger: Ledger) -> None:
    """An export that finds everything delivered and announced stages no second notification."""
    store(ledger, 1)
    export(ledger)
    claimed_ian(ledger)
    store(ledger, 1)
    with ledger.transaction() as tx:
        pk = tasks.stage(
            tx,
            NewTask(TaskKind.EXPORT, "Export", DEVICE, "A", "STORESCP", STUDY, exporter_id="X"),
            actor="test",
        )
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 1)
        task = tasks.claim(tx, hint, worker="w", lease_s=60)
        assert task is not None
        assert task.pk == pk
        done = Outcome(TaskStatus.COMPLETED, "nothing left to send", follow_ups=(IAN,))
        tasks.finish(tx, task, done, Finish(done.status), actor="w")
    assert count(ledger) == 1


def test_notification_is_fixed_at_its_first_attempt(ledger: Ledger) -> None:
    """Later attempts get the same SOP Instance UID and data set, byte for byte."""
    store(ledger, 1)
    export(ledger)
    task = claimed_ian(ledger)
    seen: list[IanDetails] = []

    def build(details: IanDetails) -> FixedNotification | None:
        seen.append(details)
        return FixedNotification(f"2.25.{len(seen)}", '{"b":  1, "a": 2}')

    with ledger.transaction() as tx:
        first = notifications.load_or_fix(tx, task.pk, build)
    with ledger.transaction() as tx:
        second = notifications.load_or_fix(tx, task.pk, build)
    assert first == second == FixedNotification("2.25.1", '{"b":  1, "a": 2}')
    assert seen == [DETAILS]


def test_nothing_to_announce_is_not_fixed(ledger: Ledger) -> None:
    """A notification without instances is asked for again at its next attempt."""
    store(ledger, 1)
    export(ledger)
    task = claimed_ian(ledger)
    with ledger.transaction() as tx:
        assert notifications.load_or_fix(tx, task.pk, lambda _: None) is None
    with ledger.transaction() as tx:
        fixed = FixedNotification("2.25.1", "{}")
        assert notifications.load_or_fix(tx, task.pk, lambda _: fixed) == fixed


def test_other_tasks_are_no_notifications(ledger: Ledger) -> None:
    """The error names the task."""
    with pytest.raises(NoSuchTaskError, match="task 7 "), ledger.transaction() as tx:
        notifications.load_or_fix(tx, 7, lambda _: None)
