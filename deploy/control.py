"""Talks to a running supervisor, and ends what a killed one left behind."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
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


def wait_for_supervisor(supervision: Supervision, is_alive: Callable[[], bool]) -> None:
    """Wait until supervisor takes orders.

    Parameters
    ----------
    is_alive
        Tells whether supervisor still runs.

    Raises
    ------
    StartError
        When it ended or does not answer.
    """
    end = SYSTEM_CLOCK.monotonic() + _CONTROL_WITHIN_S
    while True:
        try:
            with _control(supervision) as control:
                control.supervisor.getState()
        except (OSError, HTTPException) as error:
            if SYSTEM_CLOCK.monotonic() > end or not is_alive():
                msg = f"supervisor does not answer (see what it printed): {error}"
                raise StartError(msg) from error
            SYSTEM_CLOCK.sleep(0.1)
        else:
            return


def start_group(supervision: Supervision) -> None:
    """Start the processes of the Procfile.

    Raises
    ------
    StartError
        When supervisor does not answer or a program cannot be executed.
    """
    with _control(supervision) as control:
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


def end_leftovers(data: Path, sockets: Path) -> None:
    """End processes of an earlier system on `data` whose supervisor was killed.

    Their claims lapse and their tasks are done again; PostgreSQL shuts down in order.
    """
    leftovers = _leftovers(data, sockets)
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


def _leftovers(data: Path, sockets: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            # Redis writes its title, with its socket, over its environment.
            marked = process.environ().get(MARK) == str(data)
            titled = f"unixsocket:{sockets}/" in " ".join(process.cmdline())
            if (marked or titled) and not _is_backend(process):
                found.append(process)
    return found


def _is_backend(process: psutil.Process) -> bool:
    parent = process.parent()
    # every backend inherits the mark; its postmaster ends it
    return process.name() == "postgres" and parent is not None and parent.name() == "postgres"


def _end_order(process: psutil.Process) -> int:
    name = str(process.info["name"])
    if name.startswith("supervisord"):
        return 0
    return 2 if name in {"postgres", "redis-server", "valkey-server"} else 1


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
