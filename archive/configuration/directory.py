"""An LDAP directory: reading, watching and changing it.

Values are taken as bytes and read by our own table, because ldap3 changes their types depending
on what it knows of the schema. A result that a size limit cut is a failure, not a configuration.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from ldap3 import BASE, MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE, SUBTREE
from ldap3.core.exceptions import LDAPInvalidDnError

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.attributes import TABLES
from archive.configuration.certificates import (
    CERTIFICATE_ATTRIBUTES,
    certificate_names,
    with_certificates,
)
from archive.configuration.entries import Entry
from archive.configuration.failover import (
    EmptyDirectoryError,
    ServerGroup,
    SizeLimitError,
    WithheldError,
    check_result,
)
from archive.configuration.records import (
    AddRecord,
    Change,
    DeleteRecord,
    ModifyRecord,
    Record,
    RenameRecord,
)
from archive.configuration.refusals import Applied, InterruptedChangesError, RefusedChangeError
from archive.configuration.servers import LdapAccess, ldap_accesses
from archive.configuration.settings import Settings
from archive.configuration.watching import CAPABILITIES, CERTIFICATES, Watch
from archive.errors import DirectoryUnavailableError

_PAGED = "1.2.840.113556.1.4.319"
_PAGE = 400
# Each search counts for itself against the server's size limit, hence one per kind of entry.
_UPPER = ("dicomConfigurationRoot", "dicomDevicesRoot", "dicomDevice")
_MANY = ("dicomNetworkConnection", "dicomNetworkAE")
_AUXILIARY = ("dcmArchiveDevice", "dcmArchiveNetworkAE")
_CHANGE_TYPES = {
    Change.ADD: MODIFY_ADD,
    Change.DELETE: MODIFY_DELETE,
    Change.REPLACE: MODIFY_REPLACE,
}


def _classes(names: Iterable[str]) -> str:
    return "(|{})".format("".join(f"(objectClass={name})" for name in names))


def _searches() -> tuple[str, ...]:
    """Return the filters that find all entries of the table but transfer capabilities."""
    apart = {*_UPPER, *_MANY, *_AUXILIARY, "dicomTransferCapability"}
    others = [name for name in TABLES if name not in apart]
    return (_classes(_UPPER), *(_classes([name]) for name in _MANY), _classes(others))


class LdapDirectory:
    """A directory on LDAP servers. Safe to use from several threads and after a fork.

    Parameters
    ----------
    accesses
        How to reach the servers, the preferred one first.
    device_name
        The own device.
    clock
        Says when a server that failed is tried again, and when all entries are compared.
    """

    is_remote = True

    def __init__(
        self, accesses: Sequence[LdapAccess], device_name: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._servers = ServerGroup(accesses, clock)
        self._watch = Watch(device_name, clock)
        self._device_name = device_name
        self._certificates: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> "LdapDirectory":
        """Return the directory that `settings.directory` names.

        Raises
        ------
        ConfigurationError
            When that is no URL of an LDAP server.
        """
        return cls(ldap_accesses(settings), settings.device_name, clock)

    @property
    def location(self) -> str:
        """Where the directory is, for messages."""
        return self._servers.location

    @property
    def base_dn(self) -> str:
        """Name of the entry below which everything lies."""
        return self._servers.base_dn

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs of the servers."""
        return self._servers.urls

    @property
    def server_in_use(self) -> str:
        """URL of the server that answered last."""
        return self._servers.in_use

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._servers.close()

    def forget(self) -> None:
        """Compare all entries when the fingerprint is next asked for."""
        self._watch.forget()

    def fingerprint(self) -> str:
        """Return what changes whenever an entry is added, changed or deleted.

        On a server without contextCSN what is deleted below other devices is noticed a few
        seconds later.

        Raises
        ------
        DirectoryUnavailableError
            When no server can be asked.
        """
        return self._servers.run(self._fingerprint)

    def read(self) -> tuple[Entry, ...]:
        """Return the entries that matter, of all devices.

        Raises
        ------
        DirectoryUnavailableError
            When no server can be asked, or they give only a part of the entries.
        """
        return self._servers.run(self._read)

    def read_all(self) -> tuple[Entry, ...]:
        """Return all entries below the base with all attributes, also those unknown to us.

        A server that does not have the base yet has none.

        Raises
        ------
        DirectoryUnavailableError
            When no server can be asked, or they give only a part of the entries.
        """
        return self._servers.run(self._read_all)

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
        InterruptedChangesError
            When no server can be asked; whether it applied the present record is unknown.
        """
        done: list[Applied] = []
        for record in records:
            try:
                done.append(self._servers.run(partial(_apply, record=record), again=False))
            except DirectoryUnavailableError as error:
                raise InterruptedChangesError(error, tuple(done), record) from error
            if done[-1].refusal is not None and not go_on:
                break
        return tuple(done)

    def _fingerprint(self, connection: Any) -> str:  # noqa: ANN401 - ldap3 has no types
        search = partial(self._search_for_watch, connection)
        return self._watch.fingerprint(self._servers.in_use, (*_searches(), CERTIFICATES), search)

    def _search_for_watch(
        self,
        connection: Any,  # noqa: ANN401 - ldap3 has no types
        search: str,
        names: list[str],
        **where: Any,  # noqa: ANN401 - as _search
    ) -> list[Entry]:
        if search == CERTIFICATES:
            return self._read_certificates(connection, names)
        if search == CAPABILITIES:
            return self._read_capabilities(connection, names)
        return self._search(connection, search, names, **where)

    def _read(self, connection: Any) -> tuple[Entry, ...]:  # noqa: ANN401 - ldap3 has no types
        names = sorted({row.ldap for rows in TABLES.values() for row in rows} | {"objectClass"})
        entries = [
            entry for search in _searches() for entry in self._search(connection, search, names)
        ]
        self._certificates = certificate_names(entries, self._device_name)
        found = self._read_certificates(connection, ["objectClass", *CERTIFICATE_ATTRIBUTES])
        read = with_certificates(entries, found)
        return (*read, *self._read_capabilities(connection, names))

    def _read_certificates(self, connection: Any, names: list[str]) -> list[Entry]:  # noqa: ANN401 - ldap3 has no types
        """Read the entries that the own device refers to; those that cannot be read are left out.

        They can lie anywhere, so each is asked for by its name.
        """
        found: list[Entry] = []
        for dn in self._certificates:
            try:
                found += self._search(connection, "(objectClass=*)", names, below=dn, base=True)
            except (EmptyDirectoryError, WithheldError, LDAPInvalidDnError):
                continue  # `config check` names it
        return found

    def _read_all(self, connection: Any) -> tuple[Entry, ...]:  # noqa: ANN401 - ldap3 has no types
        try:
            return tuple(self._search(connection, "(objectClass=*)", ["*"]))
        except EmptyDirectoryError:
            return ()

    def _read_capabilities(self, connection: Any, names: list[str]) -> list[Entry]:  # noqa: ANN401 - ldap3 has no types
        """Read all transfer capabilities; piece by piece when a size limit cuts the answer."""
        try:
            return self._search(connection, CAPABILITIES, names)
        except SizeLimitError:
            aes = self._search(connection, "(objectClass=dicomNetworkAE)", ["objectClass"])
        return [
            entry
            for ae in aes
            for role in ("SCU", "SCP")
            for entry in self._search(
                connection, f"(&{CAPABILITIES}(dicomTransferRole={role}))", names, below=ae.dn
            )
        ]

    def _search(
        self,
        connection: Any,  # noqa: ANN401 - ldap3 has no types
        search: str,
        names: list[str],
        *,
        below: str | None = None,
        base: bool = False,
    ) -> list[Entry]:
        """Return all entries that a filter finds, page by page."""
        entries: list[Entry] = []
        cookie = None
        where = below or self._servers.base_dn
        while True:
            connection.search(
                where,
                search,
                BASE if base else SUBTREE,
                attributes=names,
                paged_size=_PAGE,
                paged_cookie=cookie,
            )
            result = connection.result
            check_result(result, f"searching {search[:60]} below {where}")
            entries.extend(_entries(connection.response))
            cookie = result.get("controls", {}).get(_PAGED, {}).get("value", {}).get("cookie")
            if not cookie:
                return entries


def _entries(response: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    for item in response:
        if item["type"] == "searchResEntry":
            raw = item["raw_attributes"]
            values = {name.lower(): tuple(raw[name]) for name in raw if raw[name]}
            yield Entry(item["dn"], values)


def _apply(connection: Any, record: Record) -> Applied:  # noqa: ANN401 - ldap3 has no types
    if isinstance(record, AddRecord) and not _has_class(record):
        return Applied(record, RefusedChangeError("add", 65, "no objectClass attribute"))
    operation, result = _send(connection, record), connection.result
    if result["result"] != 0:
        refusal = RefusedChangeError(operation, result["result"], result["message"])
        return Applied(record, refusal)
    return Applied(record)


def _has_class(record: AddRecord) -> bool:
    return any(name.lower() == "objectclass" for name, _ in record.attributes)


def _send(connection: Any, record: Record) -> str:  # noqa: ANN401 - ldap3 has no types
    """Send a change; return the name of the operation. The answer is the connection's result."""
    match record:
        case AddRecord():
            entry = Entry.of(record.dn, record.attributes)
            values = {name: list(values) for name, values in entry.attributes.items()}
            connection.add(record.dn, attributes=values)
            return "add"
        case ModifyRecord():
            connection.modify(record.dn, _changes(record))
            return "modify"
        case DeleteRecord():
            connection.delete(record.dn)
            return "delete"
        case RenameRecord():
            connection.modify_dn(
                record.dn,
                record.new_rdn,
                delete_old_dn=record.delete_old_rdn,
                new_superior=record.new_superior,
            )
            return "rename"


def _changes(record: ModifyRecord) -> dict[str, list[tuple[str, list[bytes]]]]:
    changes: dict[str, list[tuple[str, list[bytes]]]] = {}
    for one in record.modifications:
        change = (_CHANGE_TYPES[one.change], list(one.values))
        changes.setdefault(one.attribute, []).append(change)
    return changes
