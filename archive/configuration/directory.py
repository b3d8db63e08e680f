"""An LDAP server as the directory: the only importer of ldap3.

Values are taken as bytes and read by our own table, because ldap3 changes their types depending
on what it knows of the schema. A result that a size limit cut is a failure, not a configuration.
"""

import hashlib
import math
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ldap3 import (
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_REPLACE,
    NONE,
    SAFE_SYNC,
    SUBTREE,
    Connection,
    Server,
    Tls,
)
from ldap3.core.exceptions import LDAPException

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.attributes import TABLES
from archive.configuration.entries import Entry
from archive.configuration.records import (
    AddRecord,
    Change,
    DeleteRecord,
    ModifyRecord,
    Record,
    RenameRecord,
)
from archive.configuration.refusals import RESULT_TEXTS, Applied, RefusedChangeError
from archive.configuration.settings import Settings
from archive.errors import ConfigurationError, DirectoryUnavailableError

_Result = TypeVar("_Result")
_PAGED = "1.2.840.113556.1.4.319"
_PAGE = 400
_SIZE_LIMIT_EXCEEDED = 4
_CAPABILITIES_INTERVAL_S = 30.0
_DEFAULT_BASE = "dc=dcm4che,dc=org"
_SCHEMES = ("ldap", "ldaps", "ldapi")
_CAPABILITIES = "(objectClass=dicomTransferCapability)"
# Each search counts for itself against the server's size limit, hence one per kind of entry.
_SEARCHES = (
    "(|(objectClass=dicomConfigurationRoot)(objectClass=dicomDevicesRoot)(objectClass=dicomDevice))",
    "(objectClass=dicomNetworkConnection)",
    "(objectClass=dicomNetworkAE)",
    "(|(objectClass=dcmExporter)(objectClass=dcmExportRule)(objectClass=dcmQueue)(objectClass=dcmStorage))",
)
_CHANGE_TYPES = {
    Change.ADD: MODIFY_ADD,
    Change.DELETE: MODIFY_DELETE,
    Change.REPLACE: MODIFY_REPLACE,
}
_VERSION_ATTRIBUTES = ["entryCSN", "entryUUID", "modifyTimestamp"]


class _SizeLimitError(DirectoryUnavailableError):
    """The server gives fewer entries than there are."""


@dataclass(frozen=True, slots=True)
class LdapAccess:
    """How to reach a server. `timeout_s` holds for connecting and for each answer."""

    url: str
    base_dn: str
    bind_dn: str | None = None
    password: str | None = None
    ca_file: str | None = None
    start_tls: bool = False
    timeout_s: float = 5.0


