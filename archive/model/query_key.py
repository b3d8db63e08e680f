"""A key of a query: an attribute and the values that are asked for. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """A key of an identifier.

    Attributes
    ----------
    values
        Its values as text without padding; those that are empty are left out.
    items
        Keys of the first item of a sequence; None when it has no item or is no sequence.
    """

    tag: int
    vr: str
    values: tuple[str, ...] = ()
    items: "tuple[Key, ...] | None" = None
