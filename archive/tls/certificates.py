"""Certificates and revocation lists that are values of a directory (RFC 4523), as PEM."""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from archive.errors import InvalidValueError

_PEM: Final = b"-----BEGIN "


def certificate_pem(value: bytes) -> bytes:
    """Return a certificate, DER or PEM, as PEM.

    Raises
    ------
    InvalidValueError
        When it is no X.509 certificate.
    """
    is_pem = value.lstrip().startswith(_PEM)
    try:
        load = x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate
        return load(value).public_bytes(Encoding.PEM)
    except ValueError as error:
        msg = "is no X.509 certificate"
        raise InvalidValueError(msg) from error


def revocation_list_pem(value: bytes) -> bytes:
    """Return a certificate revocation list, DER or PEM, as PEM.

    Raises
    ------
    InvalidValueError
        When it is none.
    """
    is_pem = value.lstrip().startswith(_PEM)
    try:
        load = x509.load_pem_x509_crl if is_pem else x509.load_der_x509_crl
        return load(value).public_bytes(Encoding.PEM)
    except ValueError as error:
        msg = "is no X.509 certificate revocation list"
        raise InvalidValueError(msg) from error
