"""UIDs and AE titles as peers and administrators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.identifiers import check_ae_title, check_uid, is_strict_uid, new_uid


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3\0", "1.2.3"),
        ("1.2.3 ", "1.2.3"),
        ("1.02.3", "1.02.3"),
        ("9" * 64, "9" * 64),
    ],
)
def test_usable_uids(text: str, uid: str) -> None:
    """Padding is dropped; leading zeros are met in practice and pass."""
    assert check_uid(text) == uid


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1..2",
        ".1",
        "1.",
        "1.2.a",
        "../../etc/passwd",
        "1.2/3",
        "1.2\n3",
        "1" * 65,
        "\uff11.2",
        "*",
    ],
)
def test_unusable_uids(text: str) -> None:
    """Whatever could become a path, a wildcard or a lie is refused with the element's name."""
    with pytest.raises(InvalidValueError, match="StudyInstanceUID"):
        check_uid(text, "StudyInstanceUID")


def test_new_uids_are_strict_and_differ() -> None:
    """UIDs of our own obey every rule of the standard."""
    uids = {new_uid() for _ in range(1000)}
    assert len(uids) == 1000
    assert all(is_strict_uid(uid) for uid in uids)


@pytest.mark.parametrize(
    ("uid", "strict"), [("1.2", True), ("1.02", False), ("1", False), ("0.0", True)]
)
def test_strictness(uid: str, *, strict: bool) -> None:
    """PS3.5 §9.1 forbids leading zeros."""
    assert is_strict_uid(uid) is strict


@pytest.mark.parametrize(
    ("text", "title"), [("STORESCP", "STORESCP"), ("  A B  ", "A B"), ("x" * 16, "x" * 16)]
)
def test_usable_ae_titles(text: str, title: str) -> None:
    """Surrounding blanks are not significant (PS3.5 §6.2)."""
    assert check_ae_title(text) == title


@given(st.text(max_size=40))
def test_ae_title_never_passes_control_characters(text: str) -> None:
    """What passes is printable, short and free of backslashes."""
    try:
        title = check_ae_title(text)
    except InvalidValueError:
        return
    assert 1 <= len(title) <= 16
    assert title.isascii()
    assert title.isprintable()
    assert "\\" not in title
