"""Real OpenLDAP servers that load the schema shipped in deploy/ldap."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from archive.configuration.defaults import default_entries
from archive.configuration.ldif import write_ldif
from tests.fix_process import ROOT, RunningProcess, free_port, missing, start_process

BASE_DN = "dc=dcm4che,dc=org"
SCHEMA = ROOT / "deploy" / "ldap" / "schema"
SYSTEM_SCHEMA = Path("/etc/ldap/schema")
SEARCH_PATH = "/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/bin"


@dataclass
class Slapd:
    """A slapd with the suffix `base_dn`, which is empty at first.

    Attributes
    ----------
    options
        Lines for its database in slapd.conf, such as access rules, limits and overlays.
    schemas
        Whether it has the schema of dicomq from the beginning.
    """

    directory: Path
    port: int
    base_dn: str = BASE_DN
    bind_dn: str = f"cn=admin,{BASE_DN}"
    password: str = "secret"  # noqa: S105 - of a server that lives as long as a test
    options: Sequence[str] = ()
    schemas: bool = True
    process: RunningProcess | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """URL without DN."""
        return f"ldap://127.0.0.1:{self.port}"

    # --- process

    def start(self) -> None:
        """Start it with what it has, and wait until it answers."""
        (self.directory / "db").mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "slapd.conf"
        configuration.write_text(self._configuration())
        argv = [_binary("slapd"), "-d", "0", "-f", str(configuration), "-h", self.url]
        log = self.directory / "slapd.log"
        self.process = start_process(argv, log=log, ready=self._binds)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()

    def freeze(self) -> None:
        """Let it take connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it work again."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.thaw()
            self.process.stop()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    # --- tools

    def ldapadd(self, ldif: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Add the entries of a file."""
        return self.tool("ldapadd", *options, "-f", str(ldif))

    def ldapmodify(self, ldif: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Apply the change records of a file."""
        return self.tool("ldapmodify", *options, "-f", str(ldif))

    def change(self, text: str) -> None:
        """Apply change records with ldapmodify; records without changetype add entries."""
        done = self.tool("ldapmodify", "-a", text=text)
        assert done.returncode == 0, done.stderr

    def ldapsearch(self, *arguments: str) -> str:
        """Return the entries below the base as LDIF without wrapped lines."""
        done = self.tool("ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-b", BASE_DN, *arguments)
        return done.stdout

    def empty(self) -> None:
        """Delete every entry; slapd 2.5 crashes when a base that is not there is deleted."""
        if self.ldapsearch("-s", "base", "1.1"):
            self.tool("ldapdelete", "-r", self.base_dn)

    def load(self, ldif: bytes) -> None:
        """Fill it with the entries of an LDIF file while it is stopped: fast."""
        (self.directory / "db").mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "slapd.conf"
        configuration.write_text(self._configuration())
        argv = [_binary("slapadd"), "-q", "-f", str(configuration)]
        data = ldif.removeprefix(b"version: 1\n")
        done = subprocess.run(argv, check=False, capture_output=True, input=data, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

    def tool(
        self, name: str, *arguments: str, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the ldap tools as administrator."""
        argv = [name, "-x", "-H", self.url, "-D", self.bind_dn, "-w", self.password, *arguments]
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=30, input=text
        )

    def _configuration(self) -> str:
        system = [SYSTEM_SCHEMA / f"{name}.schema" for name in ("core", "cosine", "inetorgperson")]
        own = sorted(SCHEMA.glob("*.schema")) if self.schemas else []
        includes = [f"include {path}" for path in (*system, *own)]
        module = ["modulepath /usr/lib/ldap", "moduleload back_mdb", "moduleload syncprov"]
        database = [
            "database config",
            "rootpw secret",
            "database mdb",
            "maxsize 67108864",
            f"suffix {BASE_DN}",
            f"rootdn cn=admin,{BASE_DN}",
            "rootpw secret",
            f"directory {self.directory / 'db'}",
            "dbnosync",
        ]
        pid_file = [f"pidfile {self.directory / 'slapd.pid'}"]
        return "\n".join([*includes, *pid_file, *module, *database, *self.options, ""])

    def _binds(self) -> bool:
        argv = ["ldapwhoami", "-x", "-H", self.url, "-D", self.bind_dn, "-w", self.password]
        return subprocess.run(argv, check=False, capture_output=True, timeout=5).returncode == 0


def small_directory() -> bytes:
    """Return the default directory without its many transfer capabilities as LDIF."""
    entries = default_entries()
    return write_ldif(one for one in entries if not one.has_class("dicomTransferCapability"))


def _binary(name: str) -> str:
    binary = shutil.which(name, path=SEARCH_PATH)
    if binary is None or shutil.which("ldapsearch") is None:
        missing("slapd is not installed (apt-get install slapd ldap-utils)")
    return binary


@pytest.fixture(scope="session")
def slapd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """OpenLDAP started once per session; tests want `slapd`, which is empty."""
    server = Slapd(tmp_path_factory.mktemp("slapd"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def slapd(slapd_server: Slapd) -> Slapd:
    """OpenLDAP without entries, its schema as shipped in deploy/ldap/schema."""
    slapd_server.empty()
    return slapd_server


MakeSlapd = Callable[..., Slapd]


@pytest.fixture
def make_slapd(tmp_path: Path) -> Iterator[MakeSlapd]:
    """Start slapds of a test's own with ``make_slapd(ldif, *options)``."""
    made: list[Slapd] = []

    def make(ldif: bytes | None = None, *options: str) -> Slapd:
        server = Slapd(tmp_path / f"slapd-{len(made)}", free_port(), options=options)
        made.append(server)
        server.load(small_directory() if ldif is None else ldif)
        server.start()
        return server

    yield make
    for server in made:
        server.stop()
