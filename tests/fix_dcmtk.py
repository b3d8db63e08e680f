"""The tools of dcmtk: storescu and echoscu as senders, storescp as destination."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.fix_process import (
    RunningProcess,
    free_port,
    listens,
    missing,
    start_process,
    wait_until,
)


@dataclass
class DcmtkStoreScp:
    """A running storescp that keeps what it receives as it came in."""

    title: str
    port: int
    directory: Path
    process: RunningProcess

    def received(self) -> dict[str, Path]:
        """Return SOP Instance UID to file of every object received completely."""
        files = {}
        for path in sorted(self.directory.iterdir()):
            if path.suffix != ".partial":
                head = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
                files[str(head.SOPInstanceUID)] = path
        return files

    def wait_for(self, count: int, deadline_s: float = 60.0) -> dict[str, Path]:
        """Wait until `count` files are there and return them by SOP Instance UID."""
        wait_until(
            lambda: len(list(self.directory.iterdir())) >= count,
            deadline_s=deadline_s,
            what=f"{count} objects at {self.title}",
        )
        return self.received()


@dataclass
class Dcmtk:
    """The tools, and the peers started with them."""

    directory: Path
    version: str
    peers: list[DcmtkStoreScp] = field(default_factory=list)

    def storescp(self, *options: str, title: str = "STORESCP", port: int = 0) -> DcmtkStoreScp:
        """Start a storescp on a free port, e.g. with ``--refuse`` or ``--abort-during``."""
        port = port or free_port()
        directory = self.directory / f"{title}-{port}-{len(self.peers)}"
        directory.mkdir()
        argv = ["storescp", "--promiscuous", "+xa", "--bit-preserving", "--aetitle", title]
        argv += ["--output-directory", str(directory), *options, str(port)]
        log = directory.with_suffix(".log")
        process = start_process(argv, log=log)
        wait_until(partial(listens, process.pid, port), what=f"storescp on {port}")
        self.peers.append(DcmtkStoreScp(title, port, directory, process))
        return self.peers[-1]

    def storescu(
        self,
        *files: Path,
        port: int,
        called_aet: str = "DCM4CHEE",
        calling_aet: str = "STORESCU",
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Store files (or whole directories) and return the finished process.

        storescu proposes uncompressed transfer syntaxes; `options` adds others (``-xv``: JPEG
        2000 lossless). For files of several transfer syntaxes use `dcmsend`.
        """
        argv = ["storescu", "-v", "--aetitle", calling_aet, "--call", called_aet]
        argv += ["--scan-directories", "--recurse", "--required", "--no-halt", *options]
        return self.run(*argv, "127.0.0.1", str(port), *map(str, files))

    def dcmsend(
        self, *files: Path, port: int, called_aet: str = "DCM4CHEE", calling_aet: str = "STORESCU"
    ) -> subprocess.CompletedProcess[str]:
        """Store files (or whole directories), each in its own transfer syntax."""
        argv = ["dcmsend", "-v", "--aetitle", calling_aet, "--call", called_aet]
        argv += ["--scan-directories", "--recurse", "--decompress-never", "--no-halt"]
        return self.run(*argv, "127.0.0.1", str(port), *map(str, files))

    def echoscu(
        self,
        port: int,
        called_aet: str = "DCM4CHEE",
        calling_aet: str = "ECHOSCU",
        *,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Send a C-ECHO and return the finished process."""
        argv = ["echoscu", "-v", "--aetitle", calling_aet, "--call", called_aet, *options]
        return self.run(*argv, "127.0.0.1", str(port))

    def run(self, *argv: str, timeout_s: float = 100.0) -> subprocess.CompletedProcess[str]:
        """Run any tool of dcmtk to its end."""
        return subprocess.run(
            argv,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )


def dcmtk_version() -> str | None:
    """Return the version of the installed dcmtk, None without it."""
    if not all(shutil.which(tool) for tool in ("storescu", "storescp", "echoscu", "dcmdump")):
        return None
    done = subprocess.run(["storescu", "--version"], check=False, capture_output=True, text=True)
    return done.stdout.split()[2]


@pytest.fixture
def dcmtk(tmp_path: Path) -> Iterator[Dcmtk]:
    """The tools of dcmtk; peers started with them are ended with the test."""
    version = dcmtk_version()
    if version is None:
        missing("dcmtk is not installed (apt-get install dcmtk)")
    directory = tmp_path / "dcmtk"
    directory.mkdir()
    tools = Dcmtk(directory, version)
    yield tools
    for peer in tools.peers:
        peer.process.stop()
