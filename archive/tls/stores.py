"""Reads keys and trusted certificates from files and makes OpenSSL's contexts of them.

PEM files are taken as they are; PKCS#12 files through `cryptography`. A private key that was
unlocked never lies on a disk: it is handed to OpenSSL in memory (memfd). Certificates of the
directory stand in for a trust store, or beside a private key that has none.

Revocation lists lie in the trust store, in a file beside it that ends in `.crl`, or in the
directory. Where there is one, each peer's certificate is looked up, and an authority without a
list of its own is no longer enough.
"""

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from archive.errors import InvalidValueError, TlsMaterialError
from archive.tls.certificates import revocation_list_pem
from archive.tls.terms import TLS_1_2, StoreReference, TlsTerms

_JAVA_KEY_STORE: Final = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # JKS and JCEKS
_PEM: Final = b"-----BEGIN "
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_REVOKED: Final = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_PEM_ENCODING: Final = serialization.Encoding.PEM

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a store holds, as PEM.

    Attributes
    ----------
    key_pin
        Opens the private key in it; empty when it lies open.
    """

    pem: bytes
    key_pin: str = ""


def server_context(terms: TlsTerms) -> ssl.SSLContext:
    """Return a context with which peers are answered.

    Raises
    ------
    TlsMaterialError
        When a file cannot be read, opened with its pin, or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # associations last: nobody resumes a session, and some stumble
    _limit(context, terms)
    if terms.need_client_auth:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, terms)
    _use_key(context, terms)
    return context


def client_context(terms: TlsTerms) -> ssl.SSLContext:
    """Return a context with which peers are called; their certificates are always checked.

    Raises
    ------
    TlsMaterialError
        As `server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = terms.check_host
    _limit(context, terms)
    _trust(context, terms)
    if terms.stores.key is not None:
        _use_key(context, terms)
    return context


def stamp_of(terms: TlsTerms) -> Stamp:
    """Return what changes when a store is replaced; a missing file counts as empty."""
    paths = [each.path for each in (terms.stores.key, terms.stores.trust) if each is not None]
    if terms.stores.trust is not None:
        paths.append(_beside(terms.stores.trust))
    return tuple(map(_stamp, paths))


class ServerContexts:
    """Contexts for answering peers, made anew when the terms or the files have changed.

    Not to be shared by threads.
    """

    def __init__(self) -> None:
        self._kept: tuple[TlsTerms, Stamp, ssl.SSLContext] | None = None

    def get(self, terms: TlsTerms) -> ssl.SSLContext:
        """Return the context of `terms`.

        Raises
        ------
        TlsMaterialError
            As `server_context`.
        """
        stamp = stamp_of(terms)
        if self._kept is not None and self._kept[:2] == (terms, stamp):
            return self._kept[2]
        context = server_context(terms)
        self._kept = (terms, stamp, context)
        return context


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (str(path), 0, 0)
    return (str(path), status.st_mtime_ns, status.st_size)


def _limit(context: ssl.SSLContext, terms: TlsTerms) -> None:
    """Set versions and suites; nothing is compressed or negotiated twice (RFC 9325 §3)."""
    versions = [_VERSION[name] for name in terms.versions]
    context.minimum_version, context.maximum_version = versions[0], versions[-1]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if terms.ciphers:
        context.set_ciphers(":".join(terms.ciphers))


def _trust(context: ssl.SSLContext, terms: TlsTerms) -> None:
    """Trust the certificates of the trust store, those of single peers among them."""
    store = terms.stores.trust
    if store is not None:
        pem = _read(store, terms).pem + _read_beside(store, terms)
    elif terms.stores.trusted:
        pem = b"".join(terms.stores.trusted)
    else:
        msg = f"{terms.stores.dn}: dcmTrustStoreURL names no trusted certificates; set it"
        raise TlsMaterialError(msg)
    try:
        context.load_verify_locations(cadata=pem.decode("latin-1"))
        if lists := _REVOKED.findall(pem):
            with _in_memory(b"\n".join(lists) + b"\n") as path:
                context.load_verify_locations(path)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, ValueError) as error:
        what = f"no certificate, or a revocation list that cannot be read ({error})"
        if store is not None:
            raise _unusable(store, terms, f"holds {what}") from error
        msg = f"{terms.stores.dn}: what dicomAuthorizedNodeCertificateReference names holds {what}"
        raise TlsMaterialError(msg) from error
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _beside(store: StoreReference) -> Path:
    """Return the file that holds revocation lists for a trust store."""
    return store.path.with_suffix(".crl")


def _read_beside(store: StoreReference, terms: TlsTerms) -> bytes:
    """Return the revocation lists beside a trust store as PEM; nothing when there is no file."""
    path = _beside(store)
    try:
        data = path.read_bytes()
        return data if _REVOKED.search(data) else revocation_list_pem(data)
    except FileNotFoundError:
        return b""
    except (OSError, InvalidValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it {error}"
        msg = f"{terms.stores.dn}: the file {path} beside that of {store.attribute}: {reason}"
        raise TlsMaterialError(msg) from error


def _use_key(context: ssl.SSLContext, terms: TlsTerms) -> None:
    """Show the certificate of the key store."""
    store = terms.stores.key
    if store is None:
        msg = f"{terms.stores.dn}: dcmKeyStoreURL names no key; set it"
        raise TlsMaterialError(msg)
    contents = _read(store, terms)
    for chain in (chains := list(_chains(contents.pem, terms.stores.own))):
        try:
            with _in_memory(chain) as path:
                context.load_cert_chain(path, password=lambda: contents.key_pin)
        except (ssl.SSLError, OSError, ValueError) as error:
            if chain is not chains[-1]:
                continue
            what = (
                f"has no private key with its certificate that the pin opens ({_reason(error)}): "
                "it has to hold the key, its certificate and those between it and the root; or "
                "the key alone, and dicomThisNodeCertificateReference names the certificate"
            )
            raise _unusable(store, terms, what) from error
        return


def _chains(pem: bytes, own: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield what may be key and certificates: with each of `own` in turn where the key is alone."""
    if _CERTIFICATE in pem or not own:
        yield pem
        return
    for index, certificate in enumerate(own):
        others = own[:index] + own[index + 1 :]
        yield b"\n".join((pem, certificate, *others))


