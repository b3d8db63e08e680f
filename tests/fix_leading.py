"""dcmtk's dcmqrscp as a leading archive."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from archive.ledger import tasks
from archive.ledger.leading import LEADING_QUEUE
from archive.model.task import NewTask, Task, TaskKind
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import DEVICE, ExportBench
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until
from workers.leading_find import LeadingFindProcessor

CONFIGURATION = """
NetworkTCPPort  = {port}
MaxPDUSize      = 16384
MaxAssociations = 16
HostTable BEGIN
{hosts}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{title} {directory} RW (100, 1024mb) ANY
AETable END
"""


@dataclass
class LeadingArchive:
    """A running dcmqrscp.

    Attributes
    ----------
    hosts
        AEs to which it may move: symbolic name, title and port.
    """

    title: str
    port: int
    directory: Path
    dcmtk: Dcmtk
    hosts: Sequence[tuple[str, int]] = ()
    process: RunningProcess | None = None

    def start(self) -> None:
        """Start it, with what it has."""
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory.parent / f"{self.title}.cfg"
        hosts = "\n".join(
            f"peer{number} = ({title}, 127.0.0.1, {port})"
            for number, (title, port) in enumerate(self.hosts)
        )
        configuration.write_text(
            CONFIGURATION.format(
                port=self.port, title=self.title, directory=self.directory, hosts=hosts
            )
        )
        self.process = start_process(
            ["dcmqrscp", "-v", "--config", str(configuration)],
            log=self.directory.parent / f"{self.title}.log",
        )
        listening = partial(listens, self.process.pid, self.port)
        try:
            wait_until(listening, what=f"dcmqrscp on {self.port}")
        except TimeoutError:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()

    def store(self, *files: Path) -> None:
        """Store files in it."""
        done = self.dcmtk.dcmsend(*files, port=self.port, called_aet=self.title)
        assert done.returncode == 0, done.stdout


def leading_task(bench: ExportBench, study: str, leading_aet: str = "QRSCP") -> Task:
    """Return a claimed task that asks a leading archive for a study."""
    return bench.claim(
        NewTask(TaskKind.LEADING_CFIND, LEADING_QUEUE, DEVICE, "DCM4CHEE", leading_aet, study)
    )


@contextlib.contextmanager
def asking(bench: ExportBench) -> Iterator[None]:
    """Perform leading queries in a thread, as a worker of the query pool does."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.02):
            with bench.ledger.transaction() as tx:
                hints = tasks.dispatch(tx, DEVICE, LEADING_QUEUE, 10)
            for hint in hints:
                with bench.ledger.transaction() as tx:
                    task = tasks.claim(tx, hint, worker="test", lease_s=60.0)
                if task is not None:
                    LeadingFindProcessor().perform(task, bench.context())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def leading_archive(dcmtk: Dcmtk, tmp_path: Path) -> Iterator[LeadingArchive]:
    """A dcmqrscp with the title QRSCP and nothing in it."""
    archive = LeadingArchive("QRSCP", free_port(), tmp_path / "leading" / "QRSCP", dcmtk)
    archive.start()
    yield archive
    archive.stop()
