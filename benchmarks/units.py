"""What one unit of work costs each process: the figures behind `python -m benchmarks.capacity`.

    python -m benchmarks.units [--rounds 3] [--objects 1000] [--studies 200]

A system of one process of each kind receives, exports and announces studies of different sizes.
Cost is linear in objects and studies, so that few large studies and many small ones tell both
apart; exporting is what a run with a rule costs beyond one without, notifying the same. The peers'
own processor time does not count. PostgreSQL's flushes are those of its write-ahead log.
"""

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from archive.clock import SYSTEM_CLOCK
from benchmarks import report
from benchmarks.pipeline import EXPLICIT, IAN, OrdinarySystem, add_route, dicomq, study_of
from benchmarks.receive import TEMPLATES, Template, send
from benchmarks.routers import start_destination

PER_LARGE_STUDY = 50
_NAMES = {"scp-0": "scp", "export": "worker", "notify": "worker", "dispatcher": "dispatcher"}
_FLUSHES = b"SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
_STATISTICS_S = 11.0
"""After that time an idle backend has told what it has not yet told (PGSTAT_IDLE_INTERVAL)."""
_COUNTERS = b"""
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn,
       (SELECT count(*) FROM task
        WHERE status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS')),
       pg_database_size(current_database())
"""

Costs = dict[str, float]
"""Milliseconds of processor time by process; kilobytes; flushes of the write-ahead log."""
Units = tuple[Costs, Costs]
"""Per object and per study."""


@dataclass
class Meter:
    """Reads what the processes of a system have used so far."""

    system: OrdinarySystem
    connection: psycopg.Connection

    def read(self) -> Costs:
        """Return the counters."""
        found: Costs = {}
        for name, process in self.system.processes.items():
            times = psutil.Process(process.pid).cpu_times()
            used_ms = (times.user + times.system) * 1000
            found[_NAMES[name]] = found.get(_NAMES[name], 0.0) + used_ms
        found["PostgreSQL"] = self._postgres_ms()
        wal, _, size = self._counters()
        return found | {"WAL kB": wal / 1000, "ledger kB": size / 1000}

    def flushes(self) -> float:
        """Wait until every backend has told its statistics; return the flushes of the log."""
        SYSTEM_CLOCK.sleep(_STATISTICS_S)
        row = self.connection.execute(_FLUSHES).fetchone()
        return float(row[0]) if row else 0.0

    def open_tasks(self) -> int:
        """Return how many tasks are not done."""
        return int(self._counters()[1])

    def _counters(self) -> tuple[float, ...]:
        row = self.connection.execute(_COUNTERS).fetchone()
        return tuple(float(value) for value in row or ())

    def _postgres_ms(self) -> float:
        server = psutil.Process(self.connection.info.backend_pid).parent()
        if server is None:
            return 0.0
        times = server.cpu_times()
        ended = times.children_user + times.children_system
        running = sum(sum(each.cpu_times()[:2]) for each in server.children())
        return float(times.user + times.system + ended + running) * 1000


@dataclass(frozen=True)
class Work:
    """Studies that are sent to a system as a certain AE, which says what is done with them."""

    name: str
    caller: str
    template: Template
    studies: int
    objects: int

    def perform(self, meter: Meter, prefix: str) -> Costs:
        """Send the studies, wait until all that follows is done, and return what that took."""
        batches = [
            study_of(self.template, f"{prefix}.{number}", self.objects)
            for number in range(self.studies)
        ]
        before = meter.read()
        for batch in batches:
            send(meter.system.port, "DCM4CHEE", batch, calling_aet=self.caller)
        while meter.open_tasks():
            SYSTEM_CLOCK.sleep(0.1)
        after = meter.read()
        return {name: after[name] - before[name] for name in after}


@dataclass
class Measured:
    """What works took, one value per round, by what was counted."""

    costs: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, work: Work, costs: Costs) -> None:
        """Add what a round took."""
        kept = self.costs.setdefault(work.name, {})
        for name, value in costs.items():
            kept.setdefault(name, []).append(value)

    def median(self, work: Work) -> Costs:
        """Return medians."""
        return {name: statistics.median(each) for name, each in self.costs[work.name].items()}


def split(large: Costs, many: Costs, objects: tuple[int, int], studies: tuple[int, int]) -> Units:
    """Return the cost per object and per study of two works that differ in both.

    Parameters
    ----------
    objects, studies
        How many there were in `large` and in `many`.
    """
    determinant = objects[0] * studies[1] - objects[1] * studies[0]
    per_object = {
        name: (large[name] * studies[1] - many[name] * studies[0]) / determinant for name in large
    }
    per_study = {
        name: (many[name] * objects[0] - large[name] * objects[1]) / determinant for name in large
    }
    return per_object, per_study


