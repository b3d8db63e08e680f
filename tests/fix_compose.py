"""The docker-compose stack on a local engine: one that runs, or one started for the test."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fix_process import ROOT, RunningProcess, free_port, missing, start_process, wait_until

SOURCES = ("archive", "scp", "workers", "deploy")
FILES = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore")
PROJECT = "dicomq-test"


@dataclass(frozen=True)
class DockerEngine:
    """A Docker engine that answers."""

    host: str

    def run(self, *argv: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run the docker command and return what it prints."""
        done = subprocess.run(
            ["docker", *argv],
            check=False,
            env={**os.environ, "DOCKER_HOST": self.host},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            msg = f"docker {' '.join(argv)}: {done.stderr}"
            raise RuntimeError(msg)
        return done.stdout + done.stderr if argv[0] == "logs" else done.stdout

    def answers(self) -> bool:
        """Tell whether the engine can be used."""
        version = self.run("version", "--format", "{{.Server.Version}}", check=False)
        return bool(version.strip())


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """The engine of this machine; as root one is started where none runs."""
    if shutil.which("docker") is None or not has_compose():
        missing("docker and docker-compose are not installed (apt-get install docker.io)")
    if os.geteuid() != 0:
        missing("only root can kill the processes of containers")
    given = DockerEngine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if given.answers():
        yield given
        return
    if shutil.which("dockerd") is None:
        missing("no Docker engine runs here, and dockerd to start one is not installed")
    directory = tmp_path_factory.mktemp("engine")
    own = DockerEngine(f"unix://{directory}/docker.sock")
    process = _start_engine(directory, own)
    yield own
    process.stop(deadline_s=60)
    shutil.rmtree(directory, ignore_errors=True)


def has_compose() -> bool:
    """Tell whether either form of docker-compose is installed."""
    if shutil.which("docker-compose"):
        return True
    asked = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True)
    return asked.returncode == 0


def _start_engine(directory: Path, engine: DockerEngine) -> RunningProcess:
    argv = ["dockerd", "--host", engine.host, "--data-root", str(directory / "data")]
    argv += ["--exec-root", str(directory / "exec"), "--pidfile", str(directory / "pid")]
    log = directory / "dockerd.log"
    try:
        return start_process(argv, log=log, ready=engine.answers, deadline_s=60)
    except (RuntimeError, TimeoutError) as error:
        missing(f"dockerd does not start here: {error}")


