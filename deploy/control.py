"""Talks to a running supervisor, and ends what a killed one left behind."""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from archive.clock import SYSTEM_CLOCK
from deploy.embedded import StartError
from deploy.supervision import GROUP, Supervision

MARK = "DICOMQ_SUPERVISED_DATA"
_GRACE_S = 20.0
_CONTROL_WITHIN_S = 30.0


def mark(data: Path) -> Mapping[str, str]:
    """Return the variable by which processes of the system on `data` are known."""
    return {MARK: str(data)}


def start_group(supervision: Supervision) -> None:
    """Start the processes of the Procfile.

    Raises
    ------
    StartError
        When supervisor does not answer or a program cannot be executed.
    """
    with _control(supervision) as control:
        _wait_for(control)
        try:
            control.supervisor.startProcessGroup(GROUP, False)  # noqa: FBT003 - positional protocol
        except Fault as fault:
            msg = f"supervisor cannot start the processes: {fault.faultString}"
            raise StartError(msg) from fault


def states(supervision: Supervision) -> str:
    """Return in one line what supervisor says of each process."""
    with _control(supervision) as control:
        try:
            every = control.supervisor.getAllProcessInfo()
        except (OSError, HTTPException, Fault) as error:
            return f"supervisor does not answer ({error})"
    return ", ".join(f"{process['name']} {process['statename']}" for process in every)


@contextlib.contextmanager
def _control(supervision: Supervision) -> Iterator[Any]:
    transport = SupervisorTransport(None, None, f"unix://{supervision.control_socket}")
    with contextlib.closing(transport):
        yield ServerProxy("http://localhost", transport=transport)


def _wait_for(control: Any) -> None:  # noqa: ANN401 - attributes are made on the fly
    end = SYSTEM_CLOCK.monotonic() + _CONTROL_WITHIN_S
    while True:
        try:
            control.supervisor.getState()
        except (OSError, HTTPException) as error:
            if SYSTEM_CLOCK.monotonic() > end:
                msg = f"supervisor does not answer: {error}"
                raise StartError(msg) from error
            SYSTEM_CLOCK.sleep(0.1)
        else:
            return


def end_leftovers(data: Path) -> None:
    """End processes of an earlier system on `data` whose supervisor was killed.

    Their claims lapse and their tasks are done again; PostgreSQL shuts down in order.
    """
    leftovers = _leftovers(data)
    if leftovers:
        names = sorted({process.info["name"] for process in leftovers})
        print(f"Ending what was left running: {', '.join(names)}", flush=True)
    # Those first that start others again and those that work; the servers last.
    for process in sorted(leftovers, key=_end_order):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(_end_signal(process))
    _, alive = psutil.wait_procs(leftovers, timeout=_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_GRACE_S)
    _forget_dead_postmaster(data / "postgres" / "postmaster.pid")


def _leftovers(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            # every PostgreSQL backend inherits the variable; its postmaster ends it
            if process.environ().get(MARK) == str(data) and not _is_backend(process):
                found.append(process)
    return found


def _is_backend(process: psutil.Process) -> bool:
    parent = process.parent()
    return process.name() == "postgres" and parent is not None and parent.name() == "postgres"


def _end_order(process: psutil.Process) -> int:
    name = str(process.info["name"])
    return 0 if name.startswith("supervisord") else 2 if name in {"postgres", "redis-server"} else 1


def _end_signal(process: psutil.Process) -> signal.Signals:
    return signal.SIGINT if process.info["name"] == "postgres" else signal.SIGTERM


def _forget_dead_postmaster(pid_file: Path) -> None:
    """Remove the pid file of a dead PostgreSQL: a reused pid would keep it from starting."""
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    with contextlib.suppress(psutil.Error):
        if psutil.Process(pid).name() == "postgres":
            return
    pid_file.unlink(missing_ok=True)
