"""Pauses of queues and destinations, and what the circuit breaker counts, in the ledger."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from archive.ledger import gates, tasks
from archive.ledger.connection import TASK_CHANNEL, Ledger
from archive.ledger.gates import Gate
from archive.ledger.queries import load_queries
from archive.model.gates import CircuitPolicy, GateState
from archive.model.retry import Finish, RetryIn
from archive.model.task import Failure, Hint, NewTask, Outcome, Task, TaskKind, TaskStatus

DEVICE = "dcm4chee-arc"
QUEUE = Gate(DEVICE, "Export")
PACS = Gate(DEVICE, "PACS")
POLICY = CircuitPolicy(failures=3, probe_delays_s=(60.0, 120.0))
DONE = Outcome(TaskStatus.COMPLETED, "all delivered")
REFUSED = Outcome(TaskStatus.FAILED, "refused", Failure.TRANSIENT, unreached=True)


def stage(
    ledger: Ledger,
    remote_aet: str = "PACS",
    *,
    queue: str = "Export",
    count: int = 1,
    due_in_s: float = 0.0,
) -> list[int]:
    new = NewTask(
        TaskKind.RETRIEVE, queue, DEVICE, "DCM4CHEE", remote_aet, "1.2.3", due_in_s=due_in_s
    )
    with ledger.transaction() as tx:
        return [tasks.stage(tx, new, actor="test") for _ in range(count)]


def dispatch(ledger: Ledger, limit: int = 9, queue: str = "Export") -> list[Hint]:
    with ledger.transaction() as tx:
        return tasks.dispatch(tx, DEVICE, queue, limit)


def waiting(ledger: Ledger) -> list[str]:
    with ledger.statement() as tx:
        return [each.name for each in tasks.waiting_queues(tx, DEVICE)]


def claim(ledger: Ledger, hint: Hint) -> Task | None:
    with ledger.statement() as tx:
        return tasks.claim(tx, hint, worker="w", lease_s=60)


def running(ledger: Ledger, remote_aet: str = "PACS") -> Task:
    """Return a fresh task that is being processed."""
    stage(ledger, remote_aet)
    (hint,) = dispatch(ledger, limit=1000)
    task = claim(ledger, hint)
    assert task is not None
    return task


def fail(ledger: Ledger, task: Task, policy: CircuitPolicy = POLICY) -> bool:
    """End an attempt that did not reach the destination; return whether it is paused now."""
    with ledger.transaction() as tx:
        tripped = gates.note_failure(tx, task, REFUSED.message, policy)
        tasks.finish(tx, task, REFUSED, Finish(TaskStatus.FAILED), actor="w")
    return tripped


def trip(ledger: Ledger) -> None:
    assert [fail(ledger, running(ledger)) for _ in range(3)] == [False, False, True]


def test_paused_queue_hands_nothing_over(ledger: Ledger) -> None:
    """Others go on; the queue is not reported as waiting, so that dispatchers do not spin."""
    stage(ledger)
    stage(ledger, queue="Other")
    with ledger.transaction() as tx:
        assert gates.pause_queue(tx, QUEUE, actor="anna", reason="backup")
        assert not gates.pause_queue(tx, QUEUE, actor="ben", reason="me too")
    assert waiting(ledger) == ["Other"]
    assert dispatch(ledger) == []
    assert len(dispatch(ledger, queue="Other")) == 1
    with ledger.transaction() as tx:
        (pause,) = gates.queue_pauses(tx, DEVICE).values()
    assert (pause.actor, pause.reason) == ("anna", "backup")
    with ledger.listen(TASK_CHANNEL) as listener:
        with ledger.transaction() as tx:
            assert gates.resume_queue(tx, QUEUE)
        assert listener.wait(10)
    assert waiting(ledger) == ["Export"]
    assert len(dispatch(ledger)) == 1
    with ledger.transaction() as tx:
        assert not gates.resume_queue(tx, QUEUE)


@pytest.mark.parametrize("pause", ["queue", "destination"])
def test_hint_of_a_paused_task_is_refused(ledger: Ledger, pause: str) -> None:
    """A task that was with the broker when the pause came goes back to waiting, unharmed."""
    (pk,) = stage(ledger)
    (hint,) = dispatch(ledger)
    with ledger.transaction() as tx:
        if pause == "queue":
            gates.pause_queue(tx, QUEUE, actor="anna", reason="")
        else:
            gates.pause_destination(tx, PACS, actor="anna", reason="")
    assert claim(ledger, hint) is None
    assert waiting(ledger) == []
    with ledger.transaction() as tx:
        gates.resume_queue(tx, QUEUE)
        gates.resume_destination(tx, PACS)
    (again,) = dispatch(ledger)
    assert (again.task_pk, again.attempt) == (pk, hint.attempt + 1)
    assert claim(ledger, again) is not None


def test_paused_destination_is_stepped_over(ledger: Ledger) -> None:
    """Tasks of one queue to other destinations run, in the order in which they are due."""
    stage(ledger, "PACS", count=20, due_in_s=-9)
    later = stage(ledger, "OTHER", due_in_s=-1)
    earlier = stage(ledger, "ANOTHER", due_in_s=-5)
    with ledger.transaction() as tx:
        assert gates.pause_destination(tx, PACS, actor="anna", reason="upgrade")
        assert not gates.pause_destination(tx, PACS, actor="ben", reason="")
    assert waiting(ledger) == ["Export"]
    assert [hint.task_pk for hint in dispatch(ledger, limit=2)] == earlier + later
    assert waiting(ledger) == []
    assert dispatch(ledger, limit=9) == []
    with ledger.statement() as tx:
        found = gates.destinations(tx, DEVICE)["PACS"]
        assert gates.destination_loads(tx, DEVICE) == {"PACS": 20, "OTHER": 1, "ANOTHER": 1}
    assert (found.state, found.pause and found.pause.reason) == (GateState.PAUSED, "upgrade")
    with ledger.transaction() as tx:
        assert gates.resume_destination(tx, PACS)
    assert len(dispatch(ledger, limit=9)) == 7


def test_task_without_destination_is_dispatched(ledger: Ledger) -> None:
    """An empty destination is one of its own and never paused."""
    stage(ledger, "")
    assert waiting(ledger) == ["Export"]
    assert len(dispatch(ledger)) == 1


def test_gates_belong_to_a_device(ledger: Ledger) -> None:
    """Another device's pauses do not count."""
    stage(ledger)
    with ledger.transaction() as tx:
        gates.pause_queue(tx, Gate("other", "Export"), actor="anna", reason="")
        gates.pause_destination(tx, Gate("other", "PACS"), actor="anna", reason="")
        assert gates.queue_pauses(tx, DEVICE) == {}
    assert len(dispatch(ledger)) == 1


