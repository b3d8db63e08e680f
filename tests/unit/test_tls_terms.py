"""What the directory says of TLS, and what is made of it."""

import dataclasses
import ssl
from pathlib import Path

import pytest

from archive.configuration.certificates import OWN, TRUSTED
from archive.configuration.comparing import differences
from archive.configuration.decode import Variables
from archive.configuration.defaults import default_entries
from archive.configuration.descriptors import Snapshot
from archive.configuration.entries import Entry
from archive.configuration.snapshot import build_snapshot
from archive.errors import TlsMaterialError
from archive.tls.stores import ServerContexts, client_context, server_context
from archive.tls.suites import TLS_1_2_SUITES, TLS_1_3_SUITES, objection
from archive.tls.terms import DeviceStores, StoreReference, Wishes, decide_terms
from tests.fix_tls import DEVICE_DN, Pki

RSA_256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
NEW_256 = "TLS_AES_256_GCM_SHA384"
JAVA = ("TLS_RSA_WITH_AES_128_CBC_SHA", "SSL_RSA_WITH_3DES_EDE_CBC_SHA")
STORES = DeviceStores(
    DEVICE_DN,
    StoreReference("dcmKeyStoreURL", Path("/k")),
    StoreReference("dcmTrustStoreURL", Path("/t")),
)


def test_every_suite_is_one_of_openssl() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in TLS_1_2_SUITES.values():
        context.set_ciphers(name)
    known = {each["name"] for each in context.get_ciphers()}
    assert known >= TLS_1_3_SUITES
    assert all(objection(name) is None for name in (*TLS_1_2_SUITES, *TLS_1_3_SUITES))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TLS_RSA_WITH_AES_128_CBC_SHA", "no forward secrecy"),
        ("SSL_RSA_WITH_3DES_EDE_CBC_SHA", "its cipher is broken"),
        ("SSL_RSA_WITH_NULL_SHA", "does not encrypt"),
        ("TLS_DH_anon_WITH_AES_128_CBC_SHA", "authenticates nobody"),
        ("SSL_RSA_EXPORT_WITH_RC4_40_MD5", "broken"),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "CBC"),
        ("TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256", "no forward secrecy"),
        ("AES256-SHA", "no suite of the BCP 195 profiles"),
    ],
)
def test_a_suite_that_is_refused(name: str, words: str) -> None:
    assert words in (objection(name) or "")


@pytest.mark.parametrize(
    ("suites", "protocols", "versions", "ciphers"),
    [
        ((RSA_256,), (), ("TLSv1.2", "TLSv1.3"), ("ECDHE-RSA-AES256-GCM-SHA384",)),
        ((RSA_256, *JAVA), (), ("TLSv1.2", "TLSv1.3"), ("ECDHE-RSA-AES256-GCM-SHA384",)),
        ((RSA_256,), ("TLSv1.2",), ("TLSv1.2",), ("ECDHE-RSA-AES256-GCM-SHA384",)),
        ((RSA_256,), ("SSLv2Hello", "TLSv1", "TLSv1.2"), ("TLSv1.2",), None),
        ((NEW_256,), (), ("TLSv1.3",), ()),
        ((NEW_256, RSA_256), ("TLSv1.3",), ("TLSv1.3",), ()),
        ((NEW_256,), ("TLSv1.2",), None, None),
        (JAVA, (), None, None),
        ((RSA_256,), ("TLSv1", "SSLv3"), None, None),
        ((RSA_256,), ("TLSv1.3",), None, None),
    ],
)
def test_versions_and_suites(
    suites: tuple[str, ...],
    protocols: tuple[str, ...],
    versions: tuple[str, ...] | None,
    ciphers: tuple[str, ...] | None,
) -> None:
    terms, problems = decide_terms("cn=x", Wishes(suites, protocols), STORES)
    assert (terms.versions if terms else None) == versions
    if terms is None:
        assert "names no suite that can be used" in problems[-1].reason
    elif ciphers is not None:
        assert terms.ciphers == ciphers
    old = {"TLSv1", "SSLv3"} & set(protocols)
    assert {
        each.reason.split()[0] for each in problems if each.attribute == "dcmTLSProtocol"
    } == old


@pytest.mark.parametrize(
    ("key", "trust", "need", "can_listen", "can_call"),
    [
        (True, True, True, True, True),
        (False, True, True, False, True),
        (True, False, True, False, False),
        (True, False, False, True, False),
    ],
)
def test_what_can_be_done_with_which_stores(
    key: bool, trust: bool, need: bool, can_listen: bool, can_call: bool
) -> None:
    stores = DeviceStores("dn", STORES.key if key else None, STORES.trust if trust else None)
    wishes = Wishes((RSA_256,), need_client_auth=need, has_port=True)
    terms, problems = decide_terms("cn=x", wishes, stores)
    assert terms is not None
    assert (terms.can_listen, terms.can_call) == (can_listen, can_call)
    named = {each.attribute for each in problems if each.is_ours}
    expected = {"dcmKeyStoreURL": key, "dcmTrustStoreURL": trust}
    assert named == {name for name, there in expected.items() if not there}


