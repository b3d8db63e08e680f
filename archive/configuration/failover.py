"""Connections to LDAP servers that stand in for one another.

The first server that works is used and kept. One that fails is left alone for half a minute, then
tried again, so that work returns to the preferred server; a server that is frozen costs its
time-out, never more. Used from the background (see `source`), so nobody waits for it.
"""

import math
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ldap3 import NONE, SYNC, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException, LDAPSocketReceiveError

from archive.clock import Clock
from archive.configuration.refusals import RESULT_TEXTS
from archive.configuration.servers import LdapAccess
from archive.errors import DirectoryUnavailableError

REST_S = 30.0
PROBE_S = 2.0
_SIZE_LIMIT_EXCEEDED = 4
_NO_SUCH_OBJECT = 32
_WITHHELD = frozenset({10, 34, 50})  # elsewhere, no name, not for whom is bound
_Result = TypeVar("_Result")


class EmptyDirectoryError(DirectoryUnavailableError):
    """The server does not have the entry below which everything lies."""


class WithheldError(DirectoryUnavailableError):
    """The server does not give what was asked for to whom is bound, or does not have it."""


class SizeLimitError(DirectoryUnavailableError):
    """The server gives fewer entries than there are."""


@dataclass(slots=True)
class _Member:
    """A server; it is left alone until `rests_until`, on the monotonic clock."""

    access: LdapAccess
    rests_until: float = float("-inf")
    reason: str = ""


class ServerGroup:
    """Servers of one directory. Safe to use from several threads and after a fork.

    Parameters
    ----------
    accesses
        The servers, the preferred one first.
    clock
        Says when a server that failed is tried again.
    """

    def __init__(self, accesses: Sequence[LdapAccess], clock: Clock) -> None:
        self._members = [_Member(access) for access in accesses]
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Any = None
        self._present = self._members[0]
        self._process = os.getpid()

    @property
    def location(self) -> str:
        """Where the directory is, for messages."""
        urls = " ".join(member.access.url for member in self._members)
        return f"{urls}/{self.base_dn}"

    @property
    def base_dn(self) -> str:
        """Name of the entry below which everything lies."""
        return self._members[0].access.base_dn

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers, the preferred one first."""
        return tuple(member.access.url for member in self._members)

    @property
    def in_use(self) -> str:
        """The server that answered last."""
        return self._present.access.url

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._drop()

    def run(self, action: Callable[[Any], _Result], *, again: bool = True) -> _Result:
        """Do something on a connection; on one to the next server when it fails.

        Parameters
        ----------
        action
            What is done; given an open connection.
        again
            Whether `action` may be repeated when it is unknown whether it was done.

        Raises
        ------
        DirectoryUnavailableError
            When no server can be used; each is named with its reason.
        """
        self._after_fork()
        with self._lock:
            self._return_to_preferred()
            for kept in self._connections():
                try:
                    return action(self._connection)
                except (LDAPException, DirectoryUnavailableError) as error:
                    self._failed(error, rest=not kept or _was_silent(error))
                    if not again or isinstance(error, SizeLimitError):
                        raise self._unavailable() from error
        raise self._unavailable()

    def _connections(self) -> Iterator[bool]:
        """Yield once for each connection that can be tried, and whether it was kept from before.

        A kept connection may have died unnoticed, so its server is tried once more.
        """
        if self._connection is not None:
            yield True
        now = self._clock.monotonic()
        rested = [member for member in self._members if member.rests_until <= now]
        for member in rested or self._members:
            self._drop()
            if self._connect(member):
                yield False

    def _connect(self, member: _Member) -> bool:
        try:
            connection = _open(member.access)
        except (LDAPException, DirectoryUnavailableError) as error:
            self._rest(member, error)
            return False
        self._drop()
        self._connection, self._present, member.reason = connection, member, ""
        return True

    def _return_to_preferred(self) -> None:
        """Leave a stand-in as soon as a server before it works again."""
        now = self._clock.monotonic()
        for member in self._members[: self._members.index(self._present)]:
            if self._connection is not None and member.rests_until <= now:
                try:
                    _open(_impatient(member.access)).unbind()
                except (LDAPException, DirectoryUnavailableError) as error:
                    self._rest(member, error)
                    continue
                self._connect(member)
                return

    def _failed(self, error: Exception, *, rest: bool) -> None:
        self._present.reason = _reason(error)
        if rest:
            self._rest(self._present, error)
        self._drop()

    def _rest(self, member: _Member, error: Exception) -> None:
        member.reason = _reason(error)
        member.rests_until = self._clock.monotonic() + REST_S

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close_connection(connection)

    def _after_fork(self) -> None:
        """Leave lock and connection to the process that made them."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()
            if self._connection is not None:
                self._connection.socket.close()
                self._connection = None

    def _unavailable(self) -> DirectoryUnavailableError:
        failed = [member for member in self._members if member.reason]
        if len(self._members) == 1:
            msg = f"the directory {self.location} cannot be used: {failed[0].reason}"
            return DirectoryUnavailableError(msg)
        reasons = "; ".join(f"{member.access.url}: {member.reason}" for member in failed)
        return DirectoryUnavailableError(f"the directory {self.location} cannot be used: {reasons}")


