"""Changes of many tasks: progress is seen, they can be stopped, and pages answer meanwhile."""

import json
from typing import Any

import pytest

from archive.ledger.connection import Ledger
from tests.fix_monitor import Monitor
from tests.fix_process import wait_until

TASKS = 30_000
CHUNK = 2000
INSERT = """
INSERT INTO task (kind, queue_name, device_name, scheduled_time, local_aet, remote_aet,
                  exporter_id, study_instance_uid)
SELECT 'EXPORT', 'Export', 'dcm4chee-arc', now() + interval '1 d', 'DCM4CHEE', 'STORESCP',
       'STORESCP', '1.2.' || i
FROM generate_series(1, %s) i
"""


@pytest.fixture
def many_tasks(ledger: Ledger) -> int:
    """Many tasks that wait until tomorrow."""
    with ledger.transaction() as tx:
        tx.execute(INSERT, (TASKS,))
    return TASKS


def ask(monitor: Monitor, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
    method = "GET" if body is None else "POST"
    answer = monitor.ask(path, method, body=None if body is None else json.dumps(body))
    assert answer.status < 300, answer.body
    return json.loads(answer.body)


def finished(monitor: Monitor, job_id: str) -> dict[str, Any]:
    def state() -> dict[str, Any] | None:
        found: dict[str, Any] = ask(monitor, f"/dicom/api/bulk/{job_id}")
        return found if found["finished"] else None

    found = wait_until(state, deadline_s=90, what="the bulk change to end")
    assert found is not None
    return found


def test_progress_and_stop(monitor: Monitor, many_tasks: int) -> None:
    wanted = "/dicom/api/tasks/{}?status=SCHEDULED&queue=Export"
    preview = ask(monitor, wanted.format("preview"), {"operation": "cancel"})
    assert preview["changed"] == many_tasks

    job = ask(monitor, wanted.format("bulk"), {"operation": "cancel"})
    wait_until(lambda: ask(monitor, f"/dicom/api/bulk/{job['id']}")["visited"], what="progress")
    assert monitor.ask("/dicom/queues").status == 200
    ask(monitor, f"/dicom/api/bulk/{job['id']}/stop", {})

    stopped = finished(monitor, job["id"])
    assert stopped["stopped"]
    assert 0 < stopped["changed"] < many_tasks
    assert stopped["changed"] % CHUNK == 0
    rest = ask(monitor, wanted.format("bulk"), {"operation": "cancel"})
    ended = finished(monitor, rest["id"])
    assert (ended["stopped"], ended["changed"]) == (False, many_tasks - stopped["changed"])


def test_everything_is_not_meant_by_accident(monitor: Monitor) -> None:
    answer = monitor.ask("/dicom/api/tasks/bulk", "POST", body='{"operation": "delete"}')

    assert answer.status == 400
    assert monitor.ask("/dicom/api/bulk/4711").status == 400