def _read(store: StoreReference, terms: TlsTerms) -> _Contents:
    try:
        data = store.path.read_bytes()
        pin = _pin(store)
    except OSError as error:
        raise _unusable(store, terms, f"cannot be read: {error.strerror}") from error
    if _PEM in data:
        return _Contents(data, store.key_pin or pin)
    if data.startswith(_JAVA_KEY_STORE):
        what = (
            "is a Java key store; convert it: keytool -importkeystore -srckeystore "
            f"{store.path.name} -destkeystore {store.path.stem}.p12 -deststoretype pkcs12"
        )
        raise _unusable(store, terms, what)
    try:
        return _Contents(_from_pkcs12(data, pin))
    except (ValueError, TypeError) as error:
        what = f"is neither PEM nor a PKCS#12 file that the pin opens ({error})"
        raise _unusable(store, terms, what) from error


def _pin(store: StoreReference) -> str:
    if store.pin_file is None:
        return store.pin
    return store.pin_file.read_text(encoding="utf-8").split("\n", maxsplit=1)[0].rstrip("\r")


def _from_pkcs12(data: bytes, pin: str) -> bytes:
    """Return key and certificates of a PKCS#12 file as PEM."""
    bundle = pkcs12.load_pkcs12(data, pin.encode() or None)
    parts = []
    if bundle.key is not None:
        parts.append(
            bundle.key.private_bytes(
                _PEM_ENCODING,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    own = [bundle.cert] if bundle.cert is not None else []
    for each in (*own, *bundle.additional_certs):
        parts.append(each.certificate.public_bytes(_PEM_ENCODING))  # noqa: PERF401 - two sources
    return b"".join(parts)


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Yield the path of a file that lies in memory only."""
    descriptor = os.memfd_create("dicomq-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _unusable(store: StoreReference, terms: TlsTerms, what: str) -> TlsMaterialError:
    msg = f"{terms.stores.dn}: the file {store.path} of {store.attribute} {what}"
    return TlsMaterialError(msg)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")


_VERSION: Final = {
    TLS_1_2: ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