def test_loads_of_queues(ledger: Ledger) -> None:
    """Counts of unfinished tasks, and the oldest of those that are due."""
    stage(ledger, count=3, due_in_s=-100)
    stage(ledger, count=2, due_in_s=100)
    with ledger.statement() as tx:
        before = gates.queue_loads(tx, DEVICE)["Export"]
    (first, _) = dispatch(ledger, limit=2)
    task = claim(ledger, first)
    assert task is not None
    with ledger.statement() as tx:
        load = gates.queue_loads(tx, DEVICE)["Export"]
    assert (before.waiting, before.due, before.in_flight) == (5, 3, 0)
    assert (load.waiting, load.running, load.in_flight, load.retrying) == (4, 1, 2, 0)
    assert before.oldest_due is not None
    assert load.oldest_due is not None
    assert load.oldest_due > before.oldest_due


@pytest.mark.parametrize("is_reachable", [True, False])
def test_nobody_is_late_with_what_waits_for_a_closed_destination(
    ledger: Ledger, *, is_reachable: bool
) -> None:
    """What a paused or unreachable destination keeps waiting is due, not overdue."""
    if is_reachable:
        with ledger.transaction() as tx:
            gates.pause_destination(tx, PACS, actor="anna", reason="upgrade")
    else:
        trip(ledger)
    stage(ledger, due_in_s=-100)
    with ledger.statement() as tx:
        held = gates.queue_loads(tx, DEVICE)["Export"]
    stage(ledger, "OTHER", due_in_s=-50)
    with ledger.statement() as tx:
        late = gates.queue_loads(tx, DEVICE)["Export"]
    assert held.due >= 1
    assert held.oldest_due is None
    assert late.due == held.due + 1
    assert late.oldest_due is not None


def test_failures_in_a_row_trip(ledger: Ledger) -> None:
    """At the threshold the destination is paused and probed; others are not touched."""
    trip(ledger)
    stage(ledger)
    stage(ledger, "OTHER")
    assert len(dispatch(ledger)) == 1
    with ledger.statement() as tx:
        (gate,) = gates.destinations(tx, DEVICE).values()
    assert (gate.remote_aet, gate.state, gate.failures) == ("PACS", GateState.PROBING, 3)
    assert gate.last_error == "refused"
    assert gate.since is not None
    assert gate.next_probe_time is not None
    assert (gate.next_probe_time - gate.since).total_seconds() == pytest.approx(60, abs=1)


def test_success_ends_the_row(ledger: Ledger) -> None:
    """Two failures, a success, two failures: not in a row."""
    for outcome in (None, None, DONE, None, None):
        task = running(ledger)
        if outcome is None:
            assert not fail(ledger, task)
        else:
            with ledger.transaction() as tx:
                tasks.finish(tx, task, DONE, Finish(TaskStatus.COMPLETED), actor="w")
    stage(ledger)
    assert len(dispatch(ledger)) == 1


def test_success_of_a_running_task_closes_the_circuit(ledger: Ledger) -> None:
    """A transfer that began before the trip and succeeds after it proves the peer is there."""
    late = running(ledger)
    trip(ledger)
    with ledger.transaction() as tx:
        tasks.finish(tx, late, DONE, Finish(TaskStatus.COMPLETED), actor="w")
    stage(ledger)
    assert len(dispatch(ledger)) == 1
    with ledger.statement() as tx:
        assert gates.destinations(tx, DEVICE) == {}


