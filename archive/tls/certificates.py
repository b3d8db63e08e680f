"""Certificates and revocation lists that are values of a directory (RFC 4523), as PEM."""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from archive.errors import InvalidValueError

_PEM: Final = b"-----BEGIN "
_Load = Callable[[bytes], x509.Certificate | x509.CertificateRevocationList]


def certificate_pem(value: bytes) -> bytes:
    """Return a certificate, DER or PEM, as PEM.

    Raises
    ------
    InvalidValueError
        When it is no X.509 certificate.
    """
    loaders = x509.load_pem_x509_certificate, x509.load_der_x509_certificate
    return _as_pem(value, *loaders, what="certificate")


def revocation_list_pem(value: bytes) -> bytes:
    """Return a certificate revocation list, DER or PEM, as PEM.

    Raises
    ------
    InvalidValueError
        When it is none.
    """
    loaders = x509.load_pem_x509_crl, x509.load_der_x509_crl
    return _as_pem(value, *loaders, what="certificate revocation list")


def _as_pem(value: bytes, load_pem: _Load, load_der: _Load, *, what: str) -> bytes:
    load = load_pem if value.lstrip().startswith(_PEM) else load_der
    try:
        return load(value).public_bytes(Encoding.PEM)
    except ValueError as error:
        msg = f"is no X.509 {what}"
        raise InvalidValueError(msg) from error
