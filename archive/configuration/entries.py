"""Entries of a directory as they are read: a name and attributes with values of bytes."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes
    ----------
    dn
        Distinguished name as the directory spells it.
    attributes
        Values by attribute name in lower case: names of attributes have no case.
    """

    dn: str
    attributes: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, dn: str, pairs: Iterable[tuple[str, bytes]]) -> "Entry":
        """Make an entry of attribute names, in any case, with one value each."""
        collected: dict[str, list[bytes]] = {}
        for name, value in pairs:
            collected.setdefault(name.lower(), []).append(value)
        return cls(dn, {name: tuple(values) for name, values in collected.items()})

    def values(self, name: str) -> tuple[bytes, ...]:
        """Return the values of the attribute `name`, in any case; nothing when it is absent."""
        return self.attributes.get(name.lower(), ())

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of the attribute `name` as text; what is not UTF-8 is replaced."""
        return tuple(value.decode("utf-8", "replace") for value in self.values(name))

    def has_class(self, name: str) -> bool:
        """Tell whether the entry is of the object class `name`, in any case."""
        return name.lower() in {text.strip().lower() for text in self.texts("objectClass")}
