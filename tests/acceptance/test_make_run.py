"""``make run`` and ``make demo`` as a user meets them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.fix_installation import Installation
from tests.fix_objects import generate_studies
from tests.fix_peer import echo, send_files
from tests.fix_process import (
    missing,
    start_process,
    wait_until,
)
from tests.fix_redis import redis_binary

DEMO_PORTS = (5555, 11112, 11115, 11117)

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("make-run")]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A data directory over which ``make run`` may be started."""
    if redis_binary() is None:
        missing("no redis-server or valkey-server (apt-get install redis-server)")
    made = Installation(tmp_path)
    yield made
    for process in made.processes():
        process.kill()


def in_shell(installation: Installation, command: str) -> str:
    """Return what a command prints in a new shell that does as ``make run`` says."""
    script = f'cd / && . "{installation.data}/environment" && {command}'
    ran = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_starts_stops_and_starts_again_over_its_data(
    installation: Installation, tmp_path: Path
) -> None:
    [study] = generate_studies(tmp_path / "objects", studies=1, instances=3)
    first = installation.start()
    assert f"DCM4CHEE@localhost:{installation.port}" in first.output(), first.output()
    assert f"http://localhost:{installation.flower_port}" in first.output()
    assert echo(installation.port)
    assert len(send_files(list(study.files.values()), installation.port).accepted) == 3
    assert study.study_instance_uid in in_shell(installation, "celery -A workers studies list")
    assert in_shell(installation, "command -v echoscu || echo none") in {"/usr/bin/echoscu", "none"}

    first.send(signal.SIGINT)

    assert first.popen.wait(60) == 0, first.output()
    assert installation.processes() == []

    second = installation.start()
    assert echo(installation.port), second.output()
    second.send(signal.SIGTERM)
    assert second.popen.wait(60) == 0, second.output()
    assert installation.processes() == []


def test_starts_again_after_everything_was_killed(installation: Installation) -> None:
    first = installation.start()
    for process in installation.processes():
        process.kill()
    first.kill()
    psutil.wait_procs(installation.processes(), timeout=20)

    again = installation.start()

    assert echo(installation.port), again.output()
    again.send(signal.SIGTERM)
    assert again.popen.wait(60) == 0, again.output()


def test_ends_what_a_killed_supervisor_left_running(installation: Installation) -> None:
    first = installation.start()
    children = psutil.Process(first.pid).children()
    for process in (first, *children):
        os.kill(process.pid, signal.SIGKILL)
    first.popen.wait()
    assert installation.processes()

    again = installation.start()

    assert "Ending what was left running" in again.output()
    assert echo(installation.port), again.output()
    again.send(signal.SIGTERM)
    assert again.popen.wait(60) == 0, again.output()
    assert installation.processes() == []


def test_a_process_that_ends_is_started_again(installation: Installation) -> None:
    running = installation.start()
    scps = [each for each in installation.processes() if "scp" in each.cmdline()]
    assert len(scps) == 2
    for process in scps:
        process.kill()
    psutil.wait_procs(scps, timeout=20)

    wait_until(partial(echo, installation.port), deadline_s=60, what="the SCP to come back")
    running.send(signal.SIGTERM)
    assert running.popen.wait(60) == 0


def test_says_who_is_in_the_way(installation: Installation, tmp_path: Path) -> None:
    running = installation.start()

    second = installation.start()
    assert second.popen.wait(30) == 1
    assert f"a system runs on {installation.data} already" in second.output()

    other = Installation(tmp_path / "other")
    other.flower_port = installation.flower_port
    blocked = other.start()
    assert blocked.popen.wait(30) == 1
    assert f"port {installation.flower_port} of Flower" in blocked.output()
    assert "DICOMQ_FLOWER_PORT" in blocked.output()
    running.send(signal.SIGTERM)
    assert running.popen.wait(60) == 0


def test_demo_twice(tmp_path: Path) -> None:
    used = {
        connection.laddr.port
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    if taken := used.intersection(DEMO_PORTS):
        missing(f"the demonstration's ports are in use: {sorted(taken)}")
    for number in (1, 2):
        process = start_process(
            [sys.executable, "-m", "deploy.demo"],
            log=tmp_path / f"demo-{number}.log",
            env={"DICOMQ_DATA": str(tmp_path / "none"), "DATABASE_URL": "", "REDIS_URL": ""},
        )
        assert process.popen.wait(180) == 0, process.output()
        assert "All counts agree." in process.output()
        assert "N-CREATE-RQ" in process.output()
