import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.entries import Entry
from archive.configuration.ldif import LdifSyntaxError, parse_ldif, write_ldif
from archive.configuration.records import (
    AddRecord,
    Change,
    DeleteRecord,
    Modification,
    ModifyRecord,
    RenameRecord,
)


def records(text: str) -> tuple[object, ...]:
    return parse_ldif(text.encode()).records


def test_content_and_change_records() -> None:
    text = """version: 1
# a comment
#  with a folded
 line
dn: cn=a,dc=x
objectClass: top
description: folded
  text

dn:: Y249YixkYz14
changetype: add
cn: b
data:: AAH/

dn: cn=a,dc=x
changetype: modify
add: description
description: one
description: two
-
delete: cn
-
replace: o

dn: cn=b,dc=x
changetype: delete

dn: cn=a,dc=x
changetype: modrdn
newrdn: cn=c
deleteoldrdn: 1
newsuperior: ou=y
"""
    assert records(text) == (
        AddRecord("cn=a,dc=x", 5, (("objectClass", b"top"), ("description", b"folded text"))),
        AddRecord("cn=b,dc=x", 10, (("cn", b"b"), ("data", b"\0\1\xff"))),
        ModifyRecord(
            "cn=a,dc=x",
            15,
            (
                Modification(Change.ADD, "description", (b"one", b"two")),
                Modification(Change.DELETE, "cn", ()),
                Modification(Change.REPLACE, "o", ()),
            ),
        ),
        DeleteRecord("cn=b,dc=x", 25),
        RenameRecord("cn=a,dc=x", 28, "cn=c", delete_old_rdn=True, new_superior="ou=y"),
    )


MODIFY = "dn: cn=a\nchangetype: modify\nadd: o\no: 1\n"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("version: 1\ndn: cn=a\no: 1\n", 1),
        ("dn: cn=a\no: 1\n-\n", 1),
        ("version: 1\n\ndn: cn=a\no: 1\n\n\n\ndn: cn=b\no: 1", 2),
        (MODIFY + "-\n", 1),
        (MODIFY + "-\n\ndn: cn=b\no: 1\n", 2),
        (MODIFY + "-\ndn: cn=b\no: 1\n", 2),
        (MODIFY.replace("\n", "\r\n") + "-\r\n", 1),
        ("\ufeff" + MODIFY, 1),
        (MODIFY + "- \n", 1),
        ("# nothing\n", 0),
        ("", 0),
        ("dn: cn=a\no: 1\n   \ndn: cn=b\no: 2\n", 2),
        ("dn: cn=a\n#dn: cn=b\no: 1\n", 1),
        ("dn: cn=ä\no: ö\n", 1),
    ],
)
def test_tolerated(text: str, count: int) -> None:
    assert len(records(text)) == count


def test_hyphen_below_an_added_entry_is_noted() -> None:
    (note,) = parse_ldif(b"dn: cn=a\no: 1\n-\n\ndn: cn=b\no: 1\n").notes
    assert note.startswith("line 3: '-' closes no modification")
    assert parse_ldif(MODIFY.encode() + b"-\n").notes == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("dn: cn=a\no: 1\n-\no: 2\n", 3, "delete the line"),
        (MODIFY + "add: p\np: 1\n", 5, "'-' is missing"),
        (MODIFY + "p: 1\n", 5, "of o, not of p"),
        (MODIFY + "-\nnonsense: p\n", 6, "expected add:"),
        (MODIFY + "-\n-\n", 6, "without a modification"),
        (MODIFY + "dn: cn=b\no: 1\n", 5, "blank line"),
        ("dn: cn=a\no: 1\ndn: cn=b\no: 1\n", 3, "blank line"),
        ("dn: cn=a\nadd: o\no: 1\n", 2, "changetype: modify"),
        ("dn: cn=a\nchangetype: replace\no: 1\n", 2, "none of add, modify"),
        ("dn: cn=a\n\no: 1\n", 1, "no attributes"),
        ("o: 1\ndn: cn=a\n", 1, "begins with dn:"),
        ("dn: cn=a\n: 1\n", 2, "attribute: value"),
        ("dn: cn=a\no 1\n", 2, "attribute: value"),
        ("dn: cn=a\no:: !\n", 2, "base64"),
        ("dn: cn=a\no:< file:///etc/passwd\n", 2, "URL"),
        ("dn: nonsense\no: 1\n", 1, "distinguished name"),
        ("version: 2\ndn: cn=a\no: 1\n", 1, "version 1"),
        ("dn: cn=a\nchangetype: delete\no: 1\n", 3, "changetype: delete"),
        ("dn: cn=a\nchangetype: modrdn\nnewrdn: cn=b\n", 1, "deleteoldrdn"),
        ("dn: cn=a\ncontrol: 1.2.3\no: 1\n", 2, "controls"),
        (" dn: cn=a\no: 1\n", 1, "begins with a blank"),
    ],
)
def test_refused_with_line_and_reason(text: str, line: int, words: str) -> None:
    with pytest.raises(LdifSyntaxError) as caught:
        records(text)
    assert str(caught.value).startswith(f"line {line}: ")
    assert words in str(caught.value)


def test_every_wrong_record_is_named() -> None:
    with pytest.raises(LdifSyntaxError, match=r"line 2: .*; line 5: "):
        records("dn: cn=a\no 1\n\ndn: cn=b\np 1\n")


def test_bytes_that_are_not_utf8_are_located() -> None:
    with pytest.raises(LdifSyntaxError, match="line 2: byte 0xe4"):
        parse_ldif(b"dn: cn=a\no: \xe4\n")


def test_text_copied_from_an_indented_block_is_read_with_a_note() -> None:
    text = "".join(f"      {line}\n" for line in MODIFY.splitlines()) + "    \n"
    parsed = parse_ldif(text.encode())
    assert len(parsed.records) == 1
    assert "indented by 6" in parsed.notes[0]


NAMES = st.sampled_from(["cn", "description", "dcmuri", "dicomvendordata"])
VALUES = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
ENTRIES = st.builds(
    Entry,
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1).map("cn={}".format),
    st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple), min_size=1),
)


@given(st.lists(ENTRIES, max_size=4))
def test_written_entries_are_read_as_the_same(entries: list[Entry]) -> None:
    parsed = parse_ldif(write_ldif(entries))
    assert [
        Entry.of(one.dn, one.attributes) for one in parsed.records if isinstance(one, AddRecord)
    ] == entries


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        parsed = parse_ldif(text.encode("utf-8", "surrogatepass"))
    except LdifSyntaxError:
        return
    lines = [record.line for record in parsed.records]
    assert lines == sorted(set(lines))
    assert all(record.dn for record in parsed.records)
