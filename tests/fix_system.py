"""A whole running dicomq on free ports: SCPs, dispatcher, workers, with servers of its own.

Each process is started by its real command line, so a test may kill any of them as an operating
system would.
"""

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from psycopg.rows import class_row

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger.connection import Ledger
from tests.fix_peer import SentObjects, echo, send_files
from tests.fix_process import RunningProcess, free_port, start_process, stop_all, wait_until
from tests.fix_redis import RedisServer

DEVICES = "cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
ARCHIVE = f"dicomDeviceName=dcm4chee-arc,{DEVICES}"
ARCHIVE_AE = f"dicomAETitle=DCM4CHEE,{ARCHIVE}"
EXPORTER = "STORESCP"
PEER_DEVICES = {"STORESCP": "storescp", "IANSCP": "ianscp", "QRSCP": "dcmqrscp"}
WORKER_OPTIONS = (
    *("--pool", "threads", "--concurrency", "4", "--loglevel", "INFO"),
    *("--without-gossip", "--without-mingle"),
)
# Short leases, so that the work of a killed process is taken over while a test waits.
TIMES = {"DICOMQ_LEASE_S": "4", "DICOMQ_HEARTBEAT_S": "1", "DICOMQ_POLL_S": "1"}


@dataclass(frozen=True)
class TaskRow:
    """What tests ask of a task."""

    pk: int
    kind: str
    status: str
    exporter_id: str | None
    remote_aet: str | None
    study_instance_uid: str | None
    failures: int
    error_message: str | None
    outcome_message: str | None


def device_ldif(title: str, port: int) -> str:
    """Return change records that add a device with one AE on a loopback port."""
    device = f"dicomDeviceName={title.lower()},{DEVICES}"
    return f"""\
dn: {device}
changetype: add
objectClass: dicomDevice
dicomDeviceName: {title.lower()}
dicomInstalled: TRUE

dn: cn=dicom,{device}
changetype: add
objectClass: dicomNetworkConnection
cn: dicom
dicomHostname: 127.0.0.1
dicomPort: {port}

dn: dicomAETitle={title},{device}
changetype: add
objectClass: dicomNetworkAE
dicomAETitle: {title}
dicomNetworkConnectionReference: cn=dicom,{device}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE
"""


def configuration_read(log: str) -> str | None:
    """Return the fingerprint of the configuration that a process says it has read last."""
    found = re.findall(r"configuration (\S+) of device", log)
    return found[-1] if found else None


