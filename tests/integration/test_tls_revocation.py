"""Certificates that the directory holds, and lists of those that were revoked."""

import base64
import shutil
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from archive.configuration.directory import LdapDirectory
from archive.configuration.entries import Entry
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from tests.directory_cases import BASE, DEVICES
from tests.fix_dcmtk import Dcmtk
from tests.fix_process import wait_until
from tests.fix_slapd import MakeSlapd
from tests.fix_tls import DEVICE_DN, Node, Pki, TlsSite, tls_connection

CERTIFICATES = f"ou=certificates,{BASE}"


def held(dn: str, *lines: str, **values: x509.Certificate | x509.CertificateRevocationList) -> str:
    """Return LDIF of an entry that holds certificates, DER."""
    binary = [
        f"{name};binary:: {base64.b64encode(value.public_bytes(Encoding.DER)).decode()}"
        for name, value in values.items()
    ]
    return "\n".join([f"dn: {dn}", "changetype: add", *lines, *binary, "", ""])


def entries(pki: Pki) -> str:
    """Return LDIF with the authority and our certificate below a unit of their own."""
    unit = (f"dn: {CERTIFICATES}", "changetype: add", "objectClass: organizationalUnit")
    return (
        "\n".join([*unit, "ou: certificates", "", ""])
        + held(
            f"ou=hospital,{CERTIFICATES}",
            *("objectClass: organizationalUnit", "objectClass: pkiCA", "ou: hospital"),
            cACertificate=pki.authority.certificate,
        )
        + held(
            f"ou=archive,{CERTIFICATES}",
            *("objectClass: organizationalUnit", "objectClass: pkiUser", "ou: archive"),
            userCertificate=pki.ours.certificate,
        )
    )


REFERENCES = {
    "dicomAuthorizedNodeCertificateReference": f"ou=hospital,{CERTIFICATES}",
    "dicomThisNodeCertificateReference": f"ou=archive,{CERTIFICATES}",
}


def references() -> str:
    lines = [f"dn: {DEVICE_DN}", "changetype: modify"]
    for name, value in REFERENCES.items():
        lines += [f"add: {name}", f"{name}: {value}", "-"]
    return "\n".join([*lines, "", ""])


def is_welcome(site: TlsSite, dcmtk: Dcmtk, node: Node) -> bool:
    """Tell whether a C-ECHO of echoscu with the certificate of `node` succeeds."""
    options = ("+tls", str(node.key), str(node.cert), "+cf", str(site.pki.authority.file))
    return dcmtk.echoscu(site.port, options=options).returncode == 0


@pytest.fixture
def held_site(tls_site: TlsSite) -> TlsSite:
    """A site whose trust and certificate lie in the directory; the key store has the key alone."""
    tls_site.key.write_bytes(tls_site.pki.ours.key_pem())
    forget = f"dn: {DEVICE_DN}\nchangetype: modify\ndelete: dcmTrustStoreURL\n-\n\n"
    tls_site.site.configure(forget + entries(tls_site.pki) + references())
    tls_site.site.start()
    tls_site.wait_for_log("message=listening")
    return tls_site


def test_trust_and_certificate_come_from_the_directory(held_site: TlsSite, dcmtk: Dcmtk) -> None:
    pki = held_site.pki
    assert is_welcome(held_site, dcmtk, pki.peer)
    assert not is_welcome(held_site, dcmtk, pki.stranger)
    held_site.wait_for_log("its certificate comes from no authority that we trust")
    # what is revoked there is refused from the next association on
    hospital = f"dn: ou=hospital,{CERTIFICATES}\nchangetype: modify\n"
    revoked = pki.authority.revoked(pki.peer).public_bytes(Encoding.DER)
    value = base64.b64encode(revoked).decode()
    name = "certificateRevocationList;binary"
    held_site.site.configure(f"{hospital}add: {name}\n{name}:: {value}\n")
    wait_until(lambda: not is_welcome(held_site, dcmtk, pki.peer), what="the list to be read")
    held_site.wait_for_log("its certificate was revoked: the peer has to renew it")
    assert is_welcome(held_site, dcmtk, pki.ours)


