import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0),
        ("PT5M", 300),
        ("P1D", 86400),
        ("P1DT2H3M4S", 93784),
        ("pt1h", 3600),
        ("PT0.5S", 0.5),
        ("PT0,5S", 0.5),
        ("PT90M", 5400),
        ("P0DT1S", 1),
    ],
)
def test_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "1D",
        "P1Y",
        "P1M",
        "P1W",
        "-PT1S",
        "PT-1S",
        "PT1.5M",
        "PT1S ",
        "P1D1H",
        "PT1S1M",
        "P999999D",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_duration(text)


@given(st.integers(0, 36525 * 86400 * 1000))
def test_a_written_duration_is_read_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
