"""Retrieves between real peers: movescu and getscu ask, dcmqrscp is the other archive."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import Study
from tests.fix_peer import echo, send_files
from tests.fix_process import (
    ROOT,
    RunningProcess,
    free_port,
    listens,
    missing,
    start_process,
    wait_until,
)
from tests.fix_system import ARCHIVE, PEER_DEVICES, System, device_ldif


@dataclass(frozen=True)
class Counters:
    """Counters of a response, None where it has none."""

    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None


@dataclass(frozen=True)
class Moved:
    """What movescu or getscu printed."""

    exit_status: int
    output: str

    @property
    def status(self) -> int:
        """Status of the final response."""
        codes = re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)
        assert codes, self.output
        return int(codes[-1], 16)

    @property
    def statuses(self) -> list[int]:
        """Statuses of all responses."""
        codes = re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)
        return [int(code, 16) for code in codes]

    @property
    def counters(self) -> Counters:
        """Counters of the final response."""
        return self.all_counters[-1]

    @property
    def all_counters(self) -> list[Counters]:
        """Counters of each response."""
        found = []
        names = ("Remaining", "Completed", "Failed", "Warning")
        parts = self.output.split("INCOMING DIMSE MESSAGE")
        for part in parts:
            if "DIMSE Status" not in part:
                continue
            values = [re.search(rf"{name} Sub\w*\s*: (\d+|none)", part) for name in names]
            numbers = [int(v[1]) if v and v[1] != "none" else None for v in values]
            found.append(Counters(*numbers))
        return found


@dataclass
class Qrscp:
    """A running dcmqrscp with its database."""

    title: str
    port: int
    directory: Path
    process: RunningProcess

    def store(self, files: Sequence[Path]) -> None:
        """Put objects into it."""
        sent = send_files(files, self.port, called_aet=self.title)
        assert set(sent.statuses.values()) == {0}, sent


@dataclass
class Retrieval:
    """A running archive with a retrieve worker, and what it retrieves from and for."""

    system: System
    dcmtk: Dcmtk
    directory: Path
    _archives: list[Qrscp] = field(default_factory=list)

    # --- peers

    def qrscp(self, *, title: str = "QRSCP", destinations: dict[str, int] | None = None) -> Qrscp:
        """Start a dcmqrscp that knows this archive and `destinations`, and place it."""
        port = free_port()
        directory = self.directory / f"{title}-{port}"
        (directory / "db").mkdir(parents=True)
        known = {"DCM4CHEE": self.system.port, **(destinations or {})}
        (directory / "qrscp.cfg").write_text(qrscp_configuration(title, port, directory, known))
        argv = ["dcmqrscp", "-v", "-c", str(directory / "qrscp.cfg"), str(port)]
        process = start_process(argv, log=directory / "qrscp.log")
        wait_until(partial(listens, process.pid, port), what=f"dcmqrscp on {port}")
        self._archives.append(Qrscp(title, port, directory, process))
        self.place(title, port)
        return self._archives[-1]

    def place(self, title: str, port: int) -> None:
        """Tell the directory of a peer, known before or not."""
        if title in PEER_DEVICES:
            self.system.place_peer(title, port)
        else:
            self.system.configure(device_ldif(title, port))

    def configure_archive(self, *lines: str) -> None:
        """Set attributes of the archive's device, as ``name: value``."""
        for line in lines:
            name = line.partition(":")[0]
            head = f"dn: {ARCHIVE}\nchangetype: modify\nreplace: {name}\n"
            self.system.configure(f"{head}{line}\n")

    def stop(self) -> None:
        """End the peers."""
        for archive in self._archives:
            archive.process.kill()

    # --- requests

    def movescu(
        self,
        *keys: str,
        destination: str = "STORESCP",
        calling_aet: str = "MOVESCU",
        options: Sequence[str] = (),
        timeout_s: float = 100.0,
    ) -> Moved:
        """Ask the archive for a C-MOVE; `keys` such as ``StudyInstanceUID=1.2.3``."""
        argv = ["movescu", "-d", "-S", "-aet", calling_aet, "-aec", "DCM4CHEE"]
        argv += ["-aem", destination, *options]
        return self._ask(argv, keys, timeout_s)

    def getscu(
        self, *keys: str, directory: Path, options: Sequence[str] = (), timeout_s: float = 100.0
    ) -> Moved:
        """Ask the archive for a C-GET."""
        argv = ["getscu", "-d", "-S", "-aet", "GETSCU", "-aec", "DCM4CHEE", "-od", str(directory)]
        return self._ask([*argv, *options], keys, timeout_s)

    def study(self, study: Study, **kwargs: object) -> Moved:
        """Ask for a study with movescu."""
        uid = f"StudyInstanceUID={study.study_instance_uid}"
        return self.movescu("QueryRetrieveLevel=STUDY", uid, **kwargs)  # type: ignore[arg-type]

    def _ask(self, argv: list[str], keys: Sequence[str], timeout_s: float) -> Moved:
        for key in keys:
            argv += ["-k", key]
        argv += ["127.0.0.1", str(self.system.port)]
        done = self.dcmtk.run(*argv, timeout_s=timeout_s)
        return Moved(done.returncode, done.stdout)

    # --- objects

    def store(self, study: Study) -> None:
        """Put a study into the archive."""
        self.system.store_all(study.files)

    def purge(self, study: Study, external_aet: str | None) -> subprocess.CompletedProcess[str]:
        """Drop the local copies of a study with the command."""
        argv = ["studies", "purge", study.study_instance_uid, "--yes"]
        if external_aet is not None:
            argv += ["--external-aet", external_aet]
        return self.celery(*argv)

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the archive to its end."""
        argv = [str(Path(sys.executable).parent / "celery"), "-A", "workers", *arguments]
        return subprocess.run(
            argv,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            cwd=ROOT,
            env={**os.environ, **self.system.environment},
        )


def qrscp_configuration(title: str, port: int, directory: Path, known: dict[str, int]) -> str:
    """Return the configuration of a dcmqrscp with one AE that knows other AEs by port."""
    hosts = "\n".join(f"h{n} = ({aet}, 127.0.0.1, {p})" for n, (aet, p) in enumerate(known.items()))
    return dedent(
        f"""\
        NetworkTCPPort  = {port}
        MaxPDUSize      = 131072
        MaxAssociations = 16

        HostTable BEGIN
        {hosts}
        HostTable END

        VendorTable BEGIN
        VendorTable END

        AETable BEGIN
        {title}  {directory}/db  RW (200, 1024mb)  ANY
        AETable END
        """
    ).replace("\n        ", "\n")


@pytest.fixture
def retrieval(idle_system: System, dcmtk: Dcmtk, tmp_path: Path) -> Iterator[Retrieval]:
    """A running archive with SCP, dispatcher and a retrieve worker."""
    if shutil.which("movescu") is None:
        missing("movescu is not installed (apt-get install dcmtk)")
    for name in ("scp-0", "dispatcher", "retrieve"):
        idle_system.start(name)
    idle_system.wait_until(lambda: echo(idle_system.port), what="a C-ECHO of DCM4CHEE")
    directory = tmp_path / "archives"
    directory.mkdir()
    made = Retrieval(idle_system, dcmtk, directory)
    yield made
    made.stop()


StartRetrieval = Callable[[], Retrieval]
