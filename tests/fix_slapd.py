"""A real OpenLDAP server that loads the schema shipped in deploy/ldap."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fix_process import ROOT, free_port, missing, start_process

BASE_DN = "dc=dcm4che,dc=org"
SCHEMA = ROOT / "deploy" / "ldap" / "schema"
SYSTEM_SCHEMA = Path("/etc/ldap/schema")


@dataclass
class Slapd:
    """A running slapd with an empty suffix `base_dn`."""

    directory: Path
    port: int
    base_dn: str = BASE_DN
    bind_dn: str = f"cn=admin,{BASE_DN}"
    password: str = "secret"  # noqa: S105 - of a server that lives as long as a test

    @property
    def url(self) -> str:
        """URL without DN."""
        return f"ldap://127.0.0.1:{self.port}"

    def ldapadd(self, ldif: Path) -> subprocess.CompletedProcess[str]:
        """Add the entries of a file."""
        return self._tool("ldapadd", "-f", str(ldif))

    def ldapmodify(self, ldif: Path) -> subprocess.CompletedProcess[str]:
        """Apply the change records of a file."""
        return self._tool("ldapmodify", "-f", str(ldif))

    def ldapsearch(self, *arguments: str) -> str:
        """Return the entries below the base as LDIF without wrapped lines."""
        done = self._tool("ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-b", BASE_DN, *arguments)
        return done.stdout

    def empty(self) -> None:
        """Delete every entry; slapd 2.5 crashes when a base that is not there is deleted."""
        if self.ldapsearch("-s", "base", "1.1"):
            self._tool("ldapdelete", "-r", self.base_dn)

    def _tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [name, "-x", "-H", self.url, "-D", self.bind_dn, "-w", self.password, *arguments]
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)


def _configuration(directory: Path) -> str:
    system = [SYSTEM_SCHEMA / f"{name}.schema" for name in ("core", "cosine", "inetorgperson")]
    includes = [f"include {path}" for path in (*system, *sorted(SCHEMA.glob("*.schema")))]
    module = ["modulepath /usr/lib/ldap", "moduleload back_mdb"]
    database = [
        "database mdb",
        "maxsize 67108864",
        f"suffix {BASE_DN}",
        f"rootdn cn=admin,{BASE_DN}",
        "rootpw secret",
        f"directory {directory / 'db'}",
        "dbnosync",
    ]
    pid_file = [f"pidfile {directory / 'slapd.pid'}"]
    return "\n".join([*includes, *pid_file, *module, *database, ""])


@pytest.fixture(scope="session")
def slapd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """OpenLDAP started once per session; tests want `slapd`, which is empty."""
    binary = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/bin")
    if binary is None or shutil.which("ldapsearch") is None:
        missing("slapd is not installed (apt-get install slapd ldap-utils)")
    directory = tmp_path_factory.mktemp("slapd")
    (directory / "db").mkdir()
    (directory / "slapd.conf").write_text(_configuration(directory))
    port = free_port()
    configuration = str(directory / "slapd.conf")
    argv = [binary, "-d", "0", "-f", configuration, "-h", f"ldap://127.0.0.1:{port}"]
    server = Slapd(directory, port)
    process = start_process(argv, log=directory / "slapd.log", ready=lambda: _binds(server))
    yield server
    process.stop()


def _binds(server: Slapd) -> bool:
    argv = ["ldapwhoami", "-x", "-H", server.url, "-D", server.bind_dn, "-w", server.password]
    return subprocess.run(argv, check=False, capture_output=True, timeout=5).returncode == 0


@pytest.fixture
def slapd(slapd_server: Slapd) -> Slapd:
    """OpenLDAP without entries, its schema as shipped in deploy/ldap/schema."""
    slapd_server.empty()
    return slapd_server
