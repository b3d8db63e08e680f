"""Hosts whose clocks are wrong: the database's clock alone decides what is due and what is lost."""

from datetime import timedelta
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.ledger import tasks
from archive.model.task import TaskStatus
from tests.fix_engine import Engine
from tests.fix_process import missing

LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


def shifted(by: str) -> dict[str, str]:
    """Return the environment in which a process believes that it is earlier or later."""
    found = [
        path for place in LIBRARIES for path in Path(place).glob("**/faketime/libfaketime.so.1")
    ]
    if not found:
        missing("libfaketime is not installed (apt-get install faketime)")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize(("dispatcher", "worker"), [("-3h", "+2h"), ("+2h", "-3h")])
def test_only_the_clock_of_the_database_counts(
    engine: Engine, dispatcher: str, worker: str
) -> None:
    """Due times, retries and leases are kept as if all clocks were right."""
    engine.start_dispatcher(**shifted(dispatcher))
    process = engine.start_worker(**shifted(worker))
    assert SYSTEM_CLOCK.now().isoformat()[:13] not in process.output(), "its clock is not shifted"
    longer_than_a_lease = engine.stage("steps:4")
    later = engine.stage(due_in_s=2)
    failing = engine.stage("bug")
    held = engine.await_status(longer_than_a_lease, TaskStatus.COMPLETED)
    assert (held.attempt, held.failures) == (1, 0)
    postponed = engine.await_status(later, TaskStatus.COMPLETED)
    assert postponed.start_time is not None
    assert timedelta() <= postponed.start_time - postponed.scheduled_time < timedelta(seconds=30)
    assert engine.await_status(failing, TaskStatus.FAILED).failures == 3
    with engine.ledger.statement() as tx:
        times = [each.time for pk in (later, failing) for each in tasks.history(tx, pk)]
    assert all(abs(SYSTEM_CLOCK.now() - time) < timedelta(minutes=5) for time in times)
