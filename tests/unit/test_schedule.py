from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.schedule import Schedule

VIENNA = ZoneInfo("Europe/Vienna")
MONDAY = datetime(2024, 1, 1, tzinfo=VIENNA)


def schedule(*values: str, zone: ZoneInfo = VIENNA) -> Schedule:
    return Schedule.parse(values).in_zone(zone)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """Return a time in the week that begins on Monday (day 1)."""
    return MONDAY + timedelta(days=day - 1, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("values", "instant", "inside"),
    [
        ([], at(1, 3), True),
        (["hour=*"], at(1, 3), True),
        (["hour=18-6 dayOfWeek=*"], at(1, 17, 59), False),
        (["hour=18-6 dayOfWeek=*"], at(1, 18), True),
        (["hour=18-6 dayOfWeek=*"], at(1, 6, 59), True),
        (["hour=18-6 dayOfWeek=*"], at(1, 7), False),
        (["hour=18-6 dayOfWeek=5"], at(5, 23), True),
        (["hour=18-6 dayOfWeek=5"], at(6, 1), False),
        (["hour=18-6 dayOfWeek=5"], at(5, 1), True),
        (["dayOfWeek=0,6"], at(6, 12), True),
        (["dayOfWeek=0,6"], at(7, 12), True),
        (["dayOfWeek=0,6"], at(1, 12), False),
        (["dayOfWeek=5-1"], at(7, 12), True),
        (["dayOfWeek=5-1"], at(2, 12), False),
        (["dayOfWeek=1 hour=3"], at(1, 3, 30), True),
        (["hour=1,3-5"], at(1, 2), False),
        (["hour=1", "hour=3"], at(1, 3), True),
        (["hour=8-8"], at(1, 8, 59), True),
    ],
)
def test_contains(values: list[str], instant: datetime, *, inside: bool) -> None:
    assert schedule(*values).contains(instant) is inside


@pytest.mark.parametrize(
    ("values", "instant", "expected"),
    [
        (["hour=18-6 dayOfWeek=*"], at(1, 15, 20), at(1, 18)),
        (["hour=18-6 dayOfWeek=*"], at(1, 19, 20), at(1, 19, 20)),
        (["hour=8-10 dayOfWeek=1"], at(1, 15, 20), at(8, 8)),
        (["hour=8-10 dayOfWeek=2"], at(1, 15, 20), at(2, 8)),
        (["hour=18-6", "dayOfWeek=0,6"], at(5, 12), at(5, 18)),
        (["hour=23 dayOfWeek=1", "hour=2 dayOfWeek=2"], at(2, 0), at(2, 2)),
    ],
)
def test_ceil_is_the_next_open_instant(
    values: list[str], instant: datetime, expected: datetime
) -> None:
    assert schedule(*values).ceil(instant) == expected


def test_hours_that_a_clock_change_leaves_out_come_the_week_after() -> None:
    # 2024-03-31 has no 02:00-02:59 in Vienna
    sunday = datetime(2024, 3, 31, 0, 30, tzinfo=VIENNA)
    found = schedule("hour=2 dayOfWeek=0").ceil(sunday)
    assert found == datetime(2024, 4, 7, 2, tzinfo=VIENNA)


def test_half_hour_zones_open_at_their_own_hour() -> None:
    zone = ZoneInfo("Asia/Kolkata")
    found = schedule("hour=9", zone=zone).ceil(datetime(2024, 1, 1, 0, 0, tzinfo=UTC))
    assert found.astimezone(zone) == datetime(2024, 1, 1, 9, tzinfo=zone)


def test_the_result_is_in_the_zone_of_the_question() -> None:
    assert schedule("hour=9").ceil(datetime(2024, 1, 1, 20, tzinfo=UTC)).tzinfo is UTC


def test_windows_are_named_with_their_ends() -> None:
    windows = schedule("hour=18-6").next_windows(at(1, 12), 2)
    assert [(one.start, one.end) for one in windows] == [
        (at(1, 18), at(2, 7)),
        (at(2, 18), at(3, 7)),
    ]


def test_a_schedule_that_is_always_open_has_one_window_without_end() -> None:
    assert [one.end for one in Schedule().next_windows(at(1, 12), 3)] == [None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "18-6",
        "hour=24",
        "hour=-1",
        "hour=1-2-3",
        "hour=",
        "hour=a",
        "dayOfWeek=7",
        "hour=1  dayOfWeek=1",
        "hour=1 minute=3",
        "hour=1 hour=2",
        "hour=1,",
        "hour=٣",
    ],
)
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Schedule.parse([text, "hour=5"])
    assert repr(text) in str(caught.value)


NUMBERS = st.builds(
    lambda first, last: f"{first}-{last}", st.integers(0, 23), st.integers(0, 23)
) | st.integers(0, 23).map(str)
DAYS = st.builds(lambda a, b: f"{a}-{b}", st.integers(0, 6), st.integers(0, 6)) | st.just("*")
VALUES = st.builds(lambda hour, day: f"hour={hour} dayOfWeek={day}", NUMBERS, DAYS)
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
ZONES = st.sampled_from(["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "UTC"])


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=3), ZONES, INSTANTS, st.integers(0, 200_000))
def test_ceil_lies_inside_is_idempotent_and_monotone(
    values: list[str], zone: str, instant: datetime, later_s: int
) -> None:
    one = schedule(*values, zone=ZoneInfo(zone))
    found = one.ceil(instant)
    assert one.contains(found)
    assert found >= instant
    assert one.ceil(found) == found
    assert one.ceil(instant + timedelta(seconds=later_s)) >= found
