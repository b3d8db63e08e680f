"""A system as ``make run`` starts it, over a data directory of its own and on free ports."""

import sys
from pathlib import Path

import psutil

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from deploy.control import MARK
from tests.fix_process import RunningProcess, free_port, start_process, wait_until
from tests.fix_system import ARCHIVE, port_change

BANNER = "dicomq is running:"


class Installation:
    """A data directory and the ports that a system over it uses."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.port, self.flower_port = free_port(), free_port()
        self._log = directory / "run.log"
        self._starts = 0
        target = EmbeddedDirectory(self.data / "directory.ldif")
        target.create(default_entries())
        for record in parse_ldif(port_change(f"cn=dicom,{ARCHIVE}", self.port).encode()).records:
            target.apply(record)

    def start(self) -> RunningProcess:
        """Start the system and wait until it says that it runs."""
        self._starts += 1
        log = self._log.with_name(f"run-{self._starts}.log")
        process = start_process(
            [sys.executable, "-m", "deploy.run"],
            log=log,
            env={
                "DICOMQ_DATA": str(self.data),
                "DICOMQ_FLOWER_PORT": str(self.flower_port),
                "DATABASE_URL": "",
                "REDIS_URL": "",
            },
        )
        wait_until(
            lambda: BANNER in process.output() or not process.is_alive(),
            deadline_s=90,
            what="the system to start",
        )
        return process

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to the system."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == str(self.data) or f"{self.data}/" in " ".join(
                process.cmdline()
            )
        except psutil.Error:
            return False