@dataclass
class Stack:
    """The stack of a copy of this checkout, so that nobody's secrets and volumes are touched."""

    engine: DockerEngine
    directory: Path
    dicom_port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    ldap_port: int = field(default_factory=free_port)
    flower_port: int = field(default_factory=free_port)
    prometheus_port: int = field(default_factory=free_port)

    @property
    def deploy(self) -> Path:
        """Where the compose file is."""
        return self.directory / "deploy"

    def prepare(self) -> None:
        """Copy the checkout and write the settings of the stack."""
        skipped = shutil.ignore_patterns("__pycache__", "secrets", ".env")
        for name in SOURCES:
            shutil.copytree(ROOT / name, self.directory / name, ignore=skipped)
        for name in FILES:
            shutil.copy(ROOT / name, self.directory / name)
        example = (self.deploy / "env.example").read_text()
        self.deploy.joinpath(".env").write_text(
            f"{example}\n"
            f"COMPOSE_PROJECT_NAME={PROJECT}\n"
            f"DICOMQ_IMAGE={PROJECT}\n"
            f"DICOM_PORT={self.dicom_port}\nDICOM_TLS_PORT={self.tls_port}\n"
            f"LDAP_PORT={self.ldap_port}\n"
            f"FLOWER_PORT={self.flower_port}\nPROMETHEUS_PORT={self.prometheus_port}\n"
            f"BASE_IMAGE={self._base_image()}\n"
        )

    def _base_image(self) -> str:
        """Return the image to build on: where debootstrap is, one that needs no registry."""
        if shutil.which("debootstrap") is None:
            return "debian:bookworm-20250520-slim"
        return self.script("base_image.sh", timeout_s=600).split()[-1]

    def script(self, name: str, *arguments: str, timeout_s: float = 120.0) -> str:
        """Run one of the scripts in deploy/compose and return what it prints."""
        done = subprocess.run(
            [str(self.deploy / "compose" / name), *arguments],
            check=False,
            env={**os.environ, "DOCKER_HOST": self.engine.host, "WAIT_S": "900"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
        if done.returncode:
            msg = (
                f"{name} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
            )
            raise RuntimeError(msg)
        return done.stdout

    def compose(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Run docker-compose on the stack and return what it prints."""
        return self.script("compose.sh", *arguments, timeout_s=timeout_s)

    def output(self, *arguments: str) -> bytes:
        """Run docker-compose on the stack and return what it writes, byte by byte."""
        done = subprocess.run(
            [str(self.deploy / "compose" / "compose.sh"), *arguments],
            check=True,
            env={**os.environ, "DOCKER_HOST": self.engine.host},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        return done.stdout

    def secret(self, name: str) -> str:
        """Return one of the secrets that the first start made."""
        return (self.deploy / "secrets" / name).read_text().strip()

    def gateway(self) -> str:
        """Return the address under which containers reach this machine."""
        name = f"{PROJECT}_outside"
        form = "{{(index .IPAM.Config 0).Gateway}}"
        return self.engine.run("network", "inspect", "-f", form, name).strip()

    def containers(self) -> list[dict[str, Any]]:
        """Return what the engine tells of each container of the stack, ended ones included."""
        label = f"label=com.docker.compose.project={PROJECT}"
        ids = self.engine.run("ps", "--all", "--quiet", "--filter", label).split()
        found: list[dict[str, Any]] = json.loads(self.engine.run("inspect", *ids))
        return found

    def running(self) -> dict[str, int]:
        """Return process ids of the running containers by name."""
        return {
            each["Name"].lstrip("/"): each["State"]["Pid"]
            for each in self.containers()
            if each["State"]["Running"] and each["State"]["Pid"]
        }

    def kill(self, name: str) -> bool:
        """Kill the first process of a container, as a crash would; tell whether there was one.

        `docker kill` counts as the wish of an administrator, after which nothing is restarted.
        """
        pid = self.running().get(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    def ldapmodify(self, ldif: str) -> None:
        """Change the directory from outside."""
        url = f"ldap://127.0.0.1:{self.ldap_port}"
        argv = ["ldapmodify", "-x", "-H", url, "-D", "cn=admin,dc=dcm4che,dc=org"]
        argv += ["-y", str(self.deploy / "secrets" / "ldap_admin_password")]
        done = subprocess.run(argv, input=ldif, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def configure(self, ldif: str) -> None:
        """Change the directory from outside and wait until the SCPs act on it."""
        names = [name for name in self.running() if re.search(r"[-_]scp[-_]", name)]
        before = {name: self._configurations(name) for name in names}
        self.ldapmodify(ldif)
        wait_until(
            lambda: all(self._configurations(name) > before[name] for name in names),
            deadline_s=60,
            what="the SCPs to read the changed directory",
        )

    def _configurations(self, name: str) -> int:
        """Return how many configurations a container has read since it was made."""
        log = self.engine.run("logs", name)
        return len(set(re.findall(r"configuration (\w+) of device", log)))

    def query(self, sql: str) -> list[str]:
        """Return the lines of a query of the ledger."""
        argv = ["exec", "-T", "postgres", "psql", "-h", "/run/dicomq", "-U", "postgres", "-qAt"]
        return self.compose(*argv, "-d", "dicomq", "-c", sql).splitlines()

    def wait_until_healthy(self, deadline_s: int = 240) -> None:
        """Wait until every service is."""
        self.script("wait.sh", str(deadline_s), timeout_s=deadline_s + 30)

    def wait_until_done(self, deadline_s: float = 240.0) -> None:
        """Wait until no task is waiting or in process."""
        open_tasks = (
            "SELECT pk, kind, status, remote_aet, error_message FROM task WHERE status IN "
            "('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS')"
        )
        wait_until(
            lambda: not self.query(open_tasks), deadline_s=deadline_s, what="all tasks to be done"
        )

    def down(self) -> None:
        """End the stack and forget its volumes."""
        self.compose("--profile", "monitoring", "down", "--volumes", timeout_s=300)


def all_stored(done: subprocess.CompletedProcess[str], count: int) -> bool:
    """Tell whether a storescu got a success for each of `count` files.

    Its exit status is 0 also when the peer has refused objects.
    """
    return done.stdout.count("Received Store Response (Success)") == count


@pytest.fixture
def stack(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[Stack]:
    """The stack, prepared and not started."""
    made = Stack(docker_engine, tmp_path / "project")
    made.directory.mkdir()
    made.prepare()
    yield made
    made.down()
