"""Why TLS did not come about, whose fault it is and what to do about it, in words."""

import ssl
from typing import Final

_OUR_KEY: Final = "dcmKeyStoreURL of our device"
_OUR_TRUST: Final = "dcmTrustStoreURL of our device"
_UNKNOWN_CA: Final = (
    "its certificate comes from no authority that we trust: add the authority, or the certificate "
    f"itself, to the file of {_OUR_TRUST}, or to what dicomAuthorizedNodeCertificateReference names"
)
_EXPIRED: Final = "its certificate has expired: the peer has to renew it"
_OTHER_HOST: Final = (
    "its certificate is for another host: correct dicomHostname, have the peer use a certificate "
    "that names it, or delete dcmTLSEndpointIdentificationAlgorithm"
)
_NOT_TRUSTED: Final = (
    f"it does not trust our certificate: have it trust the authority of ours, or name one that it "
    f"trusts in {_OUR_KEY}"
)
NO_TLS: Final = (
    "it does not speak TLS on that port; correct dicomPort, or take dicomTLSCipherSuite from its "
    "connection"
)

_NO_LIST: Final = (
    "its authority has no revocation list here, and where there is one list each authority needs "
    f"one: put it into the file of {_OUR_TRUST}, or beside it into one that ends in .crl"
)
_OLD_LIST: Final = (
    "the revocation list of its authority is not valid now: fetch the present one, and compare "
    "the clocks of both hosts"
)

_VERIFICATION: Final = {
    3: _NO_LIST,
    9: "its certificate is not valid yet: compare the clocks of both hosts",
    10: _EXPIRED,
    11: _OLD_LIST,
    12: _OLD_LIST,
    18: _UNKNOWN_CA,
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    23: "its certificate was revoked: the peer has to renew it",
    26: "its certificate is not for this use (extended key usage): the peer needs another one",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
"""X509_V_ERR_* of OpenSSL."""

_COMMON: Final = {
    "NO_SHARED_CIPHER": (
        "no cipher suite in common, or none that fits our key: compare dicomTLSCipherSuite of the "
        "connection with what the peer offers"
    ),
    "UNSUPPORTED_PROTOCOL": (
        "no version of TLS in common: the peer has to speak TLS 1.2 or 1.3 (dcmTLSProtocol)"
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "it showed no certificate: have it use one, or set dcmTLSNeedClientAuth to FALSE"
    ),
    "HTTP_REQUEST": "it speaks HTTP, not DICOM over TLS",
}
_ALERTS: Final = {
    "UNKNOWN_CA": _NOT_TRUSTED,
    "BAD_CERTIFICATE": _NOT_TRUSTED,
    "CERTIFICATE_UNKNOWN": _NOT_TRUSTED,
    "DECRYPT_ERROR": _NOT_TRUSTED,
    "ACCESS_DENIED": _NOT_TRUSTED,
    "UNSUPPORTED_CERTIFICATE": f"it cannot use our certificate: name another in {_OUR_KEY}",
    "CERTIFICATE_EXPIRED": f"our certificate has expired: renew it ({_OUR_KEY})",
    "CERTIFICATE_REVOKED": f"our certificate was revoked: renew it ({_OUR_KEY})",
    "CERTIFICATE_REQUIRED": f"it demands a certificate: name ours in {_OUR_KEY}",
    "NO_CERTIFICATE": f"it demands a certificate: name ours in {_OUR_KEY}",
    "HANDSHAKE_FAILURE": (
        "it refused our offer: compare dicomTLSCipherSuite of the connection with what the peer "
        f"takes; or it demands a certificate ({_OUR_KEY})"
    ),
    "INSUFFICIENT_SECURITY": (
        "it takes none of our cipher suites: compare dicomTLSCipherSuite with what it takes"
    ),
    "PROTOCOL_VERSION": "no version of TLS in common: compare dcmTLSProtocol with what it takes",
}
_NOT_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "PACKET_LENGTH_TOO_LONG"}
)


def explain(error: OSError) -> str | None:
    """Return what went wrong with TLS and what to do; None when it was not TLS that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        return _VERIFICATION.get(code, f"its certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError):
        return (
            "it closed the connection during the handshake: it does not speak TLS there, or it "
            "refused our certificate or suites without saying so; look at its log"
        )
    return _explain_reason(error) if isinstance(error, ssl.SSLError) else None


def _explain_reason(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason in _COMMON:
        return _COMMON[reason]
    if reason in _NOT_TLS:
        return NO_TLS
    _, is_alert, alert = reason.partition("_ALERT_")
    if is_alert:
        return _ALERTS.get(alert, f"it ended TLS: {_words(alert)}")
    return f"TLS failed: {_words(reason) or error}"


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")
