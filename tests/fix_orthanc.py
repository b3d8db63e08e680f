"""Orthanc, a real archive: storage SCP, and storage commitment in both roles."""

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fix_process import RunningProcess, free_port, missing, start_process, wait_until


@dataclass
class Orthanc:
    """A running Orthanc that knows the archive as modality `archive`."""

    title: str
    port: int
    http_port: int
    process: RunningProcess

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to a GET of its REST interface."""
        return self._call(path, None)

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to a POST of JSON."""
        return self._call(path, json.dumps(body).encode())

    def store(self, path: Path) -> None:
        """Put a DICOM file into Orthanc."""
        self._call("/instances", path.read_bytes())

    def request_commitment(self, references: list[tuple[str, str]]) -> str:
        """Have Orthanc ask the archive for commitment; return where the answer will be."""
        body = {"DicomInstances": [list(each) for each in references]}
        return str(self.post("/modalities/archive/storage-commitment", body)["Path"])

    def commitment(self, path: str) -> dict[str, Any]:
        """Return the answer to a request once a report came."""

        def reported() -> dict[str, Any] | None:
            answer: dict[str, Any] = self.get(path)
            return None if answer["Status"] == "Pending" else answer

        found = wait_until(reported, deadline_s=60, what="the report to reach Orthanc")
        assert found is not None
        return found

    def _call(self, path: str, body: bytes | None) -> Any:  # noqa: ANN401 - JSON
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Start an Orthanc called QRSCP: ``orthanc(port_of_the_archive, options of Orthanc)``."""
    binary = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        missing("Orthanc is not installed (apt-get install orthanc)")
    running: list[RunningProcess] = []

    def start(archive_port: int, options: Mapping[str, object] | None = None) -> Orthanc:
        port, http_port = free_port(), free_port()
        archive = {
            "AET": "DCM4CHEE",
            "Host": "127.0.0.1",
            "Port": archive_port,
            "AllowStorageCommitment": True,
            "UseDicomTls": "DicomTlsEnabled" in (options or {}),
        }
        configuration = tmp_path / "orthanc.json"
        configuration.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(tmp_path / "orthanc"),
                    "DicomAet": "QRSCP",
                    "DicomPort": port,
                    "HttpPort": http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {"archive": archive},
                    **(options or {}),
                }
            )
        )
        process = start_process([binary, configuration], log=tmp_path / "orthanc.log", env={})
        running.append(process)
        wait_until(
            lambda: "Orthanc has started" in process.output(),
            deadline_s=60,
            what="Orthanc to start",
        )
        return Orthanc("QRSCP", port, http_port, process)

    yield start
    for process in running:
        process.stop()
