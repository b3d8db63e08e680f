"""Flower's pages with many tasks: how long the server takes for each, and in which state.

    python -m benchmarks.pages [--tasks 1000000] [--rounds 9]

Fills a fresh PostgreSQL like `benchmarks.ledger`, starts Flower over it, and asks for every page as
a browser does: the first time (nothing was counted before), again, and as the live part. Times are
from the request to the last byte of the answer, over loopback; beside them stands the processor
time of the Flower process.
"""

import argparse
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger.connection import Ledger
from benchmarks import report
from benchmarks.ledger import filled_server
from tests.fix_engine import DEVICE_DN
from tests.fix_monitor import Monitor, start_monitor
from tests.fix_process import free_port
from tests.fix_redis import RedisServer, redis_binary

LIMIT_MS = 200.0
EXPORTERS = 5
PAGES = {
    "Overview": "/dicom",
    "Destinations, last hour": "/dicom/destinations",
    "Destinations, last day": "/dicom/destinations?span=day",
    "Queues": "/dicom/queues",
    "Queues, page in the middle": "/dicom/queues?after=2026-01-01T00:00:00%2B00:00~1",
    "Queues by status": "/dicom/queues?orderby=status",
    "Queues by queue": "/dicom/queues?orderby=-queue",
    "Queues, failed": "/dicom/queues?status=FAILED",
    "Queues, failed or warning": "/dicom/queues?status=FAILED&status=WARNING",
    "Queues, one queue and status": "/dicom/queues?queue=Export3&status=SCHEDULED",
    "Queues, exporter that has none": "/dicom/queues?ExporterID=NOPE",
    "Queues, local AE that has none": "/dicom/queues?LocalAET=NOPE",
    "Queues, device that has none": "/dicom/queues?dicomDeviceName=nobody",
    "Queues, batch that has none": "/dicom/queues?batchID=nothing",
    "Queues, retrieves to an AE": "/dicom/queues?DestinationAET=NOPE",
    "Task": "/dicom/tasks/777",
    "Studies": "/dicom/studies",
    "Rules": "/dicom/rules",
    "REST, page of 50": "/dcm4chee-arc/monitor/export?limit=50",
    "REST, count failed": "/dcm4chee-arc/monitor/export/count?status=FAILED",
}


@dataclass(frozen=True)
class Asked:
    """How long an answer took, in milliseconds."""

    wall_ms: float
    cpu_ms: float


@contextmanager
def flower(count: int) -> Iterator[tuple[Monitor, Ledger]]:
    """Run Flower over a ledger of `count` tasks."""
    with tempfile.TemporaryDirectory(prefix="dicomq-pages-") as name:
        directory = Path(name)
        entries = EmbeddedDirectory(directory / "directory.ldif")
        entries.create(default_entries())
        for record in parse_ldif("\n".join(map(_exporter, range(EXPORTERS))).encode()).records:
            entries.apply(record)
        redis = RedisServer(redis_binary() or "redis-server", directory, free_port())
        redis.start()
        try:
            with filled_server(count) as (url, ledger):
                environment = {
                    "DATABASE_URL": url,
                    "REDIS_URL": redis.url,
                    "DICOMQ_DATA": str(directory),
                }
                monitor = start_monitor(environment, directory / "flower.log")
                monitor.user = None
                try:
                    yield monitor, ledger
                finally:
                    monitor.process.stop()
        finally:
            redis.stop()


def _exporter(number: int) -> str:
    return (
        f"dn: dcmExporterID=STORE{number},{DEVICE_DN}\nchangetype: add\nobjectClass: dcmExporter\n"
        f"dcmExporterID: STORE{number}\ndcmURI: dicom:PACS{number}\ndcmQueueName: Export{number}\n"
        "dicomAETitle: DCM4CHEE\n"
    )


def asked(monitor: Monitor, path: str, *, part: bool = False) -> Asked:
    """Ask for a page and return how long it took."""
    headers = {"X-Part": "1"} if part else {}
    request = urllib.request.Request(f"{monitor.url}{path}", headers=headers)  # noqa: S310 - ours
    process = psutil.Process(monitor.process.pid)
    before, started = sum(process.cpu_times()[:2]), time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - ours
        answer.read()
    wall = time.perf_counter() - started
    return Asked(wall * 1000, (sum(process.cpu_times()[:2]) - before) * 1000)


def measure(monitor: Monitor, rounds: int) -> dict[str, float]:
    """Print a table; return the longest first answer and the longest median."""
    print(f"{'':<34} {'first':>9} {'median':>9} {'worst':>9} {'part':>9} {'CPU':>9}")
    slowest = {"first answer": 0.0, "median": 0.0}
    for name, path in PAGES.items():
        first = asked(monitor, path)
        again = [asked(monitor, path) for _ in range(rounds)]
        parts = [asked(monitor, path, part=True).wall_ms for _ in range(rounds)]
        median = statistics.median(each.wall_ms for each in again)
        worst = max(each.wall_ms for each in again)
        cpu = statistics.mean(each.cpu_ms for each in again)
        missed = max(first.wall_ms, median) > LIMIT_MS
        slowest["first answer"] = max(slowest["first answer"], first.wall_ms)
        slowest["median"] = max(slowest["median"], median)
        times = (first.wall_ms, median, worst, statistics.median(parts), cpu)
        shown = " ".join(f"{each:>6.0f} ms" for each in times)
        print(f"{name:<34} {shown}{'  MISSED' if missed else ''}", flush=True)
    return {f"longest {name} of any page": value for name, value in slowest.items()}


def main() -> int:
    """Measure, print, and return whether the target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    report.add_option(parser)
    arguments = parser.parse_args()
    print(f"filling a ledger with {arguments.tasks:,} tasks ...", flush=True)
    with flower(arguments.tasks) as (monitor, _ledger):
        figures = measure(monitor, arguments.rounds)
    report.write(arguments.json, figures)
    return 0 if max(figures.values()) <= LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
