"""The shape of the directory: where devices are, and what lies one level below what."""

from collections.abc import Iterable

from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.errors import ConfigurationError, InvalidValueError


class Tree:
    """Entries by the entry they lie below.

    The configuration root is searched for, so that the base DN of a directory is free.

    Raises
    ------
    ConfigurationError
        When there is no configuration root with a container of devices below it.
    """

    def __init__(self, entries: Iterable[Entry], exact: frozenset[str]) -> None:
        self._exact = exact
        self._below: dict[str, list[Entry]] = {}
        self._entries: dict[str, Entry] = {}
        roots: list[Entry] = []
        for entry in sorted(entries, key=lambda one: one.dn):
            if entry.has_class("dicomConfigurationRoot"):
                roots.append(entry)
            try:
                name = Name.parse(entry.dn)
            except InvalidValueError:
                continue
            self._entries[name.key(exact)] = entry
            parent = name.parent.key(exact)
            self._below.setdefault(parent, []).append(entry)
        self._containers = [one for root in roots for one in self.below(root, "dicomDevicesRoot")]
        if not self._containers:
            msg = (
                "the directory has no entry of class dicomConfigurationRoot with an entry of class "
                "dicomDevicesRoot below it: import the default directory, or correct the base DN"
            )
            raise ConfigurationError(msg)

    def find(self, dn: str) -> Entry | None:
        """Return the entry of a name; None when there is none, or it is no name."""
        try:
            return self._entries.get(Name.parse(dn).key(self._exact))
        except InvalidValueError:
            return None

    def below(self, entry: Entry, object_class: str) -> tuple[Entry, ...]:
        """Return the entries of an object class that lie one level below `entry`."""
        children = self._below.get(Name.parse(entry.dn).key(self._exact), [])
        return tuple(one for one in children if one.has_class(object_class))

    def devices(self) -> tuple[Entry, ...]:
        """Return the entries of all devices."""
        return tuple(
            device
            for container in self._containers
            for device in self.below(container, "dicomDevice")
        )
