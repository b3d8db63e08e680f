"""What is recognized by the object before has to be what a walk finds."""

import struct
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import DatasetError
from scp.elements import WINDOW_LENGTH, Encoding, Source, walk
from scp.header import INDEXED_TAGS, PARENT_TAGS, Header, read_header
from scp.header_reader import HeaderReader
from scp.recurring import Recurring, cut

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
SYNTAXES = [IMPLICIT, EXPLICIT, BIG]
LONG = {"OB", "OW", "SQ", "UN"}

Values = dict[int, tuple[str, bytes]]
OBJECT: Values = {
    0x00080005: ("CS", b"ISO_IR 192"),
    0x00080016: ("UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    0x00080018: ("UI", b"1.2.3\0"),
    0x00081030: ("LO", b"Head"),
    0x00081140: ("SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00"),
    0x00091010: ("OB", b"abcd"),
    0x00100010: ("PN", b"Test^One"),
    0x0020000D: ("UI", b"1.2.4\0"),
    0x0020000E: ("UI", b"1.2.5\0"),
    0x00200013: ("IS", b"1 "),
    0x00280010: ("US", b"\0\2"),
    0x7FE00010: ("OW", bytes(64)),
}


def encoded(values: Values, syntax: str) -> bytes:
    """Return a data set."""
    return b"".join(_element(tag, *each, syntax) for tag, each in values.items())


def _element(tag: int, vr: str, value: bytes, syntax: str) -> bytes:
    order = ">" if syntax == BIG else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<L", len(value)) + value
    if vr in LONG:
        return head + vr.encode() + struct.pack(f"{order}HL", 0, len(value)) + value
    return head + vr.encode() + struct.pack(f"{order}H", len(value)) + value


def changed(**values: bytes) -> Values:
    """Return the object with other values, by tags such as `x00080018`."""
    tags = {int(tag[1:], 16): value for tag, value in values.items()}
    return OBJECT | {tag: (OBJECT[tag][0], value) for tag, value in tags.items()}


def undefined(items: bytes, syntax: str) -> bytes:
    """Return the object with a sequence of undefined length instead of its sequence."""
    whole = _element(0x00081140, "SQ", b"", syntax)[:-4] + b"\xff\xff\xff\xff" + items
    order = ">" if syntax == BIG else "<"
    whole += struct.pack(f"{order}HHL", 0xFFFE, 0xE0DD, 0)
    before = {tag: value for tag, value in OBJECT.items() if tag < 0x00081140}
    after = {tag: value for tag, value in OBJECT.items() if tag > 0x00081140}
    return encoded(before, syntax) + whole + encoded(after, syntax)


def item(value: bytes, syntax: str) -> bytes:
    """Return an item with one element."""
    element = _element(0x00081155, "UI", value, syntax)
    order = ">" if syntax == BIG else "<"
    return struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(element)) + element


def reading(raw: bytes) -> Callable[[int, int], bytes]:
    """Return what reads from a data set."""
    return lambda start, size: raw[start : start + size]


def read(
    raw: bytes, syntax: str, wanted: AbstractSet[int] | None, reader: HeaderReader | None
) -> Header | str:
    """Return the header of a data set, or why it is refused."""
    try:
        if reader is not None:
            return reader.read(reading(raw), len(raw), syntax)
        return read_header(reading(raw), len(raw), syntax, wanted)
    except DatasetError as error:
        return str(error)


def check_alike(
    objects: Sequence[bytes], syntax: str, wanted: AbstractSet[int] | None = INDEXED_TAGS
) -> HeaderReader:
    """Check that a reader makes of each object what `read_header` does."""
    reader = HeaderReader(wanted)
    for number, raw in enumerate(objects):
        found, expected = read(raw, syntax, wanted, reader), read(raw, syntax, wanted, None)
        if isinstance(found, Header) and isinstance(expected, Header):
            assert list(found.elements.items()) == list(expected.elements.items()), number
            assert found.parents() == expected.parents(), number
            assert found.encoding == expected.encoding
        else:
            assert found == expected, number
    return reader


def match_after(objects: Sequence[bytes], raw: bytes, syntax: str) -> int | None:
    """Return how far `raw` is recognized after `objects`."""
    encoding = Encoding(syntax == IMPLICIT, syntax != BIG)
    recurring = Recurring(encoding, INDEXED_TAGS)
    for each in objects:
        starts: list[int] = []
        elements = walk(Source(reading(each), len(each)), encoding, INDEXED_TAGS, starts=starts)
        assert recurring.learn(cut(each[:WINDOW_LENGTH], starts), elements)
    beginning = recurring.match(raw[:WINDOW_LENGTH])
    return beginning and beginning.position


SIBLINGS = [
    changed(x00080018=b"1.2.3\0", x00200013=b"1 "),
    changed(x00080018=b"1.2.33", x00200013=b"2 "),
    changed(x00080018=b"1.2.3333333333", x00200013=b""),
    changed(x00080018=b"1.2.3\0", x00091010=b"abcdefgh", x00081140=b""),
    changed(x00080018=b"1.2.9\0", x00091010=b"", x00081140=b"\xfe\xff\x00\xe0\x00\x00\x00\x00"),
    changed(x00080018=b"1.2.8\0", x00081030=b"Foot"),
    changed(x00080018=b"1.2.8\0", x0020000E=b"1.2.6\0"),
    changed(x00080018=b"1.2.9\0", x0020000E=b"1.2.6\0"),
    {tag: value for tag, value in OBJECT.items() if tag != 0x00200013},
    changed(x00080018=b"1.2.10"),
    changed(x00080018=b"1.2.3\0", x7FE00010=b""),
]


