"""Other archives with synthetic studies, for benchmarks.find."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.fix_objects import secondary_capture, write
from tests.fix_peer import send_files
from tests.fix_process import free_port, listens, start_process, wait_until

ROOT = "1.2.826.0.1.3680043.9.7433.9"
_PORTION = 500
_PROMPT = {"TCP_NODELAY": "1"}  # else dcmtk waits 40 ms for an acknowledgement, twice a query


@contextlib.contextmanager
def dcmqrscp(directory: Path, size: int) -> Iterator[int]:
    """Run a dcmqrscp with `size` studies of one object each, and yield its port."""
    port = free_port()
    area = directory / "QRSCP"
    area.mkdir(parents=True)
    objects = _files(area, 1, size)
    configuration = directory / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {area} RW ({size + 10}, 1024mb) ANY\nAETable END\n"
    )
    for start in range(0, size, 500):
        files = [str(path) for path in objects[start : start + 500]]
        subprocess.run(["dcmqridx", str(area), *files], check=True, capture_output=True)  # noqa: S607
    process = start_process(
        ["dcmqrscp", "--config", str(configuration)], log=directory / "dcmqrscp.log", env=_PROMPT
    )
    try:
        wait_until(partial(listens, process.pid, port), what="dcmqrscp")
        yield port
    finally:
        process.stop()


@contextlib.contextmanager
def orthanc(directory: Path, size: int) -> Iterator[int]:
    """Run an Orthanc with `size` studies of one object each, and yield its port."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    settings = {
        "Name": "bench",
        "StorageDirectory": str(directory / "orthanc"),
        "DicomAet": "QRSCP",
        "DicomPort": port,
        "HttpServerEnabled": False,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
    }
    configuration = directory / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    process = start_process(
        ["Orthanc", str(configuration)], log=directory / "orthanc.log", env=_PROMPT
    )
    try:
        wait_until(partial(listens, process.pid, port), deadline_s=60, what="Orthanc")
        for start in range(1, size + 1, _PORTION):
            last = min(size, start + _PORTION - 1)
            sent = send_files(_files(directory, start, last), port, called_aet="QRSCP")
            if set(sent.statuses.values()) != {0}:
                msg = f"Orthanc did not take studies {start} to {last}"
                raise RuntimeError(msg)
        yield port
    finally:
        process.stop()


def _files(directory: Path, first: int, last: int) -> list[Path]:
    """Write an object of each of some studies."""
    paths = []
    for number in range(first, last + 1):
        dataset = secondary_capture(f"{ROOT}.{number}", 1, 1, size=2)
        dataset.PatientID = f"P{number}"
        dataset.PatientName = f"Family{number % 5000}^Given{number}"
        dataset.AccessionNumber = f"A{number}"
        paths.append(write(dataset, directory / f"{number}.dcm"))
    return paths
