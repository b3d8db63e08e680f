import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.names import Name, same_name
from archive.errors import InvalidValueError


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("cn=dicom,dicomDeviceName=a", "CN=Dicom, DICOMDEVICENAME=A", True),
        ("cn=a  b", "cn=A b", True),
        ("a=1+b=2,c=3", "b=2+a=1,c=3", True),
        (r"cn=a\,b,c=3", r"cn=a\2cb,c=3", True),
        (r'cn="a,b",c=3', r"cn=a\,b,c=3", True),
        ("cn=\\c3\\a4", "cn=ä", True),
        ("cn=a,c=3", "cn=a,c=4", False),
        ("cn=a", "cn=a,c=3", False),
        ("not a name", "not a name", False),
    ],
)
def test_names_of_the_same_entry(first: str, second: str, *, same: bool) -> None:
    assert same_name(first, second) is same


def test_values_of_case_exact_attributes_differ_by_case() -> None:
    exact = frozenset({"dicomaetitle"})
    assert Name.parse("dicomAETitle=A").key(exact) != Name.parse("dicomaetitle=a").key(exact)


def test_below() -> None:
    assert Name.parse("a=1,b=2,c=3").is_below(Name.parse("B=2,C=3"))
    assert not Name.parse("b=2,c=3").is_below(Name.parse("b=2,c=3"))


@pytest.mark.parametrize("text", ["a", "a=", "=b", "a=1,,b=2", "1a=2", "a=1,b"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        Name.parse(text)


@given(st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=3))
def test_a_written_name_is_read_as_the_same(values: list[str]) -> None:
    name = Name(tuple((("cn", value),) for value in values))
    assert Name.parse(name.text()).key() == name.key()


@given(st.text() | st.from_regex(r'cn=(a|é|\\[,+"\\]|\\2[Cc]){1,6}', fullmatch=True))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        name = Name.parse(text)
    except InvalidValueError:
        return
    assert Name.parse(name.text()).key() == name.key()
