"""What change records do to a table of entries (RFC 4511 §4.6-§4.9).

Pure: the table is changed in memory only, a record whole or not at all.
"""

from collections.abc import Iterable

from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.configuration.records import (
    AddRecord,
    Change,
    DeleteRecord,
    Modification,
    ModifyRecord,
    Record,
    RenameRecord,
)
from archive.configuration.refusals import RefusedChangeError
from archive.configuration.schema import Schema
from archive.errors import InvalidValueError


class EntryTable:
    """Entries by name, kept to a schema.

    Parameters
    ----------
    schema
        What entries have to obey.
    entries
        What is in the directory; these are taken as they are.
    """

    def __init__(self, schema: Schema, entries: Iterable[Entry] = ()) -> None:
        self._schema = schema
        self._entries = {self._key(entry.dn): entry for entry in entries}

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, each below those that it depends on."""
        return tuple(self._entries.values())

    def apply(self, record: Record) -> None:
        """Apply one change record.

        Raises
        ------
        RefusedChangeError
            With the code that an LDAP server would give; the table is as before.
        """
        match record:
            case AddRecord():
                self._add(record)
            case ModifyRecord():
                self._modify(record)
            case DeleteRecord():
                self._delete(record)
            case RenameRecord():
                self._rename(record)

    def _key(self, dn: str) -> str:
        return Name.parse(dn).key(self._schema.exact)

    def _add(self, record: AddRecord) -> None:
        entry = _with_naming_values(Entry.of(record.dn, record.attributes), self._schema)
        for name, values in entry.attributes.items():
            self._schema.check_values("add", name, values)
        self._schema.check_entry("add", entry)
        key = self._key(record.dn)
        if key in self._entries:
            msg = "add"
            raise RefusedChangeError(msg, 68)
        self._check_parent("add", Name.parse(record.dn).parent)
        self._entries[key] = entry

    def _check_parent(self, operation: str, parent: Name) -> None:
        if not self._entries or parent.key(self._schema.exact) in self._entries:
            return
        roots = [Name.parse(entry.dn) for entry in self._entries.values()]
        least = min(root.depth for root in roots)
        if parent.depth < least:
            raise RefusedChangeError(operation, 53, "no global superior knowledge")
        raise RefusedChangeError(operation, 32, f"there is no entry {parent.text()}")

    def _find(self, operation: str, dn: str) -> Entry:
        entry = self._entries.get(self._key(dn))
        if entry is None:
            raise RefusedChangeError(operation, 32, f"there is no entry {dn}")
        return entry

    def _modify(self, record: ModifyRecord) -> None:
        for change in record.modifications:
            self._schema.check_values("modify", change.attribute, change.values)
        entry = self._find("modify", record.dn)
        attributes = dict(entry.attributes)
        for change in record.modifications:
            self._change(attributes, change)
        changed = Entry(entry.dn, attributes)
        self._schema.check_entry("modify", changed)
        self._entries[self._key(record.dn)] = changed

    def _change(self, attributes: dict[str, tuple[bytes, ...]], change: Modification) -> None:
        name = change.attribute.lower()
        present = attributes.get(name, ())
        result = change.values
        if change.change is Change.ADD:
            result = self._added(change, present)
        elif change.change is Change.DELETE:
            result = self._deleted(change, present)
        if result:
            attributes[name] = result
        else:
            attributes.pop(name, None)

    def _added(self, change: Modification, present: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if not change.values:
            msg = "modify"
            raise RefusedChangeError(msg, 2, f"modify/add: {change.attribute} has no values")
        held = {self._schema.fold(change.attribute, value) for value in present}
        for index, value in enumerate(change.values):
            if self._schema.fold(change.attribute, value) in held:
                info = f"modify/add: {change.attribute}: value #{index} already exists"
                msg = "modify"
                raise RefusedChangeError(msg, 20, info)
        return (*present, *change.values)

    def _deleted(self, change: Modification, present: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if not present:
            info = f"modify/delete: {change.attribute}: no such attribute"
            msg = "modify"
            raise RefusedChangeError(msg, 16, info)
        attribute = self._schema.attribute(change.attribute)
        if change.values and attribute is not None and not attribute.equality:
            info = f"modify/delete: {change.attribute}: no equality matching rule"
            msg = "modify"
            raise RefusedChangeError(msg, 18, info)
        gone = {self._schema.fold(change.attribute, value) for value in change.values}
        held = {self._schema.fold(change.attribute, value) for value in present}
        if not gone <= held:
            info = f"modify/delete: {change.attribute}: no such value"
            msg = "modify"
            raise RefusedChangeError(msg, 16, info)
        if not gone:
            return ()
        return tuple(
            value for value in present if self._schema.fold(change.attribute, value) not in gone
        )

    def _delete(self, record: DeleteRecord) -> None:
        self._find("delete", record.dn)
        name = Name.parse(record.dn)
        if any(
            Name.parse(entry.dn).is_below(name, self._schema.exact)
            for entry in self._entries.values()
        ):
            msg = "delete"
            raise RefusedChangeError(msg, 66, "subordinate objects must be deleted first")
        del self._entries[self._key(record.dn)]

    def _rename(self, record: RenameRecord) -> None:
        entry = self._find("rename", record.dn)
        old, new = Name.parse(record.dn), self._new_name(record)
        key = new.key(self._schema.exact)
        if key in self._entries and key != self._key(record.dn):
            msg = "rename"
            raise RefusedChangeError(msg, 68)
        self._check_parent("rename", new.parent)
        if new.is_below(old, self._schema.exact):
            msg = "rename"
            raise RefusedChangeError(msg, 53, "an entry cannot be moved below itself")
        renamed = self._renamed(entry, new, delete_old=record.delete_old_rdn)
        moved = {self._key(record.dn): renamed}
        for key, below in self._entries.items():
            name = Name.parse(below.dn)
            if name.is_below(old, self._schema.exact):
                kept = Name((*name.parts[: name.depth - old.depth], *new.parts))
                moved[key] = Entry(kept.text(), below.attributes)
        entries = [moved.get(key, one) for key, one in self._entries.items()]
        entries.sort(key=lambda one: Name.parse(one.dn).depth)
        self._entries = {self._key(one.dn): one for one in entries}

    def _new_name(self, record: RenameRecord) -> Name:
        try:
            rdn = Name.parse(record.new_rdn)
            superior = (
                Name.parse(record.dn).parent
                if record.new_superior is None
                else Name.parse(record.new_superior)
            )
        except InvalidValueError as error:
            msg = "rename"
            raise RefusedChangeError(msg, 34, str(error)) from error
        if rdn.depth != 1:
            msg = "rename"
            raise RefusedChangeError(msg, 34, f"newrdn {record.new_rdn} is not one name part")
        return Name((*rdn.parts, *superior.parts))

    def _renamed(self, entry: Entry, new: Name, *, delete_old: bool) -> Entry:
        attributes = dict(entry.attributes)
        if delete_old:
            for kind, value in Name.parse(entry.dn).parts[0]:
                fold = self._schema.fold(kind, value.encode())
                kept = tuple(
                    one
                    for one in attributes.get(kind.lower(), ())
                    if self._schema.fold(kind, one) != fold
                )
                attributes[kind.lower()] = kept
        renamed = _with_naming_values(
            Entry(new.text(), {name: values for name, values in attributes.items() if values}),
            self._schema,
        )
        for name, values in renamed.attributes.items():
            self._schema.check_values("rename", name, values)
        self._schema.check_entry("rename", renamed)
        return renamed


def _with_naming_values(entry: Entry, schema: Schema) -> Entry:
    """Return the entry with the values of its relative name among its attributes."""
    attributes = dict(entry.attributes)
    for kind, value in Name.parse(entry.dn).parts[0]:
        present = attributes.get(kind.lower(), ())
        if schema.fold(kind, value.encode()) not in {schema.fold(kind, one) for one in present}:
            attributes[kind.lower()] = (*present, value.encode())
    return Entry(entry.dn, attributes)
