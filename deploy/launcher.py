"""Starts the whole system on one machine: ``make run``.

Embedded PostgreSQL and Redis (unless DATABASE_URL and REDIS_URL name others) and the processes of
the Procfile run under supervisor, which starts again what ends. Everything is kept below one
directory, `./data` or DICOMQ_DATA. Killed in whatever way, the next start ends what was left
running and goes on with the same data.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from archive.clock import SYSTEM_CLOCK
from deploy.control import end_leftovers, mark, start_group, states, wait_for_supervisor
from deploy.embedded import (
    Program,
    StartError,
    postgres_program,
    redis_program,
    socket_directory,
    wait_for_postgres,
)
from deploy.supervision import (
    Supervision,
    parse_formation,
    parse_procfile,
    write_configuration,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FLOWER_PORT = 5555
DEFAULT_FORMATION = {"scp": 2, "notify": 0, "retrieve": 0, "commit": 0, "query": 0}
"""One machine needs less memory with one worker, `others`, in place of these four."""
READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Endpoint:
    """Something that listens: what it is called, where, and how a user names it."""

    name: str
    address: str
    port: int
    text: str


def main() -> int:
    """Start the system, wait until it is asked to stop, and stop it."""
    data = Path(os.environ.get("DICOMQ_DATA") or "data").resolve()
    if "%" in str(data):
        print("dicomq cannot start: DICOMQ_DATA must not contain a percent sign", file=sys.stderr)
        return 1
    # A signal during the start ends it the same way as one after it.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        data.mkdir(parents=True, exist_ok=True)
        with _only_one(data):
            return _run(data)
    except KeyboardInterrupt:
        return 0
    except (StartError, OSError) as error:
        print(f"dicomq cannot start: {error}", file=sys.stderr)
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the lock on the data directory.

    Raises
    ------
    StartError
        When another process holds it.
    """
    with (data / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"a system runs on {data} already; stop it, or choose another DICOMQ_DATA"
            raise StartError(msg) from error
        yield


def _run(data: Path) -> int:
    supervision = Supervision(
        root=ROOT, data=data, sockets=socket_directory(data), formation=_formation()
    )
    end_leftovers(data, supervision.sockets)
    environment, servers = _environment(supervision)
    endpoints = _endpoints(environment)
    _check_ports(endpoints)
    write_configuration(supervision, servers, _commands())
    _write_environment(data, environment)
    supervisord = subprocess.Popen(
        [_program("supervisord"), "-c", str(supervision.configuration)],
        env=environment,
        cwd=ROOT,
    )
    try:
        wait_for_supervisor(supervision, lambda: supervisord.poll() is None)
        _bring_up(supervision, environment, endpoints)
        print(_banner(data, endpoints), flush=True)
        return supervisord.wait()
    except KeyboardInterrupt:
        print("Stopping; what is being sent now is finished or given back.", flush=True)
        return 0
    finally:
        _stop(supervisord)


def _commands() -> dict[str, str]:
    text = (ROOT / "deploy" / "Procfile").read_text(encoding="utf-8")
    return parse_procfile(text.replace("$FLOWER_PORT", str(_flower_port())))


def _flower_port() -> int:
    text = os.environ.get("DICOMQ_FLOWER_PORT") or str(DEFAULT_FLOWER_PORT)
    if not text.isdecimal():
        msg = f"DICOMQ_FLOWER_PORT: {text!r} is not a port"
        raise StartError(msg)
    return int(text)


def _formation() -> dict[str, int]:
    wanted = os.environ.get("DICOMQ_PROCESSES", "")
    return {**DEFAULT_FORMATION, **parse_formation(wanted, tuple(_commands()))}


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _environment(supervision: Supervision) -> tuple[dict[str, str], list[Program]]:
    """Return the environment of the processes, and the servers that have to run."""
    environment = {
        **os.environ,
        **mark(supervision.data),
        "DICOMQ_DATA": str(supervision.data),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        # a heap for every eighth thread of a worker would stay as large as it ever was
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
    }
    servers = []
    if not environment.get("DATABASE_URL"):
        program, environment["DATABASE_URL"] = postgres_program(
            supervision.data, supervision.sockets
        )
        servers.append(program)
    if not environment.get("REDIS_URL"):
        program, environment["REDIS_URL"] = redis_program(supervision.data, supervision.sockets)
        servers.append(program)
    return environment, servers


def _endpoints(environment: Mapping[str, str]) -> list[Endpoint]:
    """Return what will listen, read from the same directory as the processes read."""
    endpoints = [
        Endpoint(
            "DICOM",
            _bound(each["bind_address"]),
            each["port"],
            f"{each['title']}@localhost:{each['port']}",
        )
        for each in json.loads(_prepare("endpoints", environment))
    ]
    if not endpoints:
        msg = "no application entity of the archive device has a connection with a port"
        raise StartError(msg)
    port = _flower_port()
    return [*endpoints, Endpoint("Flower", "127.0.0.1", port, f"http://localhost:{port}")]


def _prepare(what: str, environment: Mapping[str, str]) -> str:
    """Have `deploy.preparation` do something and return what it prints."""
    argv = [sys.executable, "-m", "deploy.preparation", what]
    done = subprocess.run(
        argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StartError(done.stderr.strip())
    return done.stdout


def _bound(address: str | None) -> str:
    return address or os.environ.get("DICOMQ_BIND") or "0.0.0.0"  # noqa: S104 - to test the port


def _check_ports(endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((endpoint.address, endpoint.port))
            except OSError as error:
                msg = (
                    f"port {endpoint.port} of {endpoint.name} ({endpoint.text}) cannot be used: "
                    f"{error.strerror}. Stop the program that uses it{_port_hint(endpoint)}"
                )
                raise StartError(msg) from error


def _port_hint(endpoint: Endpoint) -> str:
    if endpoint.name == "Flower":
        return ", or choose another one with DICOMQ_FLOWER_PORT"
    return ", or change dicomPort of the connection in the directory"


def _write_environment(data: Path, environment: Mapping[str, str]) -> None:
    """Leave a file for shells that are to work on the running system: variables, and `celery`.

    The whole environment stays out of the path: it brings programs of pynetdicom that have the
    names of dcmtk's and dcm4che's (storescu, findscu …).
    """
    names = ("DATABASE_URL", "REDIS_URL", "DICOMQ_DATA", "DICOMQ_DIRECTORY", "DICOMQ_DEVICE")
    lines = [
        f"export {name}={shlex.quote(environment[name])}\n"
        for name in names
        if environment.get(name)
    ]
    programs = data / "run" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    celery = programs / "celery"
    celery.unlink(missing_ok=True)
    celery.symlink_to(Path(sys.executable).with_name("celery"))
    lines.append(f"PATH={shlex.quote(str(programs))}:$PATH\n")
    path = data / "environment"
    path.touch(mode=0o600)
    path.write_text("".join(lines), encoding="utf-8")


def _bring_up(
    supervision: Supervision, environment: Mapping[str, str], endpoints: list[Endpoint]
) -> None:
    url = environment["DATABASE_URL"]
    if not os.environ.get("DATABASE_URL"):
        wait_for_postgres(url)
    _prepare("migrate", environment)
    start_group(supervision)
    end = SYSTEM_CLOCK.monotonic() + READY_WITHIN_S
    waiting = list(endpoints)
    while waiting:
        waiting = [endpoint for endpoint in waiting if not _answers(endpoint)]
        if waiting and SYSTEM_CLOCK.monotonic() > end:
            names = ", ".join(f"{endpoint.name} ({endpoint.text})" for endpoint in waiting)
            msg = f"{names} did not start within {READY_WITHIN_S:g} s: {states(supervision)}"
            raise StartError(msg)
        SYSTEM_CLOCK.sleep(0.1)


def _answers(endpoint: Endpoint) -> bool:
    address = "127.0.0.1" if endpoint.address == "0.0.0.0" else endpoint.address  # noqa: S104
    with contextlib.suppress(OSError), socket.create_connection((address, endpoint.port), 1):
        return True
    return False


def _banner(data: Path, endpoints: list[Endpoint]) -> str:
    lines = [f"{endpoint.name:<8}{endpoint.text}" for endpoint in endpoints]
    width = shutil.get_terminal_size().columns
    rule = "-" * min(width, 72)
    return "\n".join(
        [
            rule,
            "dicomq is running:",
            *lines,
            f"Data    {data} (logs in log/)",
            f"Shell   . {data}/environment, then for example celery -A workers config show",
            "Stop    Ctrl-C",
            rule,
        ]
    )


def _stop(supervisord: subprocess.Popen[bytes]) -> None:
    """Stop all processes, then Redis, then PostgreSQL; supervisor knows the order."""
    # A second Ctrl-C does not interrupt the orderly end; supervisor limits its length.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if supervisord.poll() is None:
        supervisord.terminate()
    supervisord.wait()
