"""Processes of the demonstration: its peers, the sender, and the system when none runs."""

import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydicom import Dataset, dcmread
from pynetdicom import AE, build_context

from deploy.demo_objects import DemoObject
from deploy.embedded import StartError

# Options of dcmtk's storescu that propose a transfer syntax; it proposes one kind at a time.
STORESCU_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


@dataclass(frozen=True)
class Received:
    """A request that a peer took."""

    command: str
    peer: str
    calling_aet: str
    uids: dict[str, str]
    dataset: Dataset


class Peers:
    """The peers, and what they have received."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[str]] = []
        self.received: queue.Queue[Received] = queue.Queue()

    def start_store_scp(self, title: str, port: int) -> str:
        """Start the destination; return the name of the program."""
        if shutil.which("storescp") is None:
            self._start_own("store", title, port)
            return "pynetdicom"
        kept = self._directory / title
        kept.mkdir()
        argv = ["storescp", "+xa", "--promiscuous", "--aetitle", title]
        argv += ["--output-directory", str(kept), "--exec-sync"]
        argv += ["--exec-on-reception", "echo C-STORE-RQ #a #f", str(port)]
        self._start(argv, title)
        return "dcmtk's storescp"

    def start_ian_scp(self, title: str, port: int) -> str:
        """Start the receiver of notifications; return the name of the program."""
        self._start_own("ian", title, port)
        return "pynetdicom"

    def stop(self) -> None:
        """End the peers."""
        for process in self._processes:
            process.terminate()
            process.wait()

    def check(self) -> None:
        """Raise when a peer has ended.

        Raises
        ------
        StartError
            When one has, for example because its port is in use.
        """
        for process in self._processes:
            if process.poll() is not None:
                argv = process.args if isinstance(process.args, list) else [process.args]
                msg = f"a peer ended with {process.returncode}: {shlex.join(map(str, argv))}"
                raise StartError(msg)

    def _start_own(self, service: str, title: str, port: int) -> None:
        argv = [sys.executable, "-m", "deploy.demo_peers", service, title, str(port)]
        self._start(argv, title)

    def _start(self, argv: Sequence[str], title: str) -> None:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._processes.append(process)
        arguments = (process.stdout, title)
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    def _read(self, lines: IO[str], title: str) -> None:
        for line in lines:
            if line.startswith("{"):
                self.received.put(_from_json(title, line))
            elif line.startswith("C-STORE-RQ "):
                self.received.put(_from_file(self._directory / title, title, line))
            else:
                print(f"{title}: {line.rstrip()}", flush=True)


def _from_json(title: str, line: str) -> Received:
    record = json.loads(line)
    uids = {name: record[name] for name in ("cuid", "iuid", "tsuid")}
    dataset = Dataset.from_json(record["dataset"])
    return Received(record["command"], title, record["calling"], uids, dataset)


def _from_file(directory: Path, title: str, line: str) -> Received:
    command, calling, name = line.split(maxsplit=2)
    head = dcmread(directory / name.strip(), stop_before_pixels=True)
    uids = {
        "cuid": str(head.SOPClassUID),
        "iuid": str(head.SOPInstanceUID),
        "tsuid": str(head.file_meta.TransferSyntaxUID),
    }
    return Received(command, title, calling, uids, Dataset())


def store(objects: Iterable[DemoObject], called_aet: str, port: int) -> str:
    """Store objects and return the name of the program that did it.

    Raises
    ------
    StartError
        When one was not accepted.
    """
    if shutil.which("storescu") is None:
        _store_with_pynetdicom(list(objects), called_aet, port)
        return "pynetdicom"
    by_syntax: dict[str, list[DemoObject]] = defaultdict(list)
    for each in objects:
        by_syntax[each.transfer_syntax_uid].append(each)
    for syntax, group in by_syntax.items():
        argv = ["storescu", "--call", called_aet, "--required", STORESCU_OPTIONS[syntax]]
        argv += ["localhost", str(port), *(str(each.path) for each in group)]
        done = subprocess.run(
            argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            msg = f"{shlex.join(argv)} ended with {done.returncode}: {done.stdout.strip()}"
            raise StartError(msg)
    return "dcmtk's storescu"


def _store_with_pynetdicom(objects: Sequence[DemoObject], called_aet: str, port: int) -> None:
    ae = AE(ae_title="STORESCU")
    wanted = sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in objects})
    contexts = [build_context(*pair) for pair in wanted]
    association = ae.associate("localhost", port, contexts=contexts, ae_title=called_aet)
    if not association.is_established:
        msg = f"no association with {called_aet}@localhost:{port}"
        raise StartError(msg)
    for each in objects:
        status = association.send_c_store(each.path).get("Status")
        if status != 0:
            association.abort()
            msg = f"{called_aet} answered {status} to {each.path.name}"
            raise StartError(msg)
    association.release()


def start_system(data: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start ``make run`` over a data directory of its own, with its output in `log`."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DICOMQ_DATA": str(data)},
        )


def read_environment(data: Path) -> dict[str, str]:
    """Return the environment for commands on the system that runs over `data`."""
    text = (data / "environment").read_text(encoding="utf-8")
    exported = (line for line in text.splitlines() if line.startswith("export "))
    pairs = (shlex.split(line)[1].partition("=") for line in exported)
    return {**os.environ, **{name: value for name, _, value in pairs}}
