"""Sending to dcmtk's storescp: our loop against dcmsend and storescu, interleaved, as medians.

    python -m benchmarks.send [--rounds 7] [--objects 100]

Both sides are timed whole: for dcmtk's tools the run of the process, for ours the association
from request to release, in a process that is up already as a worker is; the time that dcmsend
needs to start (measured with --version) is printed beside it. The destination is one storescp
--ignore, once with TCP_NODELAY and once with dcmtk's default, which lets Nagle's algorithm hold
responses back. dcmtk's senders always run with TCP_NODELAY=1, their best setting.
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID, ExplicitVRLittleEndian

from benchmarks import report
from workers.association import Association
from workers.contexts import ProposedContext
from workers.route import Route, TimeLimits
from workers.sending import StoreLoop, StoreRequest

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Sample:
    """An object to be sent: its file, and where its data set starts."""

    path: Path
    sop_instance_uid: str
    offset: int
    length: int


def make_samples(directory: Path, count: int, matrix: int) -> list[Sample]:
    """Write `count` CT images of `matrix` × `matrix` pixels."""
    dataset: Dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.Rows = dataset.Columns = matrix
    dataset.PixelData = os.urandom(2 * matrix * matrix)
    directory.mkdir()
    parts = [directory / str(part) for part in range(4)]
    for part in parts:
        part.mkdir()
    return [_sample(dataset, parts[index % 4] / f"{index}.dcm", index) for index in range(count)]


def _sample(dataset: Dataset, path: Path, index: int) -> Sample:
    uid = f"1.2.826.0.1.7.{index}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.save_as(path, enforce_file_format=True)
    head = path.read_bytes()[128 + 4 : 128 + 4 + 12]
    offset = 128 + 4 + 12 + int.from_bytes(head[8:12], "little")
    return Sample(path, uid, offset, path.stat().st_size - offset)


@contextlib.contextmanager
def storescp(*, nagle: bool) -> Iterator[int]:
    """Run a storescp that drops what it receives; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    environment = {**os.environ, "TCP_NODELAY": "0" if nagle else "1"}
    argv = ["storescp", "--ignore", "--fork", str(port)]
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not _listens(port):
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def send_ours(samples: Sequence[Sample], port: int, associations: int) -> None:
    """Send with the workers' loop, the objects shared by some associations."""
    waiting = deque(samples)
    route = Route("STORESCP", "BENCH", "STORESCP", "127.0.0.1", port, TimeLimits())
    threads = [threading.Thread(target=_lane, args=(waiting, route)) for _ in range(associations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _lane(waiting: deque[Sample], route: Route) -> None:
    contexts = [ProposedContext(CT, (ExplicitVRLittleEndian,))]
    with (
        Association(route, contexts) as association,
        association.exclusive_socket() as sock,
        contextlib.suppress(IndexError),
    ):
        loop = StoreLoop(association, sock)
        while True:
            sample = waiting.popleft()
            request = StoreRequest(1, CT, sample.sop_instance_uid, sample.length)
            with sample.path.open("rb") as source:
                source.seek(sample.offset)
                if loop.send(request, source).status:
                    message = f"{sample.path} was refused"
                    raise SystemExit(message)


def send_with(tool: str, directory: Path, port: int, processes: int) -> None:
    """Send with dcmtk's tools, the directory's sub-directories shared by some processes."""
    options = {
        "dcmsend": ["--scan-directories", "--recurse", "--no-uid-checks"],
        "storescu": ["--scan-directories", "--recurse"],
    }[tool]
    parts = [str(part) for part in sorted(directory.iterdir())]
    running = [
        subprocess.Popen(
            [tool, *options, "127.0.0.1", str(port), *parts[index::processes]],
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        for index in range(processes)
    ]
    if any(process.wait() for process in running):
        message = f"{tool} failed"
        raise SystemExit(message)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of `action`, its child processes included."""
    cpu, wall = _cpu_s(), time.perf_counter()
    action()
    return time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(options: argparse.Namespace, directory: Path) -> dict[str, float]:
    """Run all cases, print a table of medians and of ratios to ours; return those of small ones."""
    version = ["dcmsend", "--version"]
    start_s = statistics.median(
        timed(lambda: subprocess.run(version, capture_output=True, check=True))[0]
        for _ in range(options.rounds)
    )
    print(f"{options.objects} objects, {options.rounds} rounds; dcmsend starts in {start_s:.3f} s")
    print(f"{'size':>8} {'assoc':>5} {'Nagle':>5}  sender    wall s    CPU s   ours is faster by")
    figures: dict[str, float] = {}
    for matrix in options.matrix:
        place = directory / str(matrix)
        samples = make_samples(place, options.objects, matrix)
        for nagle in (False, True):
            for count in (1, 4):
                ratios = _case(options, samples, place, (count, nagle))
                if not nagle:
                    plural = "" if count == 1 else "s"
                    for name, ratio in ratios.items():
                        key = f"{count} association{plural}: {name} / dicomq"
                        figures.setdefault(key, ratio)
    return figures


def _case(
    options: argparse.Namespace, samples: list[Sample], place: Path, setting: tuple[int, bool]
) -> dict[str, float]:
    count, nagle = setting
    with storescp(nagle=nagle) as port:
        senders: dict[str, Callable[[], object]] = {
            "ours": lambda: send_ours(samples, port, count),
            "dcmsend": lambda: send_with("dcmsend", place, port, count),
            "storescu": lambda: send_with("storescu", place, port, count),
        }
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in senders}
        for _ in range(options.rounds):
            for name, send in senders.items():
                results[name].append(timed(send))
    medians = {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in results.items()
    }
    for name, (wall, cpu) in medians.items():
        ratio = wall / medians["ours"][0]
        size = f"{samples[0].length / 1000:.0f} kB"
        print(f"{size:>8} {count:>5} {nagle!s:>5}  {name:<8} {wall:7.3f}  {cpu:7.3f}   {ratio:.2f}")
    return {name: wall / medians["ours"][0] for name, (wall, _) in medians.items()}


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--matrix", type=int, nargs="+", default=[128, 512])
    report.add_option(parser)
    options = parser.parse_args()
    if shutil.which("dcmsend") is None:
        message = "dcmtk is not installed (apt-get install dcmtk)"
        raise SystemExit(message)
    with tempfile.TemporaryDirectory(prefix="dicomq-bench-") as directory:
        report.write(options.json, measure(options, Path(directory)))


if __name__ == "__main__":
    main()
