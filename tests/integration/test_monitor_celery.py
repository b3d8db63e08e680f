"""Flower's own pages tell the truth: what the ledger has as failed is no success there."""

import json
from pathlib import Path

from archive.model.task import TaskStatus
from tests.fix_engine import Engine
from tests.fix_monitor import protected, start_monitor
from tests.fix_process import wait_until

STATES = {
    "noop": (TaskStatus.COMPLETED, "SUCCESS"),
    "permanent": (TaskStatus.FAILED, "FAILURE"),
    "transient": (TaskStatus.SCHEDULED_FOR_RETRY, "RETRY"),
}


def test_celery_states_follow_the_ledger(engine: Engine, tmp_path: Path) -> None:
    engine.configure({"Export": {"dcmMaxRetries": "3", "dcmRetryDelay": "PT1H"}})
    monitor = start_monitor(engine.environment, tmp_path / "flower.log", *protected())
    try:
        engine.start_worker()
        engine.start_dispatcher()
        pks = {script: engine.stage(script, queue="Export") for script in STATES}
        for script, (status, _) in STATES.items():
            engine.await_status(pks[script], status)

        def states() -> dict[str, tuple[str, str]]:
            found = json.loads(monitor.ask("/api/tasks").body)
            return {
                uuid: (task["state"], str(task["exception"] or task["result"]))
                for uuid, task in found.items()
            }

        ended = {"SUCCESS", "FAILURE", "RETRY"}
        wait_until(
            lambda: len([1 for state, _ in states().values() if state in ended]) == len(STATES),
            what="Flower to hear how the tasks ended",
        )
        told = states()
        for script, (status, state) in STATES.items():
            shown, words = told[f"{pks[script]}.1"]
            assert shown == state
            assert status in words
    finally:
        monitor.process.stop()