def _snapshot(device: dict[str, str], connection: dict[str, str], **env: str) -> Snapshot:
    """Return the default directory with attributes added to the archive and its connection."""
    entries = []
    for entry in default_entries():
        extra = {DEVICE_DN: device, f"cn=dicom,{DEVICE_DN}": connection}.get(entry.dn, {})
        added = {name.lower(): (value.encode(),) for name, value in extra.items()}
        entries.append(Entry(entry.dn, {**entry.attributes, **added}))
    return build_snapshot(entries, "dcm4chee-arc", Variables(env), fingerprint="x")


def test_a_connection_of_the_directory() -> None:
    snapshot = _snapshot(
        {
            "dcmKeyStoreURL": "file:///etc/dicomq/node%20key.p12",
            "dcmKeyStorePinProperty": "NODE_PIN",
            "dcmTrustStoreURL": "${env.TRUST}",
            "dcmTrustStorePin": " 1234 ",
        },
        {
            "dicomTLSCipherSuite": NEW_256,
            "dcmTLSNeedClientAuth": "FALSE",
            "dcmTLSEndpointIdentificationAlgorithm": "HTTPS",
        },
        NODE_PIN="s3cret",
        TRUST="/etc/dicomq/ca.pem",
    )
    [connection] = snapshot.device.aes["DCM4CHEE"].connections
    terms = connection.tls
    assert terms is not None
    assert (terms.versions, terms.need_client_auth, terms.check_host) == (("TLSv1.3",), False, True)
    assert terms.stores.key == StoreReference(
        "dcmKeyStoreURL", Path("/etc/dicomq/node key.p12"), pin="s3cret"
    )
    assert terms.stores.trust == StoreReference(
        "dcmTrustStoreURL", Path("/etc/dicomq/ca.pem"), pin=" 1234 "
    )
    for secret in ("s3cret", "1234"):
        assert secret not in f"{snapshot}{snapshot.problems}"


def test_what_is_wrong_is_said_with_entry_and_attribute() -> None:
    snapshot = _snapshot(
        {"dcmKeyStoreURL": "https://vault/key"},
        {"dicomTLSCipherSuite": JAVA[0], "dcmTLSProtocol": "TLSv1.1"},
    )
    [connection] = snapshot.device.aes["DCM4CHEE"].connections
    assert connection.is_tls
    assert connection.tls is None
    said = {(each.dn, each.attribute): each.reason for each in snapshot.problems}
    where = f"cn=dicom,{DEVICE_DN}"
    assert "is no file of this host" in said[DEVICE_DN, "dcmKeyStoreURL"]
    assert "only TLSv1.2 and TLSv1.3 are" in said[where, "dcmTLSProtocol"]
    assert "names no suite that can be used" in said[where, "dicomTLSCipherSuite"]


def test_a_pkcs12_store_with_its_pin(pki: Pki, tmp_path: Path) -> None:
    path, pin_file = tmp_path / "key.p12", tmp_path / "pin"
    path.write_bytes(pki.ours.pkcs12("right"))
    pin_file.write_text("right\n")
    terms = pki.terms()
    for reference in (
        StoreReference("dcmKeyStoreURL", path, pin="right"),
        StoreReference("dcmKeyStoreURL", path, pin_file=pin_file),
    ):
        stores = dataclasses.replace(terms.stores, key=reference)
        changed = dataclasses.replace(terms, stores=stores)
        assert server_context(changed).verify_mode is ssl.CERT_REQUIRED
        assert client_context(changed).verify_mode is ssl.CERT_REQUIRED