@dataclass
class System:
    """A running dicomq.

    Attributes
    ----------
    port
        Where AE DCM4CHEE listens.
    processes
        By name: scp-0, scp-1, dispatcher, export, notify.
    """

    directory: Path
    database_url: str
    redis: RedisServer
    port: int
    ledger: Ledger
    processes: dict[str, RunningProcess] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which processes and commands are started."""
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url,
            "DICOMQ_DATA": str(self.directory),
            "DICOMQ_BIND": "127.0.0.1",
            **TIMES,
        }

    def environment_of(self, name: str) -> dict[str, str]:  # noqa: ARG002 - for systems with links
        """Return the variables with which a process is started."""
        return self.environment

    # --- configuration

    def configure(self, *ldif: str) -> None:
        """Apply change records to the directory and wait until every process has seen them."""
        target = EmbeddedDirectory(self.directory / "directory.ldif")
        for text in ldif:
            for record in parse_ldif(dedent(text).encode()).records:
                target.apply(record)
        settings = Settings.from_environment(self.environment)
        wanted = open_source(settings).snapshot().fingerprint
        self.wait_until(lambda: self._have_all_read(wanted), what="the configuration to be read")

    def _have_all_read(self, fingerprint: str) -> bool:
        """Tell whether every process has last read the configuration with a fingerprint."""
        waiting = [
            name
            for name, process in self.processes.items()
            if process.is_alive() and configuration_read(process.output()) != fingerprint
        ]
        if any(name.startswith("scp") for name in waiting):
            echo(self.port)  # an SCP looks at the directory when an association is requested
        return not waiting

    def place_peer(self, title: str, port: int) -> None:
        """Tell the directory on which loopback port a peer listens that it names."""
        self.configure(
            port_change(f"cn=dicom,dicomDeviceName={PEER_DEVICES[title]},{DEVICES}", port)
        )

    def export_to(
        self,
        port: int,
        *,
        title: str = "STORESCP",
        exporter: str = EXPORTER,
        ian_port: int | None = None,
        more: Sequence[str] = (),
        duration: str = "PT1S",
    ) -> None:
        """Configure an exporter to `title` on `port`, and a rule that sends it every study."""
        self.place_peer(title, port)
        lines = [f"dcmURI: dicom:{title}", f"dcmQueueName: {exporter}", *more]
        if ian_port is not None:
            self.place_peer("IANSCP", ian_port)
            lines.append("dcmIanDestination: IANSCP")
        self.configure(_exporter(exporter, lines), _rule(exporter, duration))

    def queue(self, name: str, *lines: str) -> None:
        """Configure a queue, such as ``queue("STORESCP", "dcmMaxRetries: 0")``."""
        head = [f"dn: dcmQueueName={name},{ARCHIVE}", "changetype: add", "objectClass: dcmQueue"]
        self.configure("\n".join([*head, f"dcmQueueName: {name}", *lines, ""]))

    def change_queue(self, name: str, *lines: str) -> None:
        """Change a queue that is there, such as ``change_queue("IANSCU", "dcmMaxRetries: 0")``."""
        change = [f"dn: dcmQueueName={name},{ARCHIVE}", "changetype: modify"]
        for line in lines:
            change += [f"replace: {line.partition(':')[0]}", line, "-"]
        self.configure("\n".join([*change, ""]))

    # --- processes

    def start(self, *names: str) -> None:
        """Start processes and wait until each works."""
        commands = self._commands()
        ready: dict[str, Callable[[], bool]] = {}
        for name in names:
            argv, words = commands[name.partition("-")[0]]
            log = self.directory.parent / f"{name}.log"
            before = log.read_text(errors="replace").count(words) if log.exists() else 0
            process = start_process(argv, log=log, env=self.environment_of(name))
            self.processes[name] = process
            ready[name] = partial(_said_again, process, words, before)
        for name, is_ready in ready.items():
            wait_until(is_ready, deadline_s=60, what=f"{name} to start")

    def start_all(self) -> None:
        """Start two SCPs, a dispatcher and the workers that export and notify."""
        self.start("scp-0", "scp-1", "dispatcher", "export", "notify")
        self.wait_until(lambda: echo(self.port), what="a C-ECHO of DCM4CHEE")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; after KILL wait for its end."""
        process = self.processes[name]
        process.send(number)
        if number == signal.SIGKILL:
            process.kill()

    def restart(self, name: str) -> None:
        """Kill a process if it still runs, and start it anew."""
        self.processes[name].kill()
        self.start(name)

    def stop(self) -> None:
        """Ask all processes to end, and wait for them."""
        stop_all(self.processes.values())

    def _commands(self) -> dict[str, tuple[list[str], str]]:
        """Return command line and first words of readiness by kind of process."""
        celery = [str(Path(sys.executable).parent / "celery"), "-A", "workers"]
        worker = [*celery, "worker", *WORKER_OPTIONS, "--hostname"]
        return {
            "scp": ([sys.executable, "-m", "scp"], ""),
            "dispatcher": ([*celery, "dispatcher"], ""),
            "export": ([*worker, "export@%h", "--kind", "export"], " ready."),
            "notify": ([*worker, "notify@%h", "--kind", "notify"], " ready."),
            "commit": ([*worker, "commit@%h", "--kind", "commit"], " ready."),
            "retrieve": ([*worker, "retrieve@%h", "--kind", "retrieve"], " ready."),
            "query": ([*worker, "query@%h", "--kind", "query"], " ready."),
        }

    # --- work

    def store(self, files: Sequence[Path], *, timeout_s: float = 30.0) -> SentObjects:
        """Store files once, as STORESCU."""
        return send_files(files, self.port, timeout_s=timeout_s)

    def store_all(
        self, files: Mapping[str, Path], *, senders: int = 1, deadline_s: float = 120.0
    ) -> None:
        """Store files by SOP Instance UID; those not acknowledged are sent until all are.

        Parameters
        ----------
        senders
            Number of associations that share the work.
        """
        accepted: set[str] = set()

        def send_missing() -> bool:
            missing = [path for uid, path in files.items() if uid not in accepted]
            shares = [share for i in range(senders) if (share := missing[i::senders])]
            with ThreadPoolExecutor(max_workers=senders) as pool:
                # short: pynetdicom may wait in vain for the answer of a peer that was killed
                for sent in pool.map(partial(self.store, timeout_s=4), shares):
                    accepted.update(sent.accepted)
            return set(files) <= accepted

        self.wait_until(send_missing, deadline_s=deadline_s, what="every object to be accepted")

    def tasks(self, kind: str | None = None) -> list[TaskRow]:
        """Return the tasks of the ledger, oldest first."""
        columns = ", ".join(TaskRow.__dataclass_fields__)
        query = f"SELECT {columns} FROM task ORDER BY pk"  # noqa: S608 - names of our own fields
        with self.ledger.statement() as tx, tx.cursor(row_factory=class_row(TaskRow)) as cursor:
            rows = cursor.execute(query.encode()).fetchall()
        return [row for row in rows if kind in {None, row.kind}]

    def archived(self) -> dict[str, Path]:
        """Return SOP Instance UID to file of every object in the archive."""
        with self.ledger.statement() as tx:
            rows = tx.execute(
                "SELECT sop_instance_uid, storage_path FROM instance, location"
                " WHERE instance_fk = instance.pk"
            ).fetchall()
        return {uid: next(self.directory.glob(f"**/{path}")) for uid, path in rows}

    def wait_until(
        self, condition: Callable[[], object], *, deadline_s: float = 60.0, what: str = ""
    ) -> None:
        """Wait for a condition; when it does not come about, say how the system stands."""
        try:
            wait_until(condition, deadline_s=deadline_s, what=what)
        except TimeoutError as error:
            msg = f"{error}\n{self.explain()}"
            raise TimeoutError(msg) from error

    def wait_for_task(self, kind: str, *statuses: str, deadline_s: float = 60.0) -> TaskRow:
        """Wait until the newest task of a kind has one of `statuses` and return it."""
        self.wait_until(
            lambda: any(task.status in statuses for task in self.tasks(kind)[-1:]),
            deadline_s=deadline_s,
            what=f"the {kind} task to become {' or '.join(statuses)}",
        )
        return self.tasks(kind)[-1]

    def wait_until_idle(self, *, deadline_s: float = 120.0) -> None:
        """Wait until no task is waiting or in process."""
        final = {"COMPLETED", "WARNING", "FAILED", "CANCELED"}
        self.wait_until(
            lambda: all(task.status in final for task in self.tasks()),
            deadline_s=deadline_s,
            what="all tasks to be done",
        )

    def explain(self) -> str:
        """Return tasks and the ends of the processes' output."""
        lines = [str(task) for task in self.tasks()[-20:]]
        for name, process in self.processes.items():
            state = "running" if process.is_alive() else f"ended {process.popen.returncode}"
            lines += [f"--- {name} ({state})", process.output()[-3000:]]
        return "\n".join(lines)