def test_revoked_certificates_are_refused_as_long_as_the_list_beside_says_so(
    tls_site: TlsSite, dcmtk: Dcmtk
) -> None:
    pki, beside = tls_site.pki, tls_site.trust.with_suffix(".crl")
    tls_site.site.start()
    tls_site.wait_for_log("message=listening")
    assert is_welcome(tls_site, dcmtk, pki.peer)
    for encoding in (Encoding.DER, Encoding.PEM):
        beside.write_bytes(pki.authority.revoked(pki.peer).public_bytes(encoding))
        assert not is_welcome(tls_site, dcmtk, pki.peer)
        assert is_welcome(tls_site, dcmtk, pki.ours)
    tls_site.wait_for_log("its certificate was revoked: the peer has to renew it")
    beside.write_bytes(pki.authority.revoked(days=-1).public_bytes(Encoding.PEM))
    assert not is_welcome(tls_site, dcmtk, pki.peer)
    tls_site.wait_for_log("the revocation list of its authority is not valid now")
    beside.write_bytes(pki.strange_authority.revoked().public_bytes(Encoding.PEM))
    assert not is_welcome(tls_site, dcmtk, pki.peer)
    tls_site.wait_for_log("its authority has no revocation list here")
    beside.write_text("nothing")
    assert not is_welcome(tls_site, dcmtk, pki.peer)
    tls_site.wait_for_log("trust.crl beside that of dcmTrustStoreURL: it is no X.509")
    beside.unlink()
    assert is_welcome(tls_site, dcmtk, pki.peer)
    # a list can stand in the trust store itself
    inside = pki.authority.revoked(pki.peer).public_bytes(Encoding.PEM)
    tls_site.trust.write_bytes(tls_site.trust.read_bytes() + inside)
    assert not is_welcome(tls_site, dcmtk, pki.peer)
    shutil.copy(pki.authority.file, tls_site.trust)
    assert is_welcome(tls_site, dcmtk, pki.peer)


RENEWED = f"dn: ou=archive,{CERTIFICATES}\nchangetype: modify\nreplace: userCertificate;binary\n"


@pytest.mark.parametrize("overlay", [(), ("overlay syncprov",)], ids=["plain", "syncprov"])
def test_certificates_are_read_from_a_server(
    make_slapd: MakeSlapd, pki: Pki, overlay: tuple[str, ...]
) -> None:
    """They lie outside the configuration; their renewal is seen like any other change."""
    server = make_slapd(None, *overlay)
    server.change(entries(pki) + tls_connection(2762) + "\n" + references())
    settings = Settings.from_environment({"DICOMQ_DIRECTORY": f"{server.url}/{BASE}"})
    with closing(ConfigurationSource(LdapDirectory.from_settings(settings), settings)) as source:

        def stores() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
            found = source.snapshot().device.aes["DCM4CHEE"].connections
            [terms] = [one.tls for one in found if one.tls is not None]
            return terms.stores.trusted, terms.stores.own

        authority, ours = (one.read_bytes() for one in (pki.authority.file, pki.ours.cert))
        assert stores() == ((authority,), (ours,))
        renewed = base64.b64encode(pki.peer.certificate.public_bytes(Encoding.DER)).decode()
        server.change(f"{RENEWED}userCertificate;binary:: {renewed}\n")
        wait_until(lambda: stores()[1] == (pki.peer.cert.read_bytes(),), deadline_s=5)


def test_a_certificate_that_may_not_be_read_is_named(make_slapd: MakeSlapd, pki: Pki) -> None:
    hidden = f'access to dn.exact="ou=hospital,{CERTIFICATES}" by * none'
    server = make_slapd(None, hidden, "access to * by * read")
    server.change(entries(pki) + tls_connection(2762) + "\n" + references())
    settings = Settings.from_environment({"DICOMQ_DIRECTORY": f"{server.url}/{BASE}"})
    with closing(LdapDirectory.from_settings(settings)) as directory:
        snapshot = ConfigurationSource(directory, settings).refresh()
        names = {entry.dn for entry in directory.read()}
    said = {(one.dn, one.attribute): one.reason for one in snapshot.problems}
    reason = said[DEVICE_DN, "dicomAuthorizedNodeCertificateReference"]
    assert f"names ou=hospital,{CERTIFICATES}, which does not exist or may not be read" in reason
    assert f"ou=archive,{CERTIFICATES}" in names


def test_a_device_can_hold_its_certificates_itself(make_slapd: MakeSlapd, pki: Pki) -> None:
    """As dcm4chee keeps them: at the entry of the device."""
    server = make_slapd()
    dn = f"dicomDeviceName=modality,{DEVICES}"
    device = ("objectClass: dicomDevice", "objectClass: pkiUser", "dicomDeviceName: modality")
    server.change(
        held(dn, *device, "dicomInstalled: TRUE", userCertificate=pki.peer.certificate)
        + f"dn: {DEVICE_DN}\nchangetype: modify\nadd: dicomAuthorizedNodeCertificateReference\n"
        f"dicomAuthorizedNodeCertificateReference: {dn}\n"
    )
    settings = Settings.from_environment({"DICOMQ_DIRECTORY": f"{server.url}/{BASE}"})
    with closing(LdapDirectory.from_settings(settings)) as directory:
        found: list[Entry] = [one for one in directory.read() if one.dn == dn]
    [entry] = found
    assert entry.texts("dicomDeviceName") == ("modality",)
    assert entry.values("userCertificate;binary") == (
        pki.peer.certificate.public_bytes(Encoding.DER),
    )
