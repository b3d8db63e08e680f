"""Child processes, free ports, and the one way in which tests wait."""

import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import psutil
import pytest

from archive.clock import SYSTEM_CLOCK

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

_PORTS = range(12_000, 32_000)
_FIRST = secrets.randbelow(len(_PORTS))
_TAKEN = itertools.count()


def missing(what: str) -> NoReturn:
    """Skip the test because the machine lacks `what`; on a CI server fail instead."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"{what} (with CI set, nothing may be missing)", pytrace=False)
    pytest.skip(what)


def free_port() -> int:
    """Return a TCP port on which nothing listens on the loopback address.

    It is none of those that the kernel gives to outgoing connections, one of which could take it
    before the test listens there; and each process of tests goes through a stretch of its own.
    """
    while True:
        port = _PORTS[(_FIRST + next(_TAKEN)) % len(_PORTS)]
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_until(condition: Callable[[], T], *, deadline_s: float = 30.0, what: str = "") -> T:
    """Return the first true result of `condition`.

    Raises
    ------
    TimeoutError
        When `condition` is still false after `deadline_s` seconds.
    """
    end = SYSTEM_CLOCK.monotonic() + deadline_s
    while not (result := condition()):
        if SYSTEM_CLOCK.monotonic() > end:
            name = what or getattr(condition, "__name__", "the condition")
            msg = f"still waiting for {name} after {deadline_s:g} s"
            raise TimeoutError(msg)
        SYSTEM_CLOCK.sleep(0.02)
    return result


def listens(pid: int, port: int) -> bool:
    """Tell whether process `pid` (or a child of it) listens on `port`, without connecting."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for candidate in (process, *process.children(recursive=True)):
            for connection in candidate.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


@dataclass
class RunningProcess:
    """A child process in a session of its own, its output in a file."""

    popen: subprocess.Popen[bytes]
    log: Path
    name: str = field(default="")

    @property
    def pid(self) -> int:
        """Process id."""
        return self.popen.pid

    def is_alive(self) -> bool:
        """Tell whether the process has not ended."""
        return self.popen.poll() is None

    def output(self) -> str:
        """Return what the process has written so far, standard error included."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.is_alive():
            self.popen.send_signal(number)

    def kill(self) -> int:
        """End the process and all its children with KILL; return the exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def stop(self, deadline_s: float = 20.0) -> int:
        """Ask the process to end with TERM, insist with KILL; return the exit status."""
        self.send(signal.SIGTERM)
        return self.await_end(deadline_s)

    def await_end(self, deadline_s: float = 20.0) -> int:
        """Wait for a process that was asked to end, insist with KILL; return the exit status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(deadline_s)
        return self.kill()


def start_process(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    ready: Callable[[], object] | None = None,
    deadline_s: float = 30.0,
) -> RunningProcess:
    """Start a program and wait until `ready` is true.

    Parameters
    ----------
    argv
        Program and arguments.
    log
        File that takes the output; appended to.
    env
        Variables added to the environment of the tests.
    ready
        Asked until it is true; an OSError counts as not yet.
    deadline_s
        Seconds to wait for `ready`.

    Raises
    ------
    RuntimeError
        When the program ends before it is ready.
    """
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=ROOT,
            start_new_session=True,
        )
    process = RunningProcess(popen, log, Path(argv[0]).name)
    if ready is not None:
        try:
            wait_until(
                lambda: _ready_or_dead(process, ready), deadline_s=deadline_s, what=str(argv)
            )
        except BaseException:
            process.kill()
            raise
    return process


def _ready_or_dead(process: RunningProcess, ready: Callable[[], object]) -> bool:
    if not process.is_alive():
        msg = f"{process.name} ended with {process.popen.returncode}:\n{process.output()[-4000:]}"
        raise RuntimeError(msg)
    try:
        return bool(ready())
    except OSError:
        return False


def stop_all(processes: Iterable[RunningProcess]) -> None:
    """Ask processes to end, all at once, and wait for them."""
    running = list(processes)
    for process in running:
        process.send(signal.SIGTERM)
    for process in running:
        process.await_end()


class Spawn(Protocol):
    """What the fixture `spawn` is."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> RunningProcess:
        """Start a program that is ended with the test."""
        ...


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start programs with ``spawn(argv, env, ready)``; they are ended with the test."""
    running: list[RunningProcess] = []

    def start(
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        ready: Callable[[], object] | None = None,
    ) -> RunningProcess:
        log = tmp_path / f"process-{len(running)}.log"
        running.append(start_process(argv, log=log, env=env, ready=ready))
        return running[-1]

    yield start
    stop_all(running)
