"""Prometheus metrics: each worker counts its attempts, each dispatcher measures the ledger.

Counters and histograms live in the process that sees the event. Depths and ages are read from the
ledger when a dispatcher is scraped; every dispatcher tells the same, so one of them is enough.
Served only when a port is configured, on the loopback address unless told otherwise.
"""

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.errors import DicomqError
from archive.ledger import gates, measures
from archive.ledger.connection import Ledger
from archive.ledger.measures import OpenCommitments
from archive.model.gates import DestinationGate, QueueLoad
from archive.model.task import Task, TaskStatus
from archive.telemetry import log_event
from workers import events

LOGGER = logging.getLogger(__name__)

LAST_PASS: Final = "dicomq_dispatcher_last_pass_timestamp_seconds"  # noqa: S105 - a metric
LEDGER_UP: Final = "dicomq_ledger_up"
START_DELAY_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600, 3600)
ATTEMPT_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)


class WorkerMetrics:
    """What a worker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        place = ("queue", "destination")
        self._outcomes = Counter(
            "dicomq_attempts",
            "Attempts that ended, by what became of the task.",
            (*place, "status"),
            registry=self.registry,
        )
        self._retries = Counter(
            "dicomq_retries", "Attempts after a failed one.", place, registry=self.registry
        )
        self._running = Gauge(
            "dicomq_worker_running", "Attempts under way here.", ("queue",), registry=self.registry
        )
        self._start_delay = Histogram(
            "dicomq_start_delay_seconds",
            "From the due time of a task to the start of the attempt.",
            ("queue",),
            buckets=START_DELAY_S,
            registry=self.registry,
        )
        self._attempt = Histogram(
            "dicomq_attempt_seconds",
            "From the start of an attempt until it is recorded.",
            place,
            buckets=ATTEMPT_S,
            registry=self.registry,
        )

    @contextlib.contextmanager
    def attempt(self, task: Task) -> Iterator[None]:
        """Measure the attempt that `task` was claimed for, which is the block."""
        destination = task.remote_aet or ""
        if task.start_time is not None:
            delay_s = (task.start_time - task.scheduled_time).total_seconds()
            self._start_delay.labels(task.queue_name).observe(max(0.0, delay_s))
        if task.failures:
            self._retries.labels(task.queue_name, destination).inc()
        began_s = SYSTEM_CLOCK.monotonic()
        with self._running.labels(task.queue_name).track_inprogress():
            yield
        seconds = SYSTEM_CLOCK.monotonic() - began_s
        self._attempt.labels(task.queue_name, destination).observe(seconds)

    def ended(self, task: Task, status: str) -> None:
        """Count an attempt by the status it led to, or by the word for none."""
        self._outcomes.labels(task.queue_name, task.remote_aet or "", status).inc()


class DispatcherMetrics:
    """What a dispatcher counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.dispatched = Counter(
            "dicomq_dispatched", "Tasks handed over.", ("queue",), registry=self.registry
        )
        self.recalled = Counter(
            "dicomq_recalled",
            "Tasks handed over again because their hint was lost.",
            ("queue",),
            registry=self.registry,
        )
        self.rescued = Counter(
            "dicomq_rescued",
            "Tasks taken from workers that were lost.",
            ("queue",),
            registry=self.registry,
        )
        self.last_pass = Gauge(
            LAST_PASS,
            "When this dispatcher last completed a pass, Unix time.",
            registry=self.registry,
        )


class LedgerCollector(Collector):
    """Measures the ledger when it is asked.

    Parameters
    ----------
    device_name
        Device whose tasks are measured.
    """

    def __init__(self, ledger: Ledger, device_name: str) -> None:
        self._ledger = ledger
        self._device_name = device_name

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges; only `dicomq_ledger_up` while PostgreSQL cannot be reached."""
        up = GaugeMetricFamily(LEDGER_UP, "Whether PostgreSQL answers.")
        try:
            families = self._read()
        except DicomqError:
            families = []
        up.add_metric([], 1 if families else 0)
        return iter([up, *families])

    def _read(self) -> list[GaugeMetricFamily]:
        device = self._device_name
        with self._ledger.statement() as tx:
            return [
                *_loads(gates.queue_loads(tx, device)),
                *_gates(gates.queue_pauses(tx, device), gates.destinations(tx, device)),
                *_commitments(measures.open_commitments(tx, device)),
            ]


def _loads(loads: Mapping[str, QueueLoad]) -> Iterator[GaugeMetricFamily]:
    depth = _gauge("dicomq_queue_tasks", "Unfinished tasks.", "queue", "status")
    due = _gauge("dicomq_queue_due", "Tasks due and not handed over.", "queue")
    flying = _gauge("dicomq_queue_in_flight", "Tasks handed over or in process.", "queue")
    oldest = _gauge("dicomq_queue_oldest_due_seconds", "Age of the oldest due task.", "queue")
    now = SYSTEM_CLOCK.now()
    for name, load in loads.items():
        depth.add_metric([name, TaskStatus.SCHEDULED], load.waiting)
        depth.add_metric([name, TaskStatus.SCHEDULED_FOR_RETRY], load.retrying)
        depth.add_metric([name, TaskStatus.IN_PROCESS], load.running)
        due.add_metric([name], load.due)
        flying.add_metric([name], load.in_flight)
        age_s = (now - load.oldest_due).total_seconds() if load.oldest_due else 0.0
        oldest.add_metric([name], max(0.0, age_s))
    yield from (depth, due, flying, oldest)


def _gates(
    pauses: Collection[str], destinations: Mapping[str, DestinationGate]
) -> Iterator[GaugeMetricFamily]:
    paused = _gauge("dicomq_queue_paused", "1 for a queue that is paused.", "queue")
    for name in pauses:
        paused.add_metric([name], 1)
    closed = _gauge("dicomq_destination_paused", "1 for a paused one.", "destination", "cause")
    for title, gate in destinations.items():
        closed.add_metric([title, "operator"], int(gate.pause is not None))
        closed.add_metric([title, "unreachable"], int(gate.tripped_time is not None))
    yield from (paused, closed)


def _commitments(commitments: Iterable[OpenCommitments]) -> Iterator[GaugeMetricFamily]:
    waiting = _gauge("dicomq_commitments_open", "Requests without report.", "destination")
    age = _gauge("dicomq_commitments_oldest_seconds", "Age of the oldest one.", "destination")
    overdue = _gauge(
        "dicomq_commitments_overdue", "Not fulfilled in time, within the last hour.", "destination"
    )
    for each in commitments:
        waiting.add_metric([each.remote_aet], each.count)
        age.add_metric([each.remote_aet], each.oldest_s)
        overdue.add_metric([each.remote_aet], each.overdue)
    yield from (waiting, age, overdue)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


@contextlib.contextmanager
def served(registry: CollectorRegistry, settings: Settings) -> Iterator[None]:
    """Serve metrics at ``http://<metrics_address>:<metrics_port>/metrics`` during the block.

    A port that is taken is logged and nothing is served: work goes on without metrics.
    """
    port, address = settings.metrics_port, settings.metrics_address
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        message = (
            f"metrics are not served on port {port} of {address}: {error}; "
            "correct DICOMQ_METRICS_PORT or DICOMQ_METRICS_ADDRESS"
        )
        log_event(LOGGER, events.METRICS_UNAVAILABLE, level=logging.WARNING, message=message)
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