def less(more: Costs, fewer: Costs) -> Costs:
    """Return by how much costs are higher; nothing is cheaper than free."""
    return {name: max(0.0, more[name] - fewer[name]) for name in more}


@contextlib.contextmanager
def ian_receiver(title: str) -> Iterator[int]:
    """Receive notifications; yield the port."""
    ae = AE(title)
    ae.add_supported_context(IAN, EXPLICIT)

    def take(_: Event) -> tuple[int, Dataset | None]:
        return 0x0000, None

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_CREATE, take)])
    if server is None:  # never, for one that does not block
        raise RuntimeError(title)
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def works(system: OrdinarySystem, port: int, options: argparse.Namespace) -> list[Work]:
    """Return what is received, sent and announced: few large studies, many small, long objects."""
    small, large_object = TEMPLATES["small"], TEMPLATES["ct512"]
    large = options.objects // PER_LARGE_STUDY
    sent = add_route(system, 1, port, dcmDuration="PT1S")
    announced = add_route(system, 2, port, dcmDuration="PT1S", notify="IANSCP")
    nobody = "NOBODY"
    return [
        Work("received, large", nobody, small, large, PER_LARGE_STUDY),
        Work("received, many", nobody, small, options.studies, 1),
        Work("sent, large", sent, small, large, PER_LARGE_STUDY),
        Work("sent, many", sent, small, options.studies, 1),
        Work("announced, many", announced, small, options.studies, 1),
        Work("received, long", nobody, large_object, large // 2, PER_LARGE_STUDY),
        Work("sent, long", sent, large_object, large // 2, PER_LARGE_STUDY),
    ]


def units(found: Measured, each: list[Work]) -> dict[str, Costs]:
    """Return what each unit of work costs."""
    large, many, sent_large, sent_many, announced, long, sent_long = each
    objects = (large.studies * large.objects, many.studies)
    studies = (large.studies, many.studies)
    received, study = split(found.median(large), found.median(many), objects, studies)
    both, with_task = split(found.median(sent_large), found.median(sent_many), objects, studies)
    further = less(found.median(announced), found.median(sent_many))
    per_mb = _per_megabyte(found.median(long), received, study, long)
    sent_per_mb = _per_megabyte(found.median(sent_long), both, with_task, sent_long)
    return {
        "object received": {name: max(0.0, value) for name, value in received.items()},
        "study received": {name: max(0.0, value) for name, value in study.items()},
        "MB received": per_mb,
        "object sent": less(both, received),
        "export task": less(with_task, study),
        "MB sent": less(sent_per_mb, per_mb),
        "notification": {name: value / announced.studies for name, value in further.items()},
    }


def _per_megabyte(total: Costs, per_object: Costs, per_study: Costs, work: Work) -> Costs:
    """Return what long objects cost beyond short ones, per MB."""
    objects = work.studies * work.objects
    longer_mb = objects * (work.template.length - TEMPLATES["small"].length) / 1e6
    return {
        name: max(0.0, total[name] - objects * per_object[name] - work.studies * per_study[name])
        / longer_mb
        for name in total
    }


def show(found: dict[str, Costs]) -> None:
    """Print a table."""
    names = list(next(iter(found.values())))
    print(f"| unit | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
    for unit, costs in found.items():
        print(f"| {unit} | {' | '.join(f'{costs[name]:.3f}' for name in names)} |")


def measure(meter: Meter, every: list[Work], rounds: int, directory: Path) -> Measured:
    """Do all works in turn, round by round, and once more to count flushes.

    Parameters
    ----------
    directory
        What the destination receives; emptied after each work.
    """
    found = Measured()
    for number in range(rounds + 1):
        for index, work in enumerate(every):
            costs = work.perform(meter, f"7{number}.{index}")
            _empty(directory)
            if number:  # the first round warms up
                found.add(work, costs)
        print(f"round {number} of {rounds} done", flush=True)
    before = meter.flushes()
    for index, work in enumerate(every):
        work.perform(meter, f"6.{index}")
        after = meter.flushes()
        found.add(work, {"flushes": after - before})
        before = after
    return found


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=1000, help="objects in studies of 50")
    parser.add_argument("--studies", type=int, default=200, help="studies of one object")
    report.add_option(parser)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicomq-bench-")))
        system = stack.enter_context(dicomq(where))
        destination = start_destination(where, "destination", nagle=False)
        stack.callback(destination.process.kill)
        system.place_peer("IANSCP", stack.enter_context(ian_receiver("IANSCP")))
        connection = psycopg.connect(system.database_url, autocommit=True)
        meter = Meter(system, stack.enter_context(connection))
        every = works(system, destination.port, options)
        measured = measure(meter, every, options.rounds, destination.directory)
    found = units(measured, every)
    show(found)
    report.write(
        options.json,
        {
            f"{unit}: {name}": value
            for unit, costs in found.items()
            for name, value in costs.items()
        },
    )


if __name__ == "__main__":
    main()
