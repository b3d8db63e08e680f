"""Metrics and logs of running processes."""

import json
from collections.abc import Callable
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from archive.model.task import TaskStatus
from tests.fix_engine import QUEUE, Engine
from tests.fix_process import free_port, wait_until

PLACE = {"queue": QUEUE, "destination": "STORESCP"}


def scrape(port: int) -> Callable[..., float]:
    """Read the metrics on a port; return a function that looks a value up."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_a_worker_counts_its_attempts(engine: Engine) -> None:
    port = free_port()
    engine.start_dispatcher()
    engine.start_worker(DICOMQ_METRICS_PORT=str(port))
    engine.stage_many(3)
    engine.stage("permanent")
    engine.await_all_done()

    def counted() -> bool:
        return scrape(port)("dicomq_attempts_total", **PLACE, status="FAILED") == 1

    wait_until(counted, what="the last attempt to be counted")
    value = scrape(port)
    assert value("dicomq_attempts_total", **PLACE, status="COMPLETED") == 3
    assert value("dicomq_start_delay_seconds_count", queue=QUEUE) == 4
    assert 0 < value("dicomq_start_delay_seconds_sum", queue=QUEUE) < 20
    assert value("dicomq_attempt_seconds_count", **PLACE) == 4
    assert value("dicomq_worker_running", queue=QUEUE) == 0


def test_retries_are_counted(engine: Engine) -> None:
    port = free_port()
    engine.configure({QUEUE: {"dcmMaxRetries": "1", "dcmRetryDelay": "PT0.1S"}})
    engine.start_dispatcher()
    engine.start_worker(DICOMQ_METRICS_PORT=str(port), DICOMQ_BREAKER_FAILURES="0")
    engine.await_status(engine.stage("transient"), TaskStatus.FAILED)
    retried = "dicomq_attempts_total"
    wait_until(lambda: scrape(port)(retried, **PLACE, status="FAILED") == 1, what="the end")
    value = scrape(port)
    assert value("dicomq_retries_total", **PLACE) == 1
    assert value(retried, **PLACE, status="SCHEDULED FOR RETRY") == 1


def test_a_dispatcher_measures_the_ledger(engine: Engine) -> None:
    port = free_port()
    engine.configure({QUEUE: {"dcmMaxTasksParallel": "2"}})
    engine.stage_many(5)
    engine.stage(due_in_s=3600)
    engine.start_dispatcher(DICOMQ_METRICS_PORT=str(port))
    # A pass commits, publishes and only then counts: what it counted is in flight.
    wait_until(lambda: scrape(port)("dicomq_dispatched_total", queue=QUEUE) == 2, what="a pass")
    value = scrape(port)
    assert value("dicomq_ledger_up") == 1
    assert value("dicomq_directory_up") == 1
    assert value("dicomq_queue_in_flight", queue=QUEUE) == 2
    assert value("dicomq_queue_tasks", queue=QUEUE, status="SCHEDULED") == 6
    assert value("dicomq_queue_oldest_due_seconds", queue=QUEUE) > 0


def test_rescued_tasks_are_counted(engine: Engine) -> None:
    port = free_port()
    engine.start_dispatcher(DICOMQ_METRICS_PORT=str(port))
    worker = engine.start_worker()
    pk = engine.stage("steps:60")
    engine.await_status(pk, TaskStatus.IN_PROCESS)
    worker.kill()
    wait_until(lambda: scrape(port)("dicomq_rescued_total", queue=QUEUE) == 1, what="the rescue")
    assert engine.get(pk).failures == 1
    assert "stopped renewing its lease on attempt 1" in (engine.get(pk).error_message or "")


def test_a_taken_port_does_not_stop_work(engine: Engine) -> None:
    port = free_port()
    engine.start_dispatcher(DICOMQ_METRICS_PORT=str(port))
    worker = engine.start_worker(DICOMQ_METRICS_PORT=str(port))
    engine.await_status(engine.stage(), TaskStatus.COMPLETED)
    assert f"metrics are not served on port {port}" in worker.output()


def test_json_logs_name_task_and_attempt(engine: Engine) -> None:
    engine.start_dispatcher(DICOMQ_LOG_FORMAT="json")
    worker = engine.start_worker(DICOMQ_LOG_FORMAT="json")
    pk = engine.stage("permanent")
    engine.await_status(pk, TaskStatus.FAILED)
    wait_until(lambda: "task.finished" in worker.output(), what="the event")
    *lines, _being_written = worker.output().split("\n")
    [event] = [one for one in map(json.loads, lines) if one.get("event") == "task.finished"]
    assert (event["task"], event["attempt"], event["level"]) == (pk, 1, "WARNING")
    assert event["status"] == "FAILED"
    assert "STORESCP accepts no CT images" in event["message"]
