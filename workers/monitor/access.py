"""Who may do what: roles by user, and the checks that every request passes.

A viewer looks, an operator changes tasks, exports and gates, an admin also uses Flower's own
control of workers. Flower decides who somebody is; this module what that person may do.
"""

import binascii
import ipaddress
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError

from archive.errors import InvalidValueError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
ANYBODY = "*"
NOBODY = "anonymous"


class Role(IntEnum):
    """What a user may do; each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Roles:
    """Roles by user name; without any entry everybody who may log in is an admin."""

    by_user: Mapping[str, Role] = field(default_factory=dict)

    def of(self, user: str) -> Role:
        """Return the role of a user; one without an entry has that of `*`, else is a viewer."""
        if not self.by_user:
            return Role.ADMIN
        return self.by_user.get(user, self.by_user.get(ANYBODY, Role.VIEWER))


def parse_roles(pairs: Iterable[str]) -> Roles:
    """Return the roles of pairs such as ``anna:operator``; empty ones and `#` lines are skipped.

    Raises
    ------
    InvalidValueError
        When a pair has another form or names no role; the message names all of them.
    """
    found: dict[str, Role] = {}
    wrong: list[str] = []
    for pair in (each.strip() for each in pairs):
        if not pair or pair.startswith("#"):
            continue
        user, _, name = pair.rpartition(":")
        if user and name.strip().upper() in Role.__members__:
            found[user.strip()] = Role[name.strip().upper()]
        else:
            wrong.append(pair)
    if wrong:
        msg = (
            f"roles {', '.join(map(repr, wrong))} cannot be used: write user:viewer,"
            " user:operator or user:admin"
        )
        raise InvalidValueError(msg)
    return Roles(found)


def is_protected(options: Any) -> bool:  # noqa: ANN401 - tornado's options have no types
    """Return whether Flower asks users who they are."""
    return bool(options.basic_auth or options.auth)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address names this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def user_of(handler: Any) -> str:  # noqa: ANN401 - Flower has no types
    """Return the name under which the user of a request logged in."""
    options = handler.application.options
    if isinstance(handler.current_user, str):
        return handler.current_user
    if options.basic_auth:
        _, _, encoded = handler.request.headers.get("Authorization", "").partition(" ")
        try:
            return b64decode(encoded).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            raise HTTPError(401) from None
    return NOBODY


def check_host(request: HTTPServerRequest, options: Any) -> None:  # noqa: ANN401 - see above
    """Refuse foreign host names where nobody logs in: a web page must not reach us by DNS.

    Raises
    ------
    HTTPError
        403.
    """
    name = urlsplit(f"//{request.host}").hostname or ""
    if not is_protected(options) and not options.unix_socket and not is_loopback(name):
        raise HTTPError(
            403, "Without login this server answers to localhost only; see --basic-auth"
        )


def check_origin(request: HTTPServerRequest) -> None:
    """Refuse a change that a page of another site asks for (CSRF).

    Browsers say where a request comes from; programs such as curl say nothing and are let pass,
    because they do not carry somebody's login around.

    Raises
    ------
    HTTPError
        403.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site not in {None, "same-origin"}:
        raise HTTPError(403, "Cross-site request forbidden")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise HTTPError(403, "Cross-origin request forbidden")


def check_role(handler: Any, roles: Roles, needed: Role) -> None:  # noqa: ANN401 - see above
    """Refuse what a user may not do.

    Raises
    ------
    HTTPError
        401 when nobody logged in, 403 when the role does not suffice.
    """
    if not handler.current_user:
        raise HTTPError(401)
    user = user_of(handler)
    held = Role.VIEWER if handler.application.options.read_only else roles.of(user)
    if held < needed:
        raise HTTPError(
            403,
            f"User {user} is {held.name.lower()}; this needs {needed.name.lower()} (see --roles)",
        )


OWN_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}
"""Security headers of every answer, also of Flower's own pages."""


class Guarded:
    """Mixin for Flower's own handlers: what changes something needs an admin."""

    def set_default_headers(self) -> None:
        """Set the security headers beside Flower's own."""
        handler: Any = self
        super().set_default_headers()  # type: ignore[misc] # that of the handler it is mixed into
        for name, value in OWN_HEADERS.items():
            handler.set_header(name, value)

    def prepare(self) -> Any:  # noqa: ANN401 - tornado's own
        """Check host, origin and role before Flower's own checks."""
        handler: Any = self
        check_host(handler.request, handler.application.options)
        if handler.request.method not in SAFE_METHODS:
            check_origin(handler.request)
            check_role(handler, handler.settings["dicomq"].roles, Role.ADMIN)
        return super().prepare()  # type: ignore[misc] # that of the handler it is mixed into


def guarded(handler_class: type) -> type:
    """Return a handler class of Flower with our checks before its own."""
    return type(handler_class.__name__, (Guarded, handler_class), {})
