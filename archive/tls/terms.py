"""What a connection demands of TLS: decided from its entry and its device's, pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from archive.errors import InvalidValueError
from archive.tls.suites import has_tls_1_3, objection, openssl_names

TLS_1_2: Final = "TLSv1.2"
TLS_1_3: Final = "TLSv1.3"
_VERSIONS: Final = (TLS_1_2, TLS_1_3)
_NO_VERSIONS: Final = frozenset({"SSLv2Hello"})
"""Java's name for a form of greeting; it stands beside versions and means none."""

_HOST_CHECKS: Final = ("HTTPS", "LDAPS")


@dataclass(frozen=True, slots=True)
class StoreReference:
    """Where keys or trusted certificates are, and what opens them.

    Attributes
    ----------
    attribute
        LDAP attribute that names the file, for messages.
    pin_file
        File whose first line is the pin; goes before `pin`.
    """

    attribute: str
    path: Path
    pin: str = field(default="", repr=False)
    key_pin: str = field(default="", repr=False)
    pin_file: Path | None = None


@dataclass(frozen=True, slots=True)
class DeviceStores:
    """The key store and the trust store of a device, and what the directory itself holds.

    Attributes
    ----------
    dn
        Entry of the device, for messages.
    trusted
        Certificates and revocation lists, PEM; they stand in for a trust store.
    own
        Certificates of the device, PEM, for a key store that holds the private key alone.
    """

    dn: str
    key: StoreReference | None = None
    trust: StoreReference | None = None
    trusted: tuple[bytes, ...] = field(default=(), repr=False)
    own: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def can_check(self) -> bool:
        """Whether there is what the certificates of peers are checked with."""
        return self.trust is not None or bool(self.trusted)


