"""Turns the Procfile and the embedded servers into a configuration of supervisor."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded import Program, StartError

GROUP = "dicomq"
# Long enough for an association to end between two objects.
STOP_WAIT_S = 60
# Supervisor waits one second longer after each failed start and must never give up.
START_RETRIES = 1_000_000
_RPC_SECTION = """[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
_PROCFILE_LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(\S.*)$")


@dataclass(frozen=True)
class Supervision:
    """Where supervisor finds and keeps its things.

    Attributes
    ----------
    formation
        How many processes of each type of the Procfile run; one where it is not named.
    """

    root: Path
    data: Path
    sockets: Path
    formation: Mapping[str, int]

    @property
    def control_socket(self) -> Path:
        """Socket on which supervisor takes orders."""
        return self.sockets / "supervisor.sock"

    @property
    def configuration(self) -> Path:
        """Configuration file, written at each start."""
        return self.sockets / "supervisor.conf"

    @property
    def logs(self) -> Path:
        """Directory of one log file per process."""
        return self.data / "log"


def parse_procfile(text: str) -> dict[str, str]:
    """Return the command of each process type; comments and blank lines are left out."""
    matches = (_PROCFILE_LINE.match(line.strip()) for line in text.splitlines())
    return {match[1]: match[2] for match in matches if match}


def parse_formation(text: str, known: Sequence[str]) -> dict[str, int]:
    """Read numbers of processes such as ``scp=2,export=3``.

    Raises
    ------
    StartError
        When a name is not in the Procfile or a number is none.
    """
    formation = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name not in known or not number.isdecimal():
            msg = f"DICOMQ_PROCESSES: {part!r} is not one of {', '.join(known)} with a number"
            raise StartError(msg)
        formation[name] = int(number)
    return formation


def write_configuration(
    supervision: Supervision, servers: Sequence[Program], commands: Mapping[str, str]
) -> None:
    """Write the configuration file of supervisor."""
    supervision.logs.mkdir(exist_ok=True)
    sections = [_head(supervision)]
    sections += [_server(supervision, program, i) for i, program in enumerate(servers, start=1)]
    sections += [
        _process(supervision, name, command)
        for name, command in commands.items()
        if supervision.formation.get(name, 1) > 0
    ]
    running = [name for name in commands if supervision.formation.get(name, 1) > 0]
    sections.append(_section(f"group:{GROUP}", programs=",".join(running), priority=100))
    supervision.configuration.write_text("\n".join(sections), encoding="utf-8")


def _section(title: str, **values: object) -> str:
    lines = [f"{name}={value}" for name, value in values.items()]
    return "\n".join([f"[{title}]", *lines, ""])


def _literal(value: object) -> str:
    """Return a value in which supervisor, which expands %(name)s, expands nothing."""
    return str(value).replace("%", "%%")


def _head(supervision: Supervision) -> str:
    control = supervision.control_socket
    user = {"user": "root"} if os.geteuid() == 0 else {}
    return "\n".join(
        [
            _section(
                "supervisord",
                nodaemon="true",
                silent="true",
                logfile=_literal(supervision.logs / "supervisor.log"),
                pidfile=_literal(supervision.sockets / "supervisor.pid"),
                directory=_literal(supervision.root),
                minfds=4096,
                **user,
            ),
            _section("unix_http_server", file=_literal(control), chmod="0700"),
            _section("supervisorctl", serverurl=f"unix://{_literal(control)}"),
            _RPC_SECTION,
            _section(
                "eventlistener:console",
                command=f"{_quoted(sys.executable)} -m deploy.console",
                events="PROCESS_LOG,PROCESS_STATE",
                buffer_size=10_000,
                priority=-1,
                stderr_logfile="/dev/fd/1",
                stderr_logfile_maxbytes=0,
                startretries=START_RETRIES,
            ),
        ]
    )


def _server(supervision: Supervision, program: Program, priority: int) -> str:
    user = {"user": program.user} if program.user else {}
    return _section(
        f"program:{program.name}",
        command=" ".join(_quoted(part) for part in program.argv),
        directory=_literal(program.directory),
        stopsignal=program.stop_signal,
        priority=priority,
        **user,
        **_common(supervision, program.name),
    )


def _process(supervision: Supervision, name: str, command: str) -> str:
    number = supervision.formation.get(name, 1)
    process_name = name if number == 1 else f"{name}-%(process_num)d"
    return _section(
        f"program:{name}",
        command=_literal(command).replace("$PS", process_name),
        numprocs=number,
        process_name=process_name,
        autostart="false",
        priority=100,
        **_common(supervision, process_name),
    )


def _common(supervision: Supervision, process_name: str) -> dict[str, object]:
    return {
        "autorestart": "true",
        "startsecs": 1,
        "startretries": START_RETRIES,
        "stopwaitsecs": STOP_WAIT_S,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": f"{_literal(supervision.logs)}/{process_name}.log",
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 3,
        "stdout_events_enabled": "true",
    }


def _quoted(part: str) -> str:
    return '"' + _literal(part).replace("\\", "\\\\").replace('"', '\\"') + '"'