@pytest.mark.parametrize(("syntax", "wanted"), list(product(SYNTAXES, [INDEXED_TAGS, None])))
def test_siblings(syntax: str, wanted: AbstractSet[int] | None) -> None:
    check_alike([encoded(each, syntax) for each in SIBLINGS], syntax, wanted)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_third_sibling_is_recognized_up_to_its_pixel_data(syntax: str) -> None:
    first, second, third = (encoded(each, syntax) for each in SIBLINGS[:3])
    pixels = len(_element(*(0x7FE00010, *OBJECT[0x7FE00010]), syntax))
    assert match_after([first], second, syntax) is None
    assert match_after([first, second], third, syntax) == len(third) - pixels
    reader = check_alike([first, second, third], syntax)
    header = read(third, syntax, INDEXED_TAGS, reader)
    assert isinstance(header, Header)
    assert header.known_parents is not None
    assert not PARENT_TAGS & {0x00080018, 0x00200013}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_sequences_of_undefined_length(syntax: str) -> None:
    objects = [undefined(item(uid, syntax), syntax) for uid in (b"1.2.3\0", b"1.2.33", b"1.2\0")]
    start = objects[0].index(_element(0x00081140, "SQ", b"", syntax)[:-4])
    assert match_after(objects[:2], objects[2], syntax) == start
    check_alike([*objects, undefined(b"", syntax), objects[0], objects[0][:start]], syntax)


@pytest.mark.parametrize("length", range(WINDOW_LENGTH - 60, WINDOW_LENGTH + 20, 2))
def test_elements_at_the_end_of_the_window(length: int) -> None:
    fill = {0x00091010: ("UN", bytes(length - 150))}
    values = [OBJECT | fill | {0x00080018: ("UI", uid)} for uid in (b"1.2.3\0", b"1.2.33", b"1.\0")]
    check_alike([encoded(each, EXPLICIT) for each in values], EXPLICIT)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_last_value_that_is_cut(syntax: str) -> None:
    numbers = (b"1 ", b"2 ", b"12345678")
    first, second, third = (encoded({0x00200013: ("IS", each)}, syntax) for each in numbers)
    cuts = [third[:length] for length in range(len(third))]
    check_alike([first, second, *cuts, third], syntax)
    assert match_after([first, second], third, syntax) == len(third)
    assert match_after([first, second], third[:-1], syntax) is None


def test_kinds_of_objects_in_turn() -> None:
    kinds = [
        {tag: value for tag, value in OBJECT.items() if tag not in left_out}
        for left_out in ({0}, {0x00081030}, {0x00200013}, {0x00100010}, {0x00091010})
    ]
    objects = [
        encoded(kind | {0x00080018: ("UI", b"1.2.%d" % number)}, EXPLICIT)
        for count in range(1, len(kinds) + 1)
        for number, kind in enumerate(4 * kinds[:count])
    ]
    check_alike(objects, EXPLICIT)


def test_an_element_that_comes_twice() -> None:
    def twice(uid: bytes, second: bytes) -> bytes:
        values = encoded({0x00080018: ("UI", uid), 0x00080060: ("CS", b"CT")}, EXPLICIT)
        return values + encoded({0x00080018: ("UI", second)}, EXPLICIT)

    uids = [(b"1.2\0", b"1.3\0"), (b"1.4\0", b"1.3\0"), (b"1.5\0", b"1.5\0"), (b"1.5\0", b"1.6\0")]
    check_alike([twice(*each) for each in uids], EXPLICIT)


def test_other_transfer_syntaxes_in_between() -> None:
    reader = HeaderReader(INDEXED_TAGS)
    for values, syntax in product(SIBLINGS, SYNTAXES):
        raw = encoded(values, syntax)
        found, expected = (read(raw, syntax, INDEXED_TAGS, each) for each in (reader, None))
        assert isinstance(found, Header)
        assert isinstance(expected, Header)
        assert found.elements == expected.elements


@given(
    st.sampled_from(SYNTAXES),
    st.lists(
        st.tuples(
            st.sampled_from(SIBLINGS),
            st.one_of(st.none(), st.tuples(st.integers(0, 400), st.binary(max_size=6))),
        ),
        max_size=8,
    ),
)
def test_damaged_siblings(
    syntax: str, objects: Sequence[tuple[Values, tuple[int, bytes] | None]]
) -> None:
    raw = []
    for values, damage in objects:
        data = bytearray(encoded(values, syntax))
        if damage is not None:
            at, piece = damage
            data[at : at + len(piece) // 2] = piece
        raw.append(bytes(data))
    check_alike([encoded(SIBLINGS[0], syntax), encoded(SIBLINGS[1], syntax), *raw], syntax)
