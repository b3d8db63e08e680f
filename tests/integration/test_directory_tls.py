"""The certificate of an LDAP server is always checked."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.configuration.directory import LdapDirectory
from archive.configuration.settings import Settings
from archive.errors import DirectoryUnavailableError
from tests.fix_process import RunningProcess, free_port, start_process
from tests.fix_slapd import BASE_DN, Slapd


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for localhost, its key beside it as key.pem."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "certificate.pem"
    argv = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    argv += ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return path


@pytest.fixture
def tls_process(
    slapd_server: Slapd, certificate: Path, tmp_path: Path
) -> Iterator[tuple[RunningProcess, int, int]]:
    """A second slapd with TLS; its ports for ldap: and ldaps:."""
    text = (slapd_server.directory / "slapd.conf").read_text()
    text = text.replace(str(slapd_server.directory), str(tmp_path))
    tls = f"TLSCertificateFile {certificate}\nTLSCertificateKeyFile {tmp_path / 'key.pem'}\n"
    (tmp_path / "slapd.conf").write_text(text.replace("database mdb", f"{tls}database mdb"))
    (tmp_path / "db").mkdir()
    plain, secure = free_port(), free_port()
    binary = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/bin")
    assert binary is not None
    urls = f"ldap://127.0.0.1:{plain} ldaps://127.0.0.1:{secure}"
    process = start_process(
        [binary, "-d", "0", "-f", tmp_path / "slapd.conf", "-h", urls],
        log=tmp_path / "slapd.log",
        ready=lambda: _binds(plain),
    )
    yield process, plain, secure
    process.send(signal.SIGCONT)
    process.stop()


@pytest.fixture
def tls_server(tls_process: tuple[RunningProcess, int, int]) -> tuple[int, int]:
    """The ports of the slapd with TLS for ldap: and ldaps:."""
    return tls_process[1:]


def _binds(port: int) -> bool:
    argv = ["ldapwhoami", "-x", "-H", f"ldap://127.0.0.1:{port}"]
    return subprocess.run(argv, check=False, capture_output=True, timeout=5).returncode == 0


def outcome(**environment: str) -> str:
    """Return what reading the empty server ends with."""
    directory = LdapDirectory.from_settings(Settings.from_environment(environment))
    try:
        with pytest.raises(DirectoryUnavailableError) as caught:
            directory.read()
    finally:
        directory.close()
    return str(caught.value)


@pytest.mark.parametrize("start_tls", [True, False])
def test_only_a_trusted_certificate_is_accepted(
    tls_server: tuple[int, int], certificate: Path, *, start_tls: bool
) -> None:
    plain, secure = tls_server
    url = f"ldap://localhost:{plain}" if start_tls else f"ldaps://localhost:{secure}"
    environment = {"DICOMQ_DIRECTORY": f"{url}/{BASE_DN}", "DICOMQ_LDAP_START_TLS": str(start_tls)}
    assert "certificate" in outcome(**environment)
    trusted = outcome(**environment, DICOMQ_LDAP_CA_FILE=str(certificate))
    assert "No such object (32)" in trusted


@pytest.mark.parametrize("start_tls", [True, False])
def test_a_server_frozen_in_the_handshake_holds_nothing_up(
    tls_process: tuple[RunningProcess, int, int], certificate: Path, *, start_tls: bool
) -> None:
    process, plain, secure = tls_process
    url = f"ldap://localhost:{plain}" if start_tls else f"ldaps://localhost:{secure}"
    environment = {
        "DICOMQ_DIRECTORY": f"{url}/{BASE_DN}",
        "DICOMQ_LDAP_START_TLS": str(start_tls),
        "DICOMQ_LDAP_CA_FILE": str(certificate),
        "DICOMQ_LDAP_TIMEOUT_S": "1",
    }
    process.send(signal.SIGSTOP)
    began = SYSTEM_CLOCK.monotonic()
    assert "timed out" in outcome(**environment)
    assert SYSTEM_CLOCK.monotonic() - began < 5
