"""How costs grow with what is stored: the same work for two archives, in turn.

    python -m benchmarks.growth [--studies 1000000] [--rounds 7] [--objects 400] [--queries 200]

fills one archive with 1,000 studies and another with many, of two series each, sends small objects
of new studies to both, and asks both for studies by Study Instance UID. Processor time is that of
the SCP and of PostgreSQL.
"""

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from archive.clock import SYSTEM_CLOCK
from benchmarks import find, report
from benchmarks.receive import SOP_ROOT, TEMPLATES, Case, Figures, measure
from benchmarks.receivers import Receiver, durable_postgres, start_dicomq
from benchmarks.stock import size_bytes, stock

FEW = 1000


@dataclass
class Stocked:
    """An archive that holds `studies`, and what it was measured to need.

    Attributes
    ----------
    start_ms
        Until the SCP listened.
    objects
        Of receiving, seconds per 100 objects.
    query_wall_ms, query_cpu_ms
        Medians, and processor time per query, by round.
    """

    studies: int
    receiver: Receiver
    size_bytes: int
    start_ms: float
    objects: Figures = field(default_factory=Figures)
    query_wall_ms: list[float] = field(default_factory=list)
    query_cpu_ms: list[float] = field(default_factory=list)

    def receive(self, number: int, objects: int) -> None:
        """Send objects of a new study; the first round only warms up."""
        figures = self.objects if number else Figures()
        case = Case(TEMPLATES["small"], 1, objects)
        measure(self.receiver, case, f"{SOP_ROOT}.{number + 1}", figures)

    def query(self, number: int, count: int) -> None:
        """Ask for studies that are there; the first round only warms up."""
        identifiers = find.queries(self.studies, count)["Study Instance UID"]()
        with find.association(self.receiver.port, self.receiver.called_aet) as opened:
            cpu = self.receiver.cpu_s()
            times, _ = find.measure(opened, identifiers)
            used = self.receiver.cpu_s() - cpu
        if number:
            self.query_wall_ms.append(statistics.median(times) * 1000)
            self.query_cpu_ms.append(used / count * 1000)

    def medians(self) -> dict[str, float]:
        """Return milliseconds per object and per query."""
        return {
            "time per object": statistics.median(self.objects.wall_s) * 10,
            "CPU per object": statistics.median(self.objects.cpu_s) * 10,
            "time per query": statistics.median(self.query_wall_ms),
            "CPU per query": statistics.median(self.query_cpu_ms),
            "start of an SCP": self.start_ms,
        }


def stocked(where: Path, url: str, postgres: psutil.Process, studies: int) -> Stocked:
    """Fill an archive and start an SCP."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
        connection.execute("SELECT pg_reload_conf()")
    began = SYSTEM_CLOCK.monotonic()
    stock(url, studies)
    took = SYSTEM_CLOCK.monotonic() - began
    size = size_bytes(url)
    print(f"{studies:,} studies: {size / 1e6:.0f} MB, filled in {took:.0f} s", flush=True)
    began = SYSTEM_CLOCK.monotonic()
    receiver = start_dicomq(where, url, postgres, name=f"with {studies}")
    start_s = SYSTEM_CLOCK.monotonic() - began
    return Stocked(studies, receiver, size, start_s * 1000)


def compare(archives: Sequence[Stocked], options: argparse.Namespace) -> None:
    """Do the same to all archives, in turn."""
    for number in range(options.rounds + 1):
        for each in archives:
            each.receive(number, options.objects)
        for each in archives:
            each.query(number, options.queries)
        print(f"round {number} of {options.rounds} done", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=400, help="objects per round")
    parser.add_argument("--queries", type=int, default=200, help="queries per round")
    report.add_option(parser)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name,
        contextlib.ExitStack() as stack,
    ):
        where = Path(name)
        postgres, *urls = stack.enter_context(durable_postgres(where))
        archives: list[Stocked] = []
        for url, studies in zip(urls, (FEW, options.studies), strict=True):
            archives.append(stocked(where, url, postgres, studies))
            stack.callback(archives[-1].receiver.stop)
        compare(archives, options)
    few, many = (each.medians() for each in archives)
    print(f"| ms | {FEW:,} studies | {options.studies:,} | × |\n|---|---|---|---|")
    figures = {
        "bytes of the ledger per study of 2 objects": archives[1].size_bytes / archives[1].studies
    }
    for what, value in few.items():
        ratio = many[what] / value
        print(f"| {what} | {value:.2f} | {many[what]:.2f} | {ratio:.2f} |")
        figures[f"{what}, {options.studies:,} studies / {FEW:,}"] = ratio
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
