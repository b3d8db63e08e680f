"""The directory's schema, and whether an entry obeys it (RFC 4512 §2.4).

The facts stand in `schema.json`: object identifiers, syntaxes and the attributes of each class,
exactly as directories of dcm4chee have them. Only the embedded directory checks with it; an LDAP
server has its own copy.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from archive.configuration.entries import Entry
from archive.configuration.names import Name
from archive.configuration.refusals import RefusedChangeError
from archive.errors import InvalidValueError

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_OBJECT_IDENTIFIER = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+|[A-Za-z][A-Za-z0-9-]*")
_OPERATIONAL = frozenset(
    {
        "contextcsn",
        "createtimestamp",
        "creatorsname",
        "entrycsn",
        "entrydn",
        "entryuuid",
        "hassubordinates",
        "modifiersname",
        "modifytimestamp",
        "structuralobjectclass",
        "subschemasubentry",
    }
)


@dataclass(frozen=True, slots=True)
class AttributeType:
    """An attribute type: `syntax` is the last arc below 1.3.6.1.4.1.1466.115.121.1."""

    name: str
    oid: str
    syntax: str
    equality: str = ""
    substr: str = ""
    single: bool = False
    builtin: bool = False


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """An object class; `kind` is structural, auxiliary or abstract."""

    name: str
    oid: str
    kind: str
    must: tuple[str, ...]
    may: tuple[str, ...]
    builtin: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """Attribute types and object classes by name in lower case.

    Attributes
    ----------
    exact
        Attributes whose values differ by case.
    lenient
        Whether attributes and classes that are not known may be there.
    """

    attributes: dict[str, AttributeType]
    classes: dict[str, ObjectClass]
    exact: frozenset[str]
    lenient: bool = False

    @property
    def spelling(self) -> dict[str, str]:
        """How attribute names in lower case are spelt."""
        return {name: attribute.name for name, attribute in self.attributes.items()}

    def attribute(self, name: str) -> AttributeType | None:
        """Return the type of an attribute, options such as `;lang-en` left aside."""
        return self.attributes.get(name.lower().partition(";")[0])

    def fold(self, name: str, value: bytes) -> bytes:
        """Return what is equal for values of `name` that the directory takes as the same."""
        attribute = self.attribute(name)
        if attribute is None or attribute.syntax in _OCTETS:
            return value
        text = " ".join(value.decode("utf-8", "replace").split(" ")).strip()
        if attribute.syntax == "12":
            return Name.parse(text).key(self.exact).encode()
        return (text if name.lower() in self.exact else text.lower()).encode()

    def check_values(self, operation: str, name: str, values: Iterable[bytes]) -> None:
        """Check that values may stand in the attribute `name`.

        Raises
        ------
        RefusedChangeError
            17 when there is no such attribute, 19 when the server keeps it, 21 when a value has
            the wrong form, 20 when a value is given twice.
        """
        attribute = self.attribute(name)
        if name.lower() in _OPERATIONAL:
            raise RefusedChangeError(operation, 19, f"{name}: no user modification allowed")
        if attribute is None:
            if self.lenient:
                return
            raise RefusedChangeError(operation, 17, f"{name}: attribute type undefined")
        seen: set[bytes] = set()
        for index, value in enumerate(values):
            if not self._has_syntax(attribute, value):
                info = f"{attribute.name}: value #{index} invalid per syntax"
                raise RefusedChangeError(operation, 21, f"{info}: {_show(value)}")
            folded = self.fold(name, value)
            if folded in seen:
                info = f"{attribute.name}: value #{index} provided more than once"
                raise RefusedChangeError(operation, 20, info)
            seen.add(folded)

    def check_entry(self, operation: str, entry: Entry) -> None:
        """Check a whole entry as it would be after a change.

        Raises
        ------
        RefusedChangeError
            65 for attributes missing or not allowed and for wrong object classes, 19 for several
            values where one is allowed, 64 when the naming value is missing.
        """
        for name, values in entry.attributes.items():
            attribute = self.attribute(name)
            if attribute is not None and attribute.single and len(values) > 1:
                info = f"attribute '{attribute.name}' cannot have multiple values"
                raise RefusedChangeError(operation, 19, info)
        classes = self._classes(operation, entry)
        for kind, value in Name.parse(entry.dn).parts[0]:
            present = {self.fold(kind, one) for one in entry.values(kind)}
            if self.fold(kind, value.encode()) not in present:
                info = f"value of naming attribute '{kind}' is not present in entry"
                raise RefusedChangeError(operation, 64, info)
        self._check_attributes(operation, entry, classes)

    def _classes(self, operation: str, entry: Entry) -> list[ObjectClass]:
        names = [text.strip() for text in entry.texts("objectClass")]
        if not names:
            raise RefusedChangeError(operation, 65, "no objectClass attribute")
        if self.lenient and not all(name.lower() in self.classes for name in names):
            return []
        classes = [self.classes[name.lower()] for name in names]
        structural = [one.name for one in classes if one.kind == "structural"]
        if not structural:
            raise RefusedChangeError(operation, 65, "no structural object class provided")
        if len(structural) > 1:
            info = f"invalid structural object class chain ({'/'.join(structural)})"
            raise RefusedChangeError(operation, 65, info)
        return classes

    def _check_attributes(self, operation: str, entry: Entry, classes: list[ObjectClass]) -> None:
        if not classes:
            return
        for one in classes:
            for name in one.must:
                if not entry.values(name):
                    info = f"object class '{one.name}' requires attribute '{name}'"
                    raise RefusedChangeError(operation, 65, info)
        allowed = {name.lower() for one in classes for name in (*one.must, *one.may)}
        for name in entry.attributes:
            base = name.partition(";")[0]
            is_foreign = self.lenient and base not in self.attributes
            if base not in allowed and base != "objectclass" and not is_foreign:
                info = f"attribute '{self.spelling.get(base, base)}' not allowed"
                raise RefusedChangeError(operation, 65, info)

    def _has_syntax(self, attribute: AttributeType, value: bytes) -> bool:
        if attribute.syntax in _OCTETS:
            return True
        try:
            text = value.decode("ascii" if attribute.syntax in _ASCII else "utf-8")
        except UnicodeDecodeError:
            return False
        if attribute.name == "objectClass":
            return self.lenient or text.strip().lower() in self.classes
        return _FORMS.get(attribute.syntax, bool)(text)


def _is_name(text: str) -> bool:
    try:
        Name.parse(text)
    except InvalidValueError:
        return False
    return True


def _show(value: bytes) -> str:
    return repr(value[:60].decode("utf-8", "replace"))


_OCTETS = frozenset({"5", "8", "9", "10", "40"})
_ASCII = frozenset({"26", "27", "7", "38"})
_FORMS: dict[str, Callable[[str], bool]] = {
    "7": lambda text: text in {"TRUE", "FALSE"},
    "12": _is_name,
    "27": lambda text: _INTEGER.fullmatch(text) is not None,
    "38": lambda text: _OBJECT_IDENTIFIER.fullmatch(text.strip()) is not None,
}


@cache
def load_schema() -> Schema:
    """Return the packaged schema."""
    data = json.loads(files("archive.configuration").joinpath("schema.json").read_text("utf-8"))
    attributes = [AttributeType(name=name, **facts) for name, facts in data["attributes"].items()]
    classes = [
        ObjectClass(
            name=name,
            **{**facts, "must": tuple(facts["must"]), "may": tuple(facts["may"])},
        )
        for name, facts in data["classes"].items()
    ]
    exact = frozenset(
        one.name.lower() for one in attributes if one.equality.startswith("caseExact")
    )
    return Schema(
        {one.name.lower(): one for one in attributes},
        {one.name.lower(): one for one in classes},
        exact,
    )