def test_a_pem_key_with_its_pin(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pki.ours.key_pem("right") + pki.ours.cert.read_bytes())
    terms = pki.terms()
    for pin, is_right in (("right", True), ("wrong", False), ("", False)):
        reference = StoreReference("dcmKeyStoreURL", path, pin=pin)
        changed = dataclasses.replace(
            terms, stores=dataclasses.replace(terms.stores, key=reference)
        )
        if is_right:
            server_context(changed)
        else:
            with pytest.raises(TlsMaterialError, match="no private key with its certificate"):
                server_context(changed)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"\xfe\xed\xfe\xed\0\0\0\2", "is a Java key store; convert it: keytool -importkeystore"),
        (b"nothing", "neither PEM nor a PKCS#12 file that the pin opens"),
        (b"", "neither PEM nor a PKCS#12 file that the pin opens"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
    ],
)
def test_a_store_that_cannot_be_used_is_named(
    pki: Pki, tmp_path: Path, contents: bytes, words: str
) -> None:
    path = tmp_path / "trust.jks"
    path.write_bytes(contents)
    with pytest.raises(TlsMaterialError, match="dcmTrustStoreURL") as caught:
        client_context(pki.terms(trust=path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert DEVICE_DN in str(caught.value)


def test_a_context_is_kept_until_terms_or_files_change(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pki.ours.both.read_bytes())
    contexts = ServerContexts()
    terms = pki.terms(key=path)
    first = contexts.get(terms)
    assert contexts.get(terms) is first
    assert contexts.get(dataclasses.replace(terms, need_client_auth=False)) is not first
    second = contexts.get(terms)
    path.write_bytes(pki.peer.both.read_bytes())
    assert contexts.get(terms) is not second


def test_a_comparison_shows_no_secret() -> None:
    def entry(secret: str) -> Entry:
        pairs = [
            ("dcmKeyStorePin", secret.encode()),
            ("dcmProperty", b"endpoint=https://s3.example.org"),
            ("dcmProperty", f"credential={secret}".encode()),
        ]
        return Entry.of(DEVICE_DN, pairs)

    found = list(differences([entry("old-one")], [entry("new-one")]))
    assert {each.attribute for each in found} == {"dcmKeyStorePin", "dcmProperty"}
    assert "one" not in f"{[(each.before, each.after) for each in found]}"
    assert "endpoint=https://s3.example.org" in f"{found}"


def test_a_comparison_tells_certificates_apart(pki: Pki) -> None:
    def entry(certificate: bytes) -> Entry:
        return Entry.of(DEVICE_DN, [("userCertificate;binary", certificate)])

    [found] = differences([entry(pki.ours.der())], [entry(pki.peer.der())])
    assert found.before != found.after
    assert all("bytes, SHA-256" in one for one in (*found.before, *found.after))


@pytest.mark.parametrize(
    ("device", "attribute", "severity", "words"),
    [
        ({TRUSTED: "cn=nobody"}, TRUSTED, "warning", "names cn=nobody, which does not exist"),
        ({TRUSTED: "no name"}, TRUSTED, "warning", "names no name, which does not exist"),
        ({TRUSTED: f"cn=dicom,{DEVICE_DN}"}, TRUSTED, "warning", "neither userCertificate nor"),
        (
            {TRUSTED: DEVICE_DN, "userCertificate;binary": "no certificate"},
            "userCertificate",
            "warning",
            "a value is no X.509 certificate; it is not used",
        ),
        (
            {TRUSTED: DEVICE_DN, "certificateRevocationList;binary": "no list"},
            "certificateRevocationList",
            "warning",
            "a value is no X.509 certificate revocation list",
        ),
        (
            {TRUSTED: DEVICE_DN, "dcmTrustStoreURL": "/etc/ca.pem"},
            TRUSTED,
            "notice",
            "dcmTrustStoreURL goes before it",
        ),
        ({OWN: DEVICE_DN}, OWN, "notice", "private keys are never read from the directory"),
        ({OWN: DEVICE_DN, "dcmKeyStoreURL": "/k"}, OWN, "warning", "holds no userCertificate"),
    ],
)
def test_certificates_that_cannot_be_used_are_named(
    device: dict[str, str], attribute: str, severity: str, words: str
) -> None:
    snapshot = _snapshot(device, {"dicomTLSCipherSuite": NEW_256})
    said = {(one.severity, one.reason) for one in snapshot.problems if one.attribute == attribute}
    assert any(level == severity and words in reason for level, reason in said), snapshot.problems
    [connection] = snapshot.device.aes["DCM4CHEE"].connections
    assert connection.tls is not None
    assert connection.tls.can_call == ("dcmTrustStoreURL" in device)


def test_the_certificate_that_fits_the_key_is_shown(pki: Pki) -> None:
    """After a renewal the directory may hold several."""
    stores = DeviceStores(
        DEVICE_DN,
        StoreReference("dcmKeyStoreURL", pki.ours.key),
        trusted=(pki.authority.file.read_bytes(),),
        own=(pki.peer.cert.read_bytes(), pki.ours.cert.read_bytes()),
    )
    assert server_context(pki.terms(stores=stores)).get_ca_certs()
    with pytest.raises(TlsMaterialError, match="the key alone, and dicomThisNodeCertificate"):
        server_context(pki.terms(stores=dataclasses.replace(stores, own=stores.own[:1])))
