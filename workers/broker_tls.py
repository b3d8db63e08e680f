"""TLS to Redis: from the options of a ``rediss:`` URL to those of Celery, kombu and Flower.

The server's certificate is always checked, its host name too.
"""

import ssl
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from archive.errors import InvalidValueError

_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_REQUIRED: Final = frozenset({"", "required", "cert_required"})


def broker_tls(url: str) -> tuple[str, dict[str, Any] | None]:
    """Return a Redis URL without its options for TLS, and those; None without TLS.

    Parameters
    ----------
    url
        REDIS_URL; with ``rediss:`` it may name `ssl_ca_certs` (default: the certificates that the
        operating system trusts), `ssl_certfile` and `ssl_keyfile`.

    Raises
    ------
    InvalidValueError
        When it has an unknown option, or one that would leave the certificate unchecked.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url, None
    given = dict(parse_qsl(parts.query))
    options = {name: value for name, value in given.items() if name.startswith("ssl_")}
    if options.pop("ssl_cert_reqs", "").lower() not in _REQUIRED:
        msg = (
            "REDIS_URL: ssl_cert_reqs may only be required: the certificate of Redis is always "
            "checked, name the authority with ssl_ca_certs=/path/ca.pem"
        )
        raise InvalidValueError(msg)
    unknown = [name for name in options if name not in _FILES]
    if unknown:
        msg = f"REDIS_URL: {unknown[0]} is none of {', '.join(_FILES)}"
        raise InvalidValueError(msg)
    rest = {name: value for name, value in given.items() if not name.startswith("ssl_")}
    bare = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(rest), ""))
    return bare, {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **options}
