"""Destinations of dcmtk, and Orthanc as a router: the peers of `benchmarks.pipeline`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from archive.clock import SYSTEM_CLOCK
from tests.fix_process import RunningProcess, free_port, listens, start_process, wait_until

AT_ONCE, AFTER_QUIET, NAGLE = "at once", "after 1 s of quiet", "after 1 s of quiet, Nagle"


@dataclass
class Destination:
    """A dcmtk storescp that writes what it receives into a directory."""

    port: int
    directory: Path
    process: RunningProcess

    def wait_for(self, count: int) -> float:
        """Wait for `count` whole objects, empty the directory; return when the last was there."""
        wait_until(lambda: self._count() >= count, deadline_s=300, what=f"{count} objects")
        # storescp answers, and closes the file, before it can take the next or be released
        done = SYSTEM_CLOCK.monotonic()
        for path in self.directory.iterdir():
            path.unlink()
        return done

    def _count(self) -> int:
        return len(os.listdir(self.directory))  # noqa: PTH208 - cheap: called all the time


def start_destination(where: Path, name: str, *, nagle: bool) -> Destination:
    """Start storescp as its users do for speed, or with dcmtk's default of TCP_NODELAY."""
    port, directory = free_port(), where / name
    directory.mkdir()
    argv = ["storescp", "--bit-preserving", "--max-pdu", "131072", "--fork", "-od", str(directory)]
    environment = {"TCP_NODELAY": "0" if nagle else "1"}
    process = start_process([*argv, str(port)], log=where / f"{name}.log", env=environment)
    wait_until(lambda: listens(process.pid, port), what=name)
    return Destination(port, directory, process)


LUA = {
    AT_ONCE: "function OnStoredInstance(id, tags, metadata, origin)\n"
    "  SendToModality(id, 'destination')\nend\n",
    AFTER_QUIET: "function OnStableStudy(id, tags, metadata)\n"
    "  RestApiPost('/modalities/destination/store', id)\nend\n",
}


def start_orthanc(where: Path, way: str, destination: int) -> tuple[int, RunningProcess]:
    """Start an Orthanc that passes on what it receives in one of the two ways."""
    port = free_port()
    place = where / f"orthanc {way}"
    place.mkdir()
    (place / "route.lua").write_text(LUA[way])
    configuration = {
        "Name": "BENCH",
        "StorageDirectory": str(place),
        "IndexDirectory": str(place),
        "LuaScripts": [str(place / "route.lua")],
        "StableAge": 1,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "Plugins": [],
        "DicomModalities": {"destination": ["STORESCP", "127.0.0.1", destination]},
    }
    path = place / "orthanc.json"
    path.write_text(json.dumps(configuration))
    environment = {"TCP_NODELAY": "1"}
    process = start_process(
        ["Orthanc", str(path)], log=where / f"orthanc {way}.log", env=environment
    )
    wait_until(lambda: listens(process.pid, port), what="Orthanc", deadline_s=60)
    return port, process
