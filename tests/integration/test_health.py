"""What supervisors ask: a process is healthy while it works, and not when it is stuck or gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from tests.fix_engine import Engine
from tests.fix_process import free_port, wait_until
from tests.fix_scp import Site, small_dataset
from tests.fix_system import ARCHIVE_AE


def ask(argv: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Return exit status and words of a health command."""
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def celery_health(*options: str) -> list[str]:
    return ["celery", "-A", "workers", "health", *options]


def test_a_worker_answers_through_the_broker(engine: Engine) -> None:
    worker = engine.start_worker()
    question = celery_health("--kind", "export", "--hostname", "w0@test", "--timeout", "2")
    assert ask(question, engine.environment) == (0, "worker w0@test answers through the broker\n")
    worker.send(signal.SIGSTOP)
    status, words = ask(question, engine.environment)
    assert (status, "did not answer" in words) == (2, True), words
    worker.send(signal.SIGCONT)
    engine.redis.kill()
    status, words = ask(question, engine.environment)
    assert (status, "Redis cannot be asked" in words) == (2, True), words


def test_a_dispatcher_passes_or_is_stuck(engine: Engine) -> None:
    environment = engine.environment | {
        "DICOMQ_METRICS_PORT": str(free_port()),
        "DICOMQ_POLL_S": "0.5",
    }
    question = celery_health("--kind", "dispatcher", "--timeout", "2")
    dispatcher = engine.start_dispatcher(**environment)
    wait_until(lambda: ask(question, environment)[0] == 0, what="a pass")
    dispatcher.send(signal.SIGSTOP)
    status, words = ask(question, environment)
    assert (status, "does not answer" in words) == (2, True), words


def test_an_scp_verifies(site: Site) -> None:
    question = ["scp", "--health"]
    status, words = ask(question, site.environment)
    assert (status, "does not answer" in words) == (1, True), words
    site.start()
    found = ask(question, site.environment)
    assert found == (0, f"DCM4CHEE@127.0.0.1:{site.port} answers C-ECHO\n")
    # named on the command line: the directory is not read
    named = [*question, "--port", str(site.port), "--aet"]
    nowhere = {**site.environment, "DICOMQ_DIRECTORY": "ldap://127.0.0.1:1/dc=x"}
    assert ask([*named, "DCM4CHEE"], nowhere) == found
    status, words = ask([*named, "UNKNOWN"], nowhere)
    assert (status, "rejects associations" in words) == (0, True), words


def test_an_scp_that_knows_its_callers_is_called_by_one_of_them(site: Site) -> None:

    site.modify(ARCHIVE_AE, dcmAcceptedCallingAETitle="STORESCU")
    site.start()
    assert ask(["scp", "--health"], site.environment)[0] == 0


def test_an_scp_lets_associations_end_by_themselves(site: Site) -> None:
    process = site.start(DICOMQ_DRAIN_S="30")
    with site.peer() as peer:
        peer.associate()
        process.send(signal.SIGTERM)
        wait_until(lambda: "scp.stopping" in process.output(), what="the end to begin")
        assert peer.store("1.2.3.4", small_dataset("1.2.3.4")).status == 0
        peer.release()
    wait_until(lambda: not process.is_alive(), deadline_s=10, what="the SCP to end")
    assert process.popen.returncode == 0