class LdapDirectory:
    """A directory on an LDAP server. Safe to use from several threads and after a fork.

    Parameters
    ----------
    access
        How to reach the server.
    clock
        Says when transfer capabilities are looked at for changes: they are many, so this is done
        every 30 s, and every time for all other entries.
    """

    def __init__(self, access: LdapAccess, clock: Clock = SYSTEM_CLOCK) -> None:
        self._access = access
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Any = None
        self._process = 0
        self._capabilities = ""
        self._capabilities_seen = float("-inf")

    @classmethod
    def from_settings(cls, settings: Settings) -> "LdapDirectory":
        """Return the directory that `settings.directory` names.

        Raises
        ------
        ConfigurationError
            When that is no URL of an LDAP server.
        """
        parts = urlsplit(settings.directory)
        if parts.scheme not in _SCHEMES or (not parts.netloc and parts.scheme != "ldapi"):
            msg = (
                f"DICOMQ_DIRECTORY {settings.directory!r} is no LDAP URL; write "
                "ldap://host:389/dc=dcm4che,dc=org, ldaps://... or the path of an LDIF file"
            )
            raise ConfigurationError(msg)
        access = LdapAccess(
            url=f"{parts.scheme}://{parts.netloc}",
            base_dn=unquote(parts.path.lstrip("/")) or _DEFAULT_BASE,
            bind_dn=settings.ldap_bind_dn,
            password=settings.ldap_password,
            ca_file=settings.ldap_ca_file,
            start_tls=settings.ldap_start_tls,
            timeout_s=settings.ldap_timeout_s,
        )
        return cls(access)

    @property
    def location(self) -> str:
        """Where the directory is, for messages."""
        return f"{self._access.url}/{self._access.base_dn}"

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._drop()

    def fingerprint(self) -> str:
        """Return what changes whenever an entry is added, changed or deleted.

        Raises
        ------
        DirectoryUnavailableError
            When the server cannot be asked.
        """
        return self._run(self._fingerprint)

    def read(self) -> tuple[Entry, ...]:
        """Return the entries that matter, of all devices.

        Raises
        ------
        DirectoryUnavailableError
            When the server cannot be asked, or gives only a part of the entries.
        """
        return self._run(self._read)

    def apply_all(self, records: Sequence[Record], *, go_on: bool = False) -> tuple[Applied, ...]:
        """Apply change records one after the other, each whole or not at all.

        Parameters
        ----------
        records
            In the order in which they are applied.
        go_on
            Whether a refused record is passed over; else it ends the work.

        Returns
        -------
        tuple of Applied
            One for each record that was tried.

        Raises
        ------
        DirectoryUnavailableError
            When the server cannot be asked; whether it applied the present record is unknown.
        """
        done: list[Applied] = []
        for record in records:
            done.append(self._run(partial(_apply, record=record), again=False))
            if done[-1].refusal is not None and not go_on:
                break
        return tuple(done)

    def _run(self, action: Callable[[Any], _Result], *, again: bool = True) -> _Result:
        """Do something on the connection; on another one when the kept one turns out dead."""
        with self._lock:
            kept = self._connection is not None and self._process == os.getpid()
            try:
                return action(self._open())
            except LDAPException as error:
                self._drop()
                if not (kept and again):
                    raise self._unavailable(error) from error
            try:
                return action(self._open())
            except LDAPException as error:
                self._drop()
                raise self._unavailable(error) from error

    def _open(self) -> Any:  # noqa: ANN401 - ldap3 has no types
        if self._connection is not None and self._process == os.getpid():
            return self._connection
        access = self._access
        tls = Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=access.ca_file)
        server = Server(access.url, get_info=NONE, connect_timeout=access.timeout_s, tls=tls)
        connection = Connection(
            server,
            user=access.bind_dn,
            password=access.password,
            client_strategy=SAFE_SYNC,
            receive_timeout=math.ceil(access.timeout_s),
        )
        self._connection, self._process = connection, os.getpid()
        try:
            connection.open()
            if access.start_tls:
                connection.start_tls()
            _check(connection.bind()[1], f"binding as {access.bind_dn or 'nobody'}")
        except (LDAPException, DirectoryUnavailableError):
            self._drop()
            raise
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():
            _close(connection)

    def _unavailable(self, error: LDAPException) -> DirectoryUnavailableError:
        msg = f"the directory {self.location} cannot be used: {error or type(error).__name__}"
        return DirectoryUnavailableError(msg)

    def _fingerprint(self, connection: Any) -> str:  # noqa: ANN401 - ldap3 has no types
        now = self._clock.monotonic()
        if now - self._capabilities_seen >= _CAPABILITIES_INTERVAL_S:
            entries = self._read_capabilities(connection, _VERSION_ATTRIBUTES)
            self._capabilities = _digest(entries)
            self._capabilities_seen = now
        others = (
            entry
            for search in _SEARCHES
            for entry in self._search(connection, search, _VERSION_ATTRIBUTES)
        )
        return f"{_digest(others)}:{self._capabilities}"

    def _read(self, connection: Any) -> tuple[Entry, ...]:  # noqa: ANN401 - ldap3 has no types
        names = sorted({row.ldap for rows in TABLES.values() for row in rows} | {"objectClass"})
        entries = [
            entry for search in _SEARCHES for entry in self._search(connection, search, names)
        ]
        return (*entries, *self._read_capabilities(connection, names))

    def _read_capabilities(self, connection: Any, names: list[str]) -> list[Entry]:  # noqa: ANN401 - ldap3 has no types
        """Read all transfer capabilities; piece by piece when a size limit cuts the answer."""
        try:
            return list(self._search(connection, _CAPABILITIES, names))
        except _SizeLimitError:
            aes = self._search(connection, "(objectClass=dicomNetworkAE)", ["objectClass"])
        return [
            entry
            for ae in aes
            for role in ("SCU", "SCP")
            for entry in self._search(
                connection, f"(&{_CAPABILITIES}(dicomTransferRole={role}))", names, below=ae.dn
            )
        ]

    def _search(
        self,
        connection: Any,  # noqa: ANN401 - ldap3 has no types
        search: str,
        names: list[str],
        *,
        below: str | None = None,
    ) -> list[Entry]:
        """Return all entries that a filter finds, page by page."""
        entries: list[Entry] = []
        cookie = None
        while True:
            _, result, response, _ = connection.search(
                below or self._access.base_dn,
                search,
                SUBTREE,
                attributes=names,
                paged_size=_PAGE,
                paged_cookie=cookie,
            )
            _check(result, f"searching {search[:60]} below {below or self._access.base_dn}")
            entries.extend(_entries(response))
            cookie = result.get("controls", {}).get(_PAGED, {}).get("value", {}).get("cookie")
            if not cookie:
                return entries


