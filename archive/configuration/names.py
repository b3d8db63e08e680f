"""Distinguished names: parsing, comparing and writing them (RFC 4514)."""

import re
from dataclasses import dataclass

from archive.errors import InvalidValueError

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+")
_ESCAPE = re.compile(rb"\\(?:([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_SPECIAL = frozenset(',+"\\<>;=')
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Name:
    """A distinguished name, most specific part first.

    Attributes
    ----------
    parts
        The relative names; each a tuple of (attribute type, value) pairs.
    """

    parts: tuple[tuple[tuple[str, str], ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Name":
        """Read a distinguished name.

        Raises
        ------
        InvalidValueError
            When `text` is not one.
        """
        pieces = _split(text, ",;") if text.strip() else []
        parts = [tuple(_parse_pair(pair, text) for pair in _split(part, "+")) for part in pieces]
        return cls(tuple(parts))

    @property
    def parent(self) -> "Name":
        """The name one level up; of a one-part name, the empty name."""
        return Name(self.parts[1:])

    @property
    def depth(self) -> int:
        """Number of parts."""
        return len(self.parts)

    def key(self, exact: frozenset[str] = frozenset()) -> str:
        """Return a text that is equal for names of the same entry.

        Parameters
        ----------
        exact
            Attribute types, in lower case, whose values differ by case.
        """
        return ",".join(
            "+".join(sorted(f"{kind.lower()}={_fold(kind, value, exact)}" for kind, value in part))
            for part in self.parts
        )

    def is_below(self, other: "Name", exact: frozenset[str] = frozenset()) -> bool:
        """Tell whether this name lies anywhere below `other`."""
        above = Name(self.parts[len(self.parts) - len(other.parts) :])
        return self.depth > other.depth and above.key(exact) == other.key(exact)

    def text(self) -> str:
        """Return the name as it is written."""
        return ",".join(
            "+".join(f"{kind}={_escape(value)}" for kind, value in part) for part in self.parts
        )


def same_name(first: str, second: str) -> bool:
    """Tell whether two texts are the same distinguished name, whatever case they are in."""
    try:
        return Name.parse(first).key() == Name.parse(second).key()
    except InvalidValueError:
        return False


def _fold(kind: str, value: str, exact: frozenset[str]) -> str:
    folded = _escape(_BLANKS.sub(" ", value.strip()))
    return folded if kind.lower() in exact else folded.lower()


def _split(text: str, separators: str) -> list[str]:
    """Split at separators that are neither escaped nor inside quotation marks."""
    pieces, start, position, quoted = [], 0, 0, False
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == '"':
            quoted = not quoted
        elif text[position] in separators and not quoted:
            pieces.append(text[start:position])
            start = position + 1
        position += 1
    return [*pieces, text[start:]]


def _parse_pair(text: str, whole: str) -> tuple[str, str]:
    kind, separator, value = text.partition("=")
    kind = kind.strip()
    if not separator or not _TYPE.fullmatch(kind) or not value.strip():
        msg = f"{whole[:200]!r} is not a distinguished name: {text.strip()[:80]!r} is no type=value"
        raise InvalidValueError(msg)
    return kind, _unescape(value)


def _unescape(text: str) -> str:
    """Return the value that `text` stands for, without quotation marks and escapes."""
    stripped = text.strip(" ")
    if stripped.endswith("\\") and text.endswith(" "):
        stripped += " "
    if stripped[:1] == '"' and stripped[-1:] == '"' and len(stripped) > 1:
        stripped = stripped[1:-1]
    octets = _ESCAPE.sub(
        lambda match: bytes.fromhex(match[1].decode()) if match[1] else match[2],
        stripped.encode("utf-8", "surrogatepass"),
    )
    return octets.decode("utf-8", "replace")


def _escape(value: str) -> str:
    escaped = "".join(f"\\{char}" if char in _SPECIAL else char for char in value)
    escaped = escaped.replace("\0", "\\00")
    if escaped[:1] in {" ", "#"}:
        escaped = f"\\{escaped}"
    return f"{escaped[:-1]}\\ " if value.endswith(" ") and len(value) > 1 else escaped
