"""Shows the project's main job between real peers: ``make demo``.

Objects that a modality stores are exported by a rule to STORESCP, and IANSCP is told that they
are available there. Uses the system that ``make run`` has started, or starts one over a directory
of its own for as long as it takes. Ends with status 0 only if every object was received,
exported and announced.
"""

import contextlib
import fcntl
import os
import queue
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from archive.clock import SYSTEM_CLOCK
from archive.configuration.descriptors import ArchiveDevice
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import DicomqError
from archive.ledger import objects
from archive.ledger.connection import Ledger
from deploy.demo_format import dataset_lines, message_lines
from deploy.demo_network import Peers, Received, read_environment, start_system, store
from deploy.demo_objects import DemoStudy, write_studies
from deploy.embedded import StartError

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "deploy" / "ldap" / "samples"
ARCHIVE, STORESCP, IANSCP = "DCM4CHEE", "STORESCP", "IANSCP"
STORESCP_PORT, IANSCP_PORT = 11115, 11117
DEADLINE_S = 240.0
START_DEADLINE_S = 120.0


@dataclass
class Tally:
    """Which objects arrived where, by SOP Instance UID."""

    exported: set[str] = field(default_factory=set)
    notified: set[str] = field(default_factory=set)

    def note(self, received: Received) -> None:
        """Count a request that a peer took."""
        if received.command == "C-STORE-RQ":
            self.exported.add(received.uids["iuid"])
            return
        for series in received.dataset.get("ReferencedSeriesSequence", []):
            for item in series.ReferencedSOPSequence:
                self.notified.add(str(item.ReferencedSOPInstanceUID))


def main() -> int:
    """Play the demonstration; return the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="dicomq-demo-") as scratch,
            _system(Path(scratch), console) as environment,
        ):
            return _play(Path(scratch), environment, console)
    except (StartError, DicomqError, OSError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


@contextlib.contextmanager
def _system(scratch: Path, console: Console) -> Iterator[Mapping[str, str]]:
    """Give the environment of the running system, or of one that runs as long as the block."""
    data = Path(os.environ.get("DICOMQ_DATA") or "data").resolve()
    if _is_running(data):
        console.print(f"Using the system that runs on {data}.", markup=False)
        yield read_environment(data)
        return
    console.print("Starting a system for this demonstration ...")
    log = scratch / "run.log"
    process = start_system(scratch / "data", log)
    try:
        _wait_for_banner(process, log)
        yield read_environment(scratch / "data")
    finally:
        process.terminate()
        process.wait()


def _is_running(data: Path) -> bool:
    """Tell whether somebody holds the lock that ``make run`` holds."""
    try:
        with (data / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _wait_for_banner(process: subprocess.Popen[bytes], log: Path) -> None:
    end = SYSTEM_CLOCK.monotonic() + START_DEADLINE_S
    while "dicomq is running" not in (text := log.read_text(errors="replace")):
        if process.poll() is not None or SYSTEM_CLOCK.monotonic() > end:
            msg = f"the system did not start:\n{text[-3000:]}"
            raise StartError(msg)
        SYSTEM_CLOCK.sleep(0.2)


def _play(scratch: Path, environment: Mapping[str, str], console: Console) -> int:
    port = _configure(environment, console)
    studies = write_studies(scratch)
    for used in (STORESCP_PORT, IANSCP_PORT):
        _check_port(used)
    peers = Peers(scratch)
    try:
        program = peers.start_store_scp(STORESCP, STORESCP_PORT)
        console.print(f"{STORESCP} listens on {STORESCP_PORT} ({program})")
        program = peers.start_ian_scp(IANSCP, IANSCP_PORT)
        console.print(f"{IANSCP} listens on {IANSCP_PORT} ({program})")
        for study in studies:
            program = store(study.objects, ARCHIVE, port)
            count = len(study.objects)
            console.print(f"{program} stored {count} objects of a {study.modality} study")
        tally = _watch(peers, studies, console)
    finally:
        peers.stop()
    return _report(studies, tally, environment, console)


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            msg = f"port {port}, on which a peer is to listen: {error.strerror}; stop who uses it"
            raise StartError(msg) from error


def _configure(environment: Mapping[str, str], console: Console) -> int:
    """Import the samples whose entries are missing; return the archive's port."""
    device = open_source(Settings.from_environment(environment)).snapshot().device
    for name in _missing_samples(device):
        _import(SAMPLES / name, environment, console)
    ports = [connection.port for connection in device.aes[ARCHIVE].connections if connection.port]
    return ports[0]


