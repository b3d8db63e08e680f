"""The circuit breaker of destinations, with real peers: trips, probes, opens."""

from collections.abc import Callable
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import AssociationAbortedError, PeerTimeoutError, PeerUnreachableError
from archive.ledger import gates, tasks
from archive.ledger.connection import TASK_CHANNEL, Ledger
from archive.ledger.gates import Gate
from archive.model.entities import DeliverySummary
from archive.model.gates import CircuitPolicy, GateState
from archive.model.task import NewTask, Task, TaskKind, TaskStatus
from tests.fix_objects import generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import free_port
from tests.fix_system import System
from workers.breaker import Breaker, BreakerConfig
from workers.probing import route_to, send_echo
from workers.tally import Tally, outcome

DEVICE = "dcm4chee-arc"
ONE_FAILURE = CircuitPolicy(failures=1, probe_delays_s=(0.0, 60.0))


def breaker(system: System, policy: CircuitPolicy = ONE_FAILURE) -> Breaker:
    source = open_source(Settings.from_environment(system.environment))
    config = BreakerConfig(DEVICE, policy)
    return Breaker(system.ledger, source, SYSTEM_CLOCK, config=config)


def trip(ledger: Ledger, remote_aet: str = "STORESCP", local_aet: str = "DCM4CHEE") -> Task:
    """Let a destination count as unreachable, its first probe being due."""
    new = NewTask(TaskKind.RETRIEVE, "Export", DEVICE, local_aet, remote_aet, "1.2.3")
    with ledger.transaction() as tx:
        task = tasks.get(tx, tasks.stage(tx, new, actor="test"))
        assert gates.note_failure(tx, task, "refused", ONE_FAILURE)
    return task


def state(ledger: Ledger, remote_aet: str = "STORESCP") -> GateState:
    with ledger.statement() as tx:
        found = gates.destinations(tx, DEVICE).get(remote_aet)
    return found.state if found else GateState.OPEN


def test_an_answer_opens_the_gate(idle_system: System, store_scp: Callable[..., StoreScp]) -> None:
    """And wakes the dispatchers."""
    idle_system.place_peer("STORESCP", store_scp().port)
    trip(idle_system.ledger)
    with idle_system.ledger.listen(TASK_CHANNEL) as listener:
        assert breaker(idle_system).run_once() == 1
        assert listener.wait(10)
    assert state(idle_system.ledger) is GateState.OPEN
    assert breaker(idle_system).run_once() == 0


def test_silence_keeps_it_closed(idle_system: System) -> None:
    """One C-ECHO per step: after the first, the next is a minute away."""
    idle_system.place_peer("STORESCP", free_port())
    trip(idle_system.ledger)
    prober = breaker(idle_system)
    assert prober.run_once() == 0
    with idle_system.ledger.statement() as tx:
        gate = gates.destinations(tx, DEVICE)["STORESCP"]
        assert gates.take_probes(tx, DEVICE, lease_s=60, limit=9) == []
    assert (gate.state, gate.probes) == (GateState.PROBING, 1)
    assert gate.last_error is not None
    assert "connection refused" in gate.last_error


def test_what_is_not_configured_is_probed_on(idle_system: System) -> None:
    """An AE that was taken out of the directory stays paused, with the reason."""
    trip(idle_system.ledger, "GONE")
    breaker(idle_system).run_once()
    with idle_system.ledger.statement() as tx:
        gate = gates.destinations(tx, DEVICE)["GONE"]
    assert gate.last_error is not None
    assert "needs the remote AE GONE" in gate.last_error


def test_another_local_ae_calls_when_the_first_is_gone(
    idle_system: System, store_scp: Callable[..., StoreScp]
) -> None:
    idle_system.place_peer("STORESCP", store_scp().port)
    trip(idle_system.ledger, local_aet="GONE")
    assert breaker(idle_system).run_once() == 1


def test_several_destinations_are_probed_at_once(
    idle_system: System, store_scp: Callable[..., StoreScp]
) -> None:
    """A silent one does not keep the others from being found."""
    idle_system.place_peer("STORESCP", store_scp().port)
    idle_system.place_peer("IANSCP", free_port())
    trip(idle_system.ledger, "IANSCP")
    trip(idle_system.ledger)
    assert breaker(idle_system).run_once() == 1
    assert state(idle_system.ledger) is GateState.OPEN
    assert state(idle_system.ledger, "IANSCP") is GateState.PROBING


def test_peer_without_verification_is_there(idle_system: System) -> None:
    """An accepted association without the context is an answer."""
    peer = StoreScp()
    peer._ae.remove_supported_context("1.2.840.10008.1.1")  # noqa: SLF001 - our own fixture
    peer.start()
    try:
        idle_system.place_peer("STORESCP", peer.port)
        snapshot = open_source(Settings.from_environment(idle_system.environment)).snapshot()
        assert send_echo(route_to(snapshot, "STORESCP")) is None
    finally:
        peer.stop()


@pytest.mark.parametrize(
    ("tally", "unreached"),
    [
        (Tally(remaining=3, stopped_by=PeerUnreachableError("x")), True),
        (Tally(remaining=3, stopped_by=AssociationAbortedError("x")), True),
        (Tally(remaining=2, transient=1, stopped_by=PeerTimeoutError("x")), True),
        (Tally(remaining=2, transient=1, stopped_by=AssociationAbortedError("x")), False),
        (Tally(remaining=2, completed=1, stopped_by=PeerTimeoutError("x")), False),
        (Tally(completed=3), False),
        (Tally(transient=3), False),
    ],
)
def test_what_counts_as_unreached(tally: Tally, unreached: bool) -> None:
    """Only attempts in which the peer did nothing."""
    ended = outcome("export", tally, DeliverySummary(0, 0, 0), cancelled=False)
    assert ended.unreached is unreached


@pytest.mark.timeout(180)
def test_a_dead_destination_burns_no_retries(
    idle_system: System, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    """Its tasks wait, others run; when it is back everything is delivered."""
    port = free_port()
    idle_system.queue(
        "STORESCP", "dcmMaxTasksParallel: 1", "dcmMaxRetries: 1", "dcmRetryDelay: PT1S"
    )
    idle_system.export_to(port, duration="PT0.1S")
    for name in ("scp-0", "dispatcher", "export"):
        idle_system.start(name)
    studies = generate_studies(tmp_path / "objects", studies=5)
    idle_system.store_all({uid: path for study in studies for uid, path in study.files.items()})
    idle_system.wait_until(
        lambda: state(idle_system.ledger) is GateState.PROBING, what="the destination to be paused"
    )
    idle_system.wait_until(
        lambda: all(task.status != "IN PROCESS" for task in idle_system.tasks()),
        what="nothing to be running",
    )
    waiting = idle_system.tasks()
    assert sum(task.failures for task in waiting) <= 2
    assert {task.status for task in waiting} <= {"SCHEDULED", "SCHEDULED FOR RETRY", "FAILED"}
    held = [task for task in waiting if task.error_message and "is probed" in task.error_message]
    assert [task.status for task in held] == ["SCHEDULED FOR RETRY"]
    peer = store_scp(port=port)
    with idle_system.ledger.transaction() as tx:
        gates.resume_destination(tx, Gate(DEVICE, "STORESCP"))
    assert len({each.sop_instance_uid for each in peer.wait_for(5)}) == 5
    idle_system.wait_until_idle()
    assert {task.status for task in idle_system.tasks("EXPORT")} == {TaskStatus.COMPLETED}