@dataclass(frozen=True, slots=True)
class TlsTerms:
    """What one of our connections demands and offers.

    Attributes
    ----------
    where
        DN of the connection, for messages.
    ciphers
        OpenSSL's names of the TLS 1.2 suites, best first. Suites of TLS 1.3 are OpenSSL's own.
    versions
        One or both of TLSv1.2 and TLSv1.3, the lowest first.
    need_client_auth
        Whether a peer that calls has to show a certificate.
    check_host
        Whether the certificate of a peer that is called has to bear its dicomHostname.
    """

    where: str
    stores: DeviceStores
    ciphers: tuple[str, ...]
    versions: tuple[str, ...]
    need_client_auth: bool = True
    check_host: bool = False

    @property
    def can_listen(self) -> bool:
        """Whether peers can call: there is a key, and what their certificates are checked with."""
        stores = self.stores
        return stores.key is not None and (stores.can_check or not self.need_client_auth)

    @property
    def can_call(self) -> bool:
        """Whether peers can be called: there is what their certificates are checked with."""
        return self.stores.can_check


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the entry of a connection says about TLS, as it is written there."""

    suites: tuple[str, ...]
    protocols: tuple[str, ...] = ()
    need_client_auth: bool = True
    host_check: str | None = None
    has_port: bool = False


@dataclass(frozen=True, slots=True)
class TlsProblem:
    """Something that is wrong with the entry of a connection or a device.

    Attributes
    ----------
    is_ours
        Whether the attribute is one of the device, not of the connection.
    """

    attribute: str
    reason: str
    is_ours: bool = False


def decide_terms(
    where: str, wishes: Wishes, stores: DeviceStores
) -> tuple[TlsTerms | None, tuple[TlsProblem, ...]]:
    """Return the terms of a TLS connection, None when it cannot be used, and what is wrong.

    Parameters
    ----------
    where
        DN of the connection.
    wishes
        What its entry says.
    stores
        What the entry of its device says.
    """
    problems = [*_refused_suites(wishes), *_refused_protocols(wishes)]
    versions = _versions(wishes)
    ciphers = openssl_names(wishes.suites) if TLS_1_2 in versions else ()
    if not ciphers:
        versions = tuple(version for version in versions if version != TLS_1_2)
    if not versions or not (ciphers or has_tls_1_3(wishes.suites)):
        problems.append(TlsProblem("dicomTLSCipherSuite", _UNUSABLE))
        return None, tuple(problems)
    problems.extend(_missing_stores(wishes, stores))
    terms = TlsTerms(
        where=where,
        stores=stores,
        ciphers=ciphers,
        versions=versions,
        need_client_auth=wishes.need_client_auth,
        check_host=wishes.host_check is not None,
    )
    return terms, tuple(problems)


_UNUSABLE: Final = (
    "names no suite that can be used with the versions of dcmTLSProtocol; the connection is not "
    "used until it does, for example TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 and "
    "TLS_AES_256_GCM_SHA384"
)


def _refused_suites(wishes: Wishes) -> Iterator[TlsProblem]:
    for name in wishes.suites:
        if reason := objection(name):
            yield TlsProblem("dicomTLSCipherSuite", f"{name} is not used: {reason}")


def _refused_protocols(wishes: Wishes) -> Iterator[TlsProblem]:
    for name in wishes.protocols:
        if name not in _VERSIONS and name not in _NO_VERSIONS:
            reason = f"{name} is not used: only TLSv1.2 and TLSv1.3 are (RFC 8996)"
            yield TlsProblem("dcmTLSProtocol", reason)
    if wishes.host_check is not None and wishes.host_check.upper() not in _HOST_CHECKS:
        reason = f"{wishes.host_check} is neither HTTPS nor LDAPS; the host name is checked"
        yield TlsProblem("dcmTLSEndpointIdentificationAlgorithm", reason)


def _versions(wishes: Wishes) -> tuple[str, ...]:
    named = [name for name in wishes.protocols if name not in _NO_VERSIONS]
    return tuple(version for version in _VERSIONS if version in named or not named)


def _missing_stores(wishes: Wishes, stores: DeviceStores) -> Iterator[TlsProblem]:
    if stores.key is None and wishes.has_port:
        reason = "names no key: without one nobody can call this device over TLS"
        yield TlsProblem("dcmKeyStoreURL", reason, is_ours=True)
    if not stores.can_check:
        reason = "names no trusted certificates: without them no peer can be checked, and none is"
        yield TlsProblem("dcmTrustStoreURL", f"{reason} called over TLS", is_ours=True)


def store_reference(
    prefix: str, fields: Mapping[str, object], environment: Mapping[str, str]
) -> StoreReference | None:
    """Return the key store or the trust store that the fields of a device name.

    Parameters
    ----------
    prefix
        `key_store` or `trust_store`.
    fields
        Fields of the device's entry.
    environment
        Where the names of dcmKeyStorePinProperty and its like are looked up.

    Raises
    ------
    InvalidValueError
        When the URL is no file of this host.
    """
    url = str(fields.get(f"{prefix}_url") or "")
    if not url:
        return None
    attribute = _ATTRIBUTES[prefix]
    pin, pin_file = _pin(prefix, fields, environment)
    key_pin, _ = _pin(f"{prefix}_key", fields, environment)
    return StoreReference(attribute, _path(url, attribute), pin, key_pin, pin_file)


_ATTRIBUTES: Final = {"key_store": "dcmKeyStoreURL", "trust_store": "dcmTrustStoreURL"}


def _pin(
    prefix: str, fields: Mapping[str, object], environment: Mapping[str, str]
) -> tuple[str, Path | None]:
    """Return a pin, or the file that holds it: `X_FILE` beside the variable X."""
    name = str(fields.get(f"{prefix}_pin_property") or "")
    in_file = environment.get(f"{name}_FILE") if name else None
    pin = str(fields.get(f"{prefix}_pin") or environment.get(name, ""))
    return pin, Path(in_file) if in_file else None


def _path(url: str, attribute: str) -> Path:
    """Return the file that a URL names; a path stands for itself."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path) if parts.scheme == "file" else url)
    if parts.netloc in {"", "localhost"} and path.is_absolute() and "${" not in url:
        return path
    msg = f"{attribute} {url!r} is no file of this host: write file:///etc/dicomq/tls.pem"
    raise InvalidValueError(msg)