def _close(connection: Any) -> None:  # noqa: ANN401 - ldap3 has no types
    """Close a connection and, which ldap3 leaves out after a failure, its socket."""
    try:
        connection.unbind()
    except LDAPException:
        return
    finally:
        if connection.socket is not None:
            connection.socket.close()


def _check(result: dict[str, Any], what: str) -> None:
    code = result["result"]
    if code == 0:
        return
    text = f"{what}: {RESULT_TEXTS.get(code, result['description'])} ({code}) {result['message']}"
    if code == _SIZE_LIMIT_EXCEEDED:
        hint = "raise the limit for the DN that is bound (olcLimits: size=unlimited)"
        msg = f"{text.strip()}; the server gives only a part of the entries: {hint}"
        raise _SizeLimitError(msg)
    raise DirectoryUnavailableError(text.strip())


def _entries(response: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    for item in response:
        if item["type"] == "searchResEntry":
            raw = item["raw_attributes"]
            values = {name.lower(): tuple(raw[name]) for name in raw if raw[name]}
            yield Entry(item["dn"], values)


def _digest(entries: Iterable[Entry]) -> str:
    lines = sorted(f"{entry.dn} {sorted(entry.attributes.items())}" for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _apply(connection: Any, record: Record) -> Applied:  # noqa: ANN401 - ldap3 has no types
    if isinstance(record, AddRecord) and not _has_class(record):
        return Applied(record, RefusedChangeError("add", 65, "no objectClass attribute"))
    operation, (_, result, _, _) = _send(connection, record)
    if result["result"] != 0:
        refusal = RefusedChangeError(operation, result["result"], result["message"])
        return Applied(record, refusal)
    return Applied(record)


def _has_class(record: AddRecord) -> bool:
    return any(name.lower() == "objectclass" for name, _ in record.attributes)


def _send(connection: Any, record: Record) -> tuple[str, Any]:  # noqa: ANN401 - ldap3 has no types
    """Send a change; return the name of the operation and the answer."""
    match record:
        case AddRecord():
            entry = Entry.of(record.dn, record.attributes)
            values = {name: list(values) for name, values in entry.attributes.items()}
            return "add", connection.add(record.dn, attributes=values)
        case ModifyRecord():
            return "modify", connection.modify(record.dn, _changes(record))
        case DeleteRecord():
            return "delete", connection.delete(record.dn)
        case RenameRecord():
            return "rename", connection.modify_dn(
                record.dn,
                record.new_rdn,
                delete_old_dn=record.delete_old_rdn,
                new_superior=record.new_superior,
            )


def _changes(record: ModifyRecord) -> dict[str, list[tuple[str, list[bytes]]]]:
    changes: dict[str, list[tuple[str, list[bytes]]]] = {}
    for one in record.modifications:
        change = (_CHANGE_TYPES[one.change], list(one.values))
        changes.setdefault(one.attribute, []).append(change)
    return changes