def _missing_samples(device: ArchiveDevice) -> list[str]:
    exporter = device.exporters.get(STORESCP)
    rules = (*device.export_rules, *device.aes[ARCHIVE].export_rules)
    present = {
        "exporter.ldif": exporter is not None,
        "export-rule.ldif": any(STORESCP in rule.exporter_ids for rule in rules),
        "ian.ldif": exporter is not None and IANSCP in exporter.ian_destinations,
    }
    return [name for name, there in present.items() if not there]


def _import(sample: Path, environment: Mapping[str, str], console: Console) -> None:
    shown = sample.relative_to(ROOT)
    console.print(f"celery -A workers config import {shown}", markup=False)
    done = subprocess.run(
        [Path(sys.executable).parent / "celery", "-A", "workers", "config", "import", sample],
        check=False,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        msg = f"the import of {shown} failed:\n{done.stdout.strip()}"
        raise StartError(msg)


def _watch(peers: Peers, studies: Sequence[DemoStudy], console: Console) -> Tally:
    """Show what arrives until everything has or the deadline is over."""
    tally = Tally()
    wanted = {each.sop_instance_uid for study in studies for each in study.objects}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    end = SYSTEM_CLOCK.monotonic() + DEADLINE_S
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        exported = progress.add_task(f"objects at {STORESCP}", total=len(wanted))
        notified = progress.add_task(f"objects announced to {IANSCP}", total=len(wanted))
        while not (wanted <= tally.exported and wanted <= tally.notified):
            if SYSTEM_CLOCK.monotonic() > end:
                console.print(f"Not everything arrived within {DEADLINE_S:g} s.", style="red")
                break
            peers.check()
            with contextlib.suppress(queue.Empty):
                received = peers.received.get(timeout=0.5)
                _show(received, console)
                tally.note(received)
            progress.update(exported, completed=len(wanted & tally.exported))
            progress.update(notified, completed=len(wanted & tally.notified))
    return tally


def _show(received: Received, console: Console) -> None:
    now = SYSTEM_CLOCK.now()
    association = f"{received.peer}<-{received.calling_aet}"
    lines = message_lines(now, association, received.command, received.uids)
    if received.dataset:
        lines += dataset_lines(now, received.dataset)
    console.print("\n".join(lines), markup=False)


def _report(
    studies: Sequence[DemoStudy], tally: Tally, environment: Mapping[str, str], console: Console
) -> int:
    """Print the counts of each study; return 0 if they all agree."""
    table = Table(title="Objects per study", box=None, pad_edge=False, collapse_padding=True)
    table.add_column("study", overflow="fold")
    for name in ("sent", "received", "exported", "notified"):
        table.add_column(name, justify="right", no_wrap=True)
    agree = True
    with contextlib.closing(Ledger(environment["DATABASE_URL"], max_connections=1)) as ledger:
        for study in studies:
            with ledger.statement() as tx:
                received = objects.count_instances(tx, study.study_instance_uid)
            uids = {each.sop_instance_uid for each in study.objects}
            counts = [len(uids), received, len(uids & tally.exported), len(uids & tally.notified)]
            agree = agree and len(set(counts)) == 1
            style = "green" if len(set(counts)) == 1 else "red"
            table.add_row(
                f"{study.modality} {study.study_instance_uid}", *map(str, counts), style=style
            )
    console.print(table)
    console.print("All counts agree." if agree else "The counts differ.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
