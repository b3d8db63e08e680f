"""Cipher suites: from the names of the directory (IANA's, Java's) to those of OpenSSL.

Taken are the suites of the BCP 195 profiles (PS3.15 §B.9, §B.10, §B.12; RFC 9325 §4.2): forward
secrecy and authenticated encryption. What these profiles do away with is refused by name.
"""

import re
from typing import Final

TLS_1_3_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
TLS_1_2_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384": "DHE-RSA-AES256-GCM-SHA384",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": "DHE-RSA-AES128-GCM-SHA256",
    "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "DHE-RSA-CHACHA20-POLY1305",
}
_SIGNALS: Final = frozenset({"TLS_EMPTY_RENEGOTIATION_INFO_SCSV", "TLS_FALLBACK_SCSV"})
"""Names in a list of suites that are no suites; OpenSSL sends them by itself."""

_OBJECTIONS: Final = (
    (re.compile(r"_anon_"), "it authenticates nobody"),
    (re.compile(r"_NULL_"), "it does not encrypt"),
    (re.compile(r"_EXPORT_|_RC4_|_DES_|_DES40_|_3DES_|_RC2_|_IDEA_|_MD5$"), "its cipher is broken"),
    (re.compile(r"^(TLS|SSL)_(RSA|ECDH|DH|KRB5|PSK)_"), "it has no forward secrecy"),
    (re.compile(r"_CBC_"), "it has no authenticated encryption (CBC)"),
)


def objection(name: str) -> str | None:
    """Return why a suite is not used; None when it is."""
    if name in TLS_1_2_SUITES or name in TLS_1_3_SUITES or name in _SIGNALS:
        return None
    for pattern, reason in _OBJECTIONS:
        if pattern.search(name):
            return f"{reason}; BCP 195 excludes it"
    return "it is no suite of the BCP 195 profiles that is known here"


def openssl_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return OpenSSL's names of the TLS 1.2 suites among `names`, best first."""
    return tuple(openssl for name, openssl in TLS_1_2_SUITES.items() if name in names)


def has_tls_1_3(names: tuple[str, ...]) -> bool:
    """Tell whether a suite of TLS 1.3 is among `names`."""
    return not TLS_1_3_SUITES.isdisjoint(names)