def test_threshold_zero_never_trips(ledger: Ledger) -> None:
    never = CircuitPolicy(failures=0)
    assert not any(fail(ledger, running(ledger), never) for _ in range(5))


def test_concurrent_failures_are_all_counted(ledger: Ledger) -> None:
    """Tasks that fail at the same moment do not overwrite each other's count."""
    stage(ledger, count=8)
    held = [claim(ledger, hint) for hint in dispatch(ledger)]
    failing = [task for task in held if task is not None]
    with ThreadPoolExecutor(8) as threads:
        tripped = list(threads.map(lambda task: fail(ledger, task), failing))
    assert sorted(tripped) == [False, False, *[True] * 6]
    with ledger.statement() as tx:
        assert gates.destinations(tx, DEVICE)["PACS"].failures == 8


def test_one_prober_at_a_time(ledger: Ledger) -> None:
    """A due probe is taken once; it is due again when its prober does not come back."""
    trip(ledger)
    with ledger.transaction() as tx:
        assert gates.take_probes(tx, DEVICE, lease_s=60, limit=9) == []
        gates.resume_destination(tx, PACS)

    def take(_: int) -> int:
        with ledger.transaction() as tx:
            return len(gates.take_probes(tx, DEVICE, lease_s=0, limit=9))

    def take_long(_: int) -> int:
        with ledger.transaction() as tx:
            return len(gates.take_probes(tx, DEVICE, lease_s=60, limit=9))

    with ThreadPoolExecutor(4) as threads:
        assert take(0) == 1
        assert sum(threads.map(take_long, range(4))) == 1


def test_probe_results(ledger: Ledger) -> None:
    """Silence moves the next probe on, an answer opens the gate; results come late harmlessly."""
    trip(ledger)
    with ledger.transaction() as tx:
        gates.resume_destination(tx, PACS)
        (probe,) = gates.take_probes(tx, DEVICE, lease_s=60, limit=9)
        assert (probe.remote_aet, probe.local_aet, probe.probes) == ("PACS", "DCM4CHEE", 1)
        assert gates.probe_failed(tx, DEVICE, probe, error="timed out", delay_s=120)
        gate = gates.destinations(tx, DEVICE)["PACS"]
        assert (gate.last_error, gate.probes, gate.state) == ("timed out", 1, GateState.PROBING)
        assert gates.close_circuit(tx, PACS)
        assert not gates.close_circuit(tx, PACS)
        assert not gates.probe_failed(tx, DEVICE, probe, error="late", delay_s=120)
        assert gates.destinations(tx, DEVICE) == {}


def test_operators_pause_outlives_the_breaker(ledger: Ledger) -> None:
    """While somebody keeps it paused it is not probed; resuming probes at once."""
    trip(ledger)
    with ledger.transaction() as tx:
        gates.resume_destination(tx, PACS)
        gates.pause_destination(tx, PACS, actor="anna", reason="")
        assert gates.take_probes(tx, DEVICE, lease_s=60, limit=9) == []
        gates.close_circuit(tx, PACS)
        assert gates.destinations(tx, DEVICE)["PACS"].state is GateState.PAUSED
    stage(ledger)
    assert dispatch(ledger) == []


def most_rows(plan: dict[str, Any]) -> float:
    """Return the most rows that any node of a plan saw, thrown away ones included."""
    own = sum(plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter"))
    return max([float(own), *map(most_rows, plan.get("Plans", ()))])


@pytest.mark.parametrize("query", ["waiting_queues", "dispatch"])
def test_blocked_tasks_are_not_scanned(ledger: Ledger, query: str) -> None:
    """However many tasks wait for a paused destination, a pass looks at one of them."""
    with ledger.statement() as tx:
        tx.execute(
            "INSERT INTO task (kind, queue_name, device_name, scheduled_time, remote_aet)"
            " SELECT 'RETRIEVE', 'Export', %s, now() - interval '1 day', 'PACS'"
            " FROM generate_series(1, 20000)",
            (DEVICE,),
        )
        tx.execute("VACUUM ANALYZE task")
        gates.pause_destination(tx, PACS, actor="anna", reason="")
    stage(ledger, "OTHER", count=3)
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("tasks")[query]
    parameters = {"device_name": DEVICE, "queue_name": "Export", "limit": 9}
    with ledger.transaction() as tx:
        row = tx.execute(explain, parameters).fetchone()
    assert row is not None
    assert most_rows(row[0][0]["Plan"]) < 20


def test_held_attempt_is_not_counted(ledger: Ledger) -> None:
    """Release keeps the failures and shows the reason; the retry is due at once."""
    task = running(ledger)
    with ledger.transaction() as tx:
        tasks.finish(tx, task, REFUSED, RetryIn(0.0), actor="w")
    (hint,) = dispatch(ledger)
    again = claim(ledger, hint)
    assert again is not None
    with ledger.transaction() as tx:
        tasks.release(tx, again, actor="w", reason="held", error_message="PACS is probed")
        held = tasks.get(tx, task.pk)
    assert (held.status, held.failures) == (TaskStatus.SCHEDULED_FOR_RETRY, 1)
    assert held.error_message == "PACS is probed"