def _said_again(process: RunningProcess, words: str, before: int) -> bool:
    if not process.is_alive():
        msg = f"{process.name} ended with {process.popen.returncode}:\n{process.output()[-4000:]}"
        raise RuntimeError(msg)
    return not words or process.output().count(words) > before


def port_change(connection: str, port: int) -> str:
    """Return the change record that moves the connection with this DN to a loopback port."""
    return "\n".join(
        [
            f"dn: {connection}",
            "changetype: modify",
            "replace: dicomHostname",
            "dicomHostname: 127.0.0.1",
            "-",
            "replace: dicomPort",
            f"dicomPort: {port}",
            "",
        ]
    )


def _exporter(exporter: str, lines: Sequence[str]) -> str:
    head = [f"dn: dcmExporterID={exporter},{ARCHIVE}", "changetype: add"]
    head += ["objectClass: dcmExporter", f"dcmExporterID: {exporter}", "dicomAETitle: DCM4CHEE"]
    return "\n".join([*head, *lines, ""])


def _rule(exporter: str, duration: str) -> str:
    head = [f"dn: cn=Export to {exporter},{ARCHIVE_AE}", "changetype: add"]
    head += ["objectClass: dcmExportRule", f"cn: Export to {exporter}", "dcmEntity: Study"]
    return "\n".join([*head, f"dcmExporterID: {exporter}", f"dcmDuration: {duration}", ""])


@pytest.fixture
def idle_system(tmp_path: Path, ledger_url: str, own_redis: RedisServer) -> Iterator[System]:
    """A dicomq of which nothing runs yet: configure it, then start its processes."""
    directory = tmp_path / "data"
    directory.mkdir()
    EmbeddedDirectory(directory / "directory.ldif").create(default_entries())
    with contextlib.closing(Ledger(ledger_url, max_connections=4)) as ledger:
        running = System(directory, ledger_url, own_redis, free_port(), ledger)
        running.configure(port_change(f"cn=dicom,{ARCHIVE}", running.port))
        yield running
        running.stop()


@pytest.fixture
def system(idle_system: System) -> System:
    """A running dicomq: two SCPs, a dispatcher, and workers that export and notify."""
    idle_system.start_all()
    return idle_system
