"""Make the OpenLDAP schema from the facts in archive/configuration/schema.json.

Run it as `python deploy/ldap/make_schema.py`. It writes the form for slapd.conf (`include`) and
the one for cn=config (`ldapadd -Y EXTERNAL -H ldapi:///`). Object identifiers are those of DICOM
and dcm4che, so that data can be exchanged; a server that has dcm4chee's own schema must not load
this one as well. Descriptions are those of the attribute table. A test compares the files with
what it writes.
"""

import sys
import textwrap
from pathlib import Path

from archive.configuration.attributes import TABLES
from archive.configuration.schema import AttributeType, ObjectClass, Schema, load_schema

FOLDER = Path(__file__).resolve().parent / "schema"
SYNTAX = "1.3.6.1.4.1.1466.115.121.1."
HEADER = (
    "# LDAP schema of dicomq, made by deploy/ldap/make_schema.py from the facts in\n"
    "# archive/configuration/schema.json; edit those. Classes and attributes of DICOM PS3.15\n"
    "# Annex H and of the archive's extensions, with their registered object identifiers.\n"
)


def descriptions() -> dict[str, str]:
    """Return what the attribute table says of each attribute."""
    return {row.ldap.lower(): row.meaning for rows in TABLES.values() for row in rows}


def attribute_type(attribute: AttributeType, description: str) -> str:
    """Return the definition of an attribute type (RFC 4512 §4.1.2) in one line."""
    parts = [attribute.oid, f"NAME '{attribute.name}'"]
    if description:
        parts.append("DESC '{}'".format(description.replace("'", "")))
    if attribute.equality:
        parts.append(f"EQUALITY {attribute.equality}")
    if attribute.substr:
        parts.append(f"SUBSTR {attribute.substr}")
    parts.append(f"SYNTAX {SYNTAX}{attribute.syntax}")
    if attribute.single:
        parts.append("SINGLE-VALUE")
    return f"( {' '.join(parts)} )"


def object_class(one: ObjectClass) -> str:
    """Return the definition of an object class (RFC 4512 §4.1.1) in one line."""
    parts = [one.oid, f"NAME '{one.name}'", "SUP top", one.kind.upper()]
    for word, names in (("MUST", one.must), ("MAY", one.may)):
        if names:
            parts.append(f"{word} ( {' $ '.join(names)} )")
    return f"( {' '.join(parts)} )"


def definitions(schema: Schema) -> tuple[list[str], list[str]]:
    """Return the definitions of all attribute types and of all object classes."""
    meaning = descriptions()
    attributes = [
        attribute_type(one, meaning.get(name, ""))
        for name, one in schema.attributes.items()
        if not one.builtin
    ]
    return attributes, [object_class(one) for one in schema.classes.values() if not one.builtin]


def wrapped(text: str, first: str, indent: str) -> str:
    """Return a long definition in several lines: slapd reads no line above 8 KiB."""
    lines = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    return first + f"\n{indent}".join(lines) + "\n"


def files() -> dict[str, str]:
    """Return the files of the schema: name to text."""
    attributes, classes = definitions(load_schema())
    conf = [wrapped(text, "attributetype ", "  ") for text in attributes]
    conf += [wrapped(text, "objectclass ", "  ") for text in classes]
    ldif = ["dn: cn=dicomq,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: dicomq\n"]
    ldif += [wrapped(text, "olcAttributeTypes: ", "  ") for text in attributes]
    ldif += [wrapped(text, "olcObjectClasses: ", "  ") for text in classes]
    return {
        "dicomq.schema": HEADER + "\n" + "\n".join(conf),
        "dicomq.ldif": HEADER + "\n" + "".join(ldif),
    }


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER / name}\n")


if __name__ == "__main__":
    main()
