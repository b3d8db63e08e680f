"""Warnings of libraries come in the form of the log; those of pydicom about values do not come."""

import json
import subprocess
import sys

WARN = """
import warnings
from archive.configuration.settings import Settings
from archive.telemetry import configure_logging
from pydicom.dataset import Dataset

configure_logging(Settings.from_environment())
Dataset().PatientID = "x" * 100
warnings.warn("something else", stacklevel=1)
"""


def test_warnings_are_lines_of_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARN],
        env={"DICOMQ_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = done.stderr.splitlines()
    found = json.loads(line)
    assert (found["level"], found["logger"]) == ("WARNING", "py.warnings")
    assert "something else" in found["message"]