def _impatient(access: LdapAccess) -> LdapAccess:
    """Return an access that is given up soon: there is another server that works."""
    return replace(access, timeout_s=min(access.timeout_s, PROBE_S))


def _was_silent(error: Exception) -> bool:
    """Tell whether a server let the time-out pass; then it would do so again."""
    return isinstance(error, LDAPSocketReceiveError) and "timed out" in str(error)


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return _CLEARER.get(text, text)


_CLEARER = {"invalid server address": "its host name cannot be resolved, or it is not running"}


def _open(access: LdapAccess) -> Any:  # noqa: ANN401 - ldap3 has no types
    """Open a connection and bind."""
    password = access.credentials()
    tls = Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=access.ca_file)
    server = Server(access.url, get_info=NONE, connect_timeout=access.timeout_s, tls=tls)
    connection = Connection(
        server,
        user=access.bind_dn,
        password=password,
        client_strategy=SYNC,  # the group's lock is held; SAFE_SYNC copies every answer, slowly
        auto_referrals=False,  # a password is for the servers that were named only
        receive_timeout=math.ceil(access.timeout_s),
        return_empty_attributes=False,  # hundreds are asked for, each entry has a few
    )
    try:
        connection.open()
        if access.start_tls:
            connection.start_tls()
        connection.bind()
        check_result(connection.result, f"binding as {access.bind_dn or 'nobody'}")
    except (LDAPException, DirectoryUnavailableError):
        close_connection(connection)
        raise
    return connection


def close_connection(connection: Any) -> None:  # noqa: ANN401 - ldap3 has no types
    """Close a connection and, which ldap3 leaves out after a failure, its socket."""
    try:
        connection.unbind()
    except LDAPException:
        return
    finally:
        if connection.socket is not None:
            connection.socket.close()


def check_result(result: dict[str, Any], what: str) -> None:
    """Check how an operation ended.

    Raises
    ------
    DirectoryUnavailableError
        When it did not succeed; `SizeLimitError` when only a part of the entries came,
        `EmptyDirectoryError` when there are none, `WithheldError` when they may not be read.
    """
    code = result["result"]
    if code == 0:
        return
    text = f"{what}: {RESULT_TEXTS.get(code, result['description'])} ({code}) {result['message']}"
    if code == _NO_SUCH_OBJECT:
        hint = "import the default directory, or correct the base DN"
        msg = f"{text.strip()}; {hint}"
        raise EmptyDirectoryError(msg)
    if code == _SIZE_LIMIT_EXCEEDED:
        hint = "raise the limit for the DN that is bound (olcLimits: size=unlimited)"
        msg = f"{text.strip()}; the server gives only a part of the entries: {hint}"
        raise SizeLimitError(msg)
    raise (WithheldError if code in _WITHHELD else DirectoryUnavailableError)(text.strip())
