"""Certificates as a hospital has them: one authority, a node, a peer, and what goes wrong."""

import datetime as dt
import ipaddress
import shutil
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.tls.terms import DeviceStores, StoreReference, TlsTerms
from tests.fix_process import free_port, wait_until
from tests.fix_scp import RawPeer, Site

CIPHERS = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384")
DEVICE_DN = "dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
_DAY = dt.timedelta(days=1)


@dataclass
class Authority:
    """A certificate authority that keeps its files in a directory."""

    name: str
    directory: Path

    def __post_init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = self._signed(self.name, self.key.public_key(), is_authority=True)
        self.file.write_bytes(_pem(self.certificate))

    @property
    def file(self) -> Path:
        """The authority's certificate, PEM."""
        return self.directory / f"{self.name}.pem"

    def issue(
        self, name: str, *, hosts: Sequence[str] = ("localhost",), days: tuple[int, int] = (-1, 30)
    ) -> "Node":
        """Issue a certificate for `hosts` and 127.0.0.1, valid for `days` from today."""
        key = rsa.generate_private_key(65537, 2048)
        certificate = self._signed(name, key.public_key(), hosts=hosts, days=days)
        node = Node(name, self.directory, key, certificate)
        node.write()
        return node

    def revoked(self, *nodes: "Node", days: int = 30) -> x509.CertificateRevocationList:
        """Return a list of revoked certificates, which holds for `days`."""
        now = SYSTEM_CLOCK.now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - 40 * _DAY)
            .next_update(now + days * _DAY)
        )
        for node in nodes:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(node.certificate.serial_number)
                .revocation_date(now - _DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256())

    def _signed(
        self,
        name: str,
        public_key: rsa.RSAPublicKey,
        *,
        hosts: Sequence[str] = (),
        days: tuple[int, int] = (-1, 30),
        is_authority: bool = False,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = SYSTEM_CLOCK.now()
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if "localhost" in hosts:
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@dataclass
class Node:
    """A key with its certificate, in the forms in which programs want them."""

    name: str
    directory: Path
    private_key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def key(self) -> Path:
        """The private key, PEM."""
        return self.directory / f"{self.name}.key"

    @property
    def cert(self) -> Path:
        """The certificate, PEM."""
        return self.directory / f"{self.name}.crt"

    @property
    def both(self) -> Path:
        """Key and certificate in one file, PEM."""
        return self.directory / f"{self.name}.pem"

    def write(self) -> None:
        """Write all files."""
        self.key.write_bytes(self.key_pem())
        self.cert.write_bytes(_pem(self.certificate))
        self.both.write_bytes(self.key.read_bytes() + self.cert.read_bytes())

    def key_pem(self, pin: str = "") -> bytes:
        """Return the private key, encrypted with `pin` if there is one."""
        locked = serialization.BestAvailableEncryption(pin.encode()) if pin else None
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            locked or serialization.NoEncryption(),
        )

    def der(self) -> bytes:
        """Return the certificate, DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def pkcs12(self, pin: str) -> bytes:
        """Return key and certificate as a PKCS#12 file."""
        locked = serialization.BestAvailableEncryption(pin.encode())
        name = self.name.encode()
        return pkcs12.serialize_key_and_certificates(
            name, self.private_key, self.certificate, None, locked
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Pki:
    """An authority that all trust, what it issued, and one that nobody knows."""

    authority: Authority
    ours: Node
    peer: Node
    expired: Node
    other_host: Node
    stranger: Node
    strange_authority: Authority

    def terms(
        self, *, key: Path | None = None, trust: Path | None = None, **changes: object
    ) -> TlsTerms:
        """Return terms with our key and the authority, unless others are given."""
        stores = DeviceStores(
            DEVICE_DN,
            StoreReference("dcmKeyStoreURL", key or self.ours.both),
            StoreReference("dcmTrustStoreURL", trust or self.authority.file),
        )
        fields: dict[str, object] = {
            "where": f"cn=dicom-tls,{DEVICE_DN}",
            "stores": stores,
            "ciphers": CIPHERS,
            "versions": ("TLSv1.2", "TLSv1.3"),
        }
        return TlsTerms(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates for all tests; the files are not to be changed."""
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority("hospital-ca", directory)
    stranger = Authority("strange-ca", directory)
    return Pki(
        authority,
        ours=authority.issue("archive"),
        peer=authority.issue("peer"),
        expired=authority.issue("expired", days=(-30, -1)),
        other_host=authority.issue("other", hosts=("elsewhere.example.org",)),
        stranger=stranger.issue("stranger"),
        strange_authority=stranger,
    )


def tls_connection(port: int, *lines: str) -> str:
    """Return LDIF that gives the archive's device a connection with TLS on `port`."""
    connection = f"cn=dicom-tls,{DEVICE_DN}"
    entry = [
        f"dn: {connection}",
        "changetype: add",
        "objectClass: dicomNetworkConnection",
        "objectClass: dcmNetworkConnection",
        "cn: dicom-tls",
        "dicomHostname: localhost",
        f"dicomPort: {port}",
        "dcmBindAddress: 127.0.0.1",
        "dicomTLSCipherSuite: TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "dicomTLSCipherSuite: TLS_AES_256_GCM_SHA384",
        *lines,
        "",
    ]
    reference = [
        f"dn: dicomAETitle=DCM4CHEE,{DEVICE_DN}",
        "changetype: modify",
        "add: dicomNetworkConnectionReference",
        f"dicomNetworkConnectionReference: {connection}",
        "-",
        "",
    ]
    return "\n".join([*entry, *reference])


def device_stores(key: Path, trust: Path) -> str:
    """Return LDIF that gives the archive's device its key and what it trusts."""
    lines = [f"dn: {DEVICE_DN}", "changetype: modify"]
    for attribute, path in (("dcmKeyStoreURL", key), ("dcmTrustStoreURL", trust)):
        lines += [f"replace: {attribute}", f"{attribute}: {path.as_uri()}", "-"]
    return "\n".join([*lines, ""])


@dataclass
class TlsSite:
    """A site with a port for TLS, and the files of its key and its trust."""

    site: Site
    port: int
    key: Path
    trust: Path
    pki: Pki
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def context(self, node: Node | None) -> ssl.SSLContext:
        """Return a peer's context with the certificate of `node`."""
        context = ssl.create_default_context(cafile=str(self.pki.authority.file))
        if node is not None:
            context.load_cert_chain(node.cert, node.key)
        return context

    def peer(self, node: Node | None = None, context: ssl.SSLContext | None = None) -> "TlsPeer":
        """Connect a peer with its own certificate, or that of `node`."""
        return TlsPeer(self.port, context=context or self.context(node or self.pki.peer))

    def wait_for_log(self, words: str) -> None:
        """Wait until a process has said `words`."""
        wait_until(lambda: words in self.site.log(), what=f"{words!r} in the log")


@dataclass
class TlsPeer(RawPeer):
    """A raw peer over TLS."""

    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self.sock = self.context.wrap_socket(self.sock, server_hostname="localhost")


@pytest.fixture
def tls_site(site: Site, pki: Pki, tmp_path: Path) -> TlsSite:
    """A configured site; no process runs yet."""
    key, trust = tmp_path / "key.pem", tmp_path / "trust.pem"
    shutil.copy(pki.ours.both, key)
    shutil.copy(pki.authority.file, trust)
    port = free_port()
    site.configure(device_stores(key, trust), tls_connection(port))
    return TlsSite(site, port, key, trust, pki)
