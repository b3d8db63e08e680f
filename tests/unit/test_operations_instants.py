"""Points and spans of time as people and DICOM write them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.instants import parse_instant, parse_range

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("202611", "2026-11-01", "2026-12-01"),
        ("202612", "2026-12-01", "2027-01-01"),
        ("20261121", "2026-11-21", "2026-11-22"),
        ("2026112112", "2026-11-21T12:00", "2026-11-21T13:00"),
        ("202611211230", "2026-11-21T12:30", "2026-11-21T12:31"),
        ("20261121123015", "2026-11-21T12:30:15", "2026-11-21T12:30:16"),
        ("2026112112-0500", "2026-11-21T17:00", "2026-11-21T18:00"),
        ("20261120-20261121", "2026-11-20", "2026-11-22"),
        ("2026112010+0100-2026112012+0100", "2026-11-20T09:00", "2026-11-20T12:00"),
        ("20261120-", "2026-11-20", None),
        ("-20261120", None, "2026-11-21"),
        ("2026-11-20", "2026-11-20", "2026-11-21"),
        ("2026-11-20-", "2026-11-20", None),
        ("-2026-11-20", None, "2026-11-21"),
        ("2026-11-20-2026-11-21", "2026-11-20", "2026-11-22"),
        ("2026-11-20/2026-11-21", "2026-11-20", "2026-11-22"),
        ("2026-11-20T10:30/2026-11-20T11:00Z", "2026-11-20T10:30", "2026-11-20T11:01"),
        ("2026-11-20 10:30:05", "2026-11-20T10:30:05", "2026-11-20T10:30:06"),
        ("2h", "2026-11-21T10:00", None),
        ("2h-", "2026-11-21T10:00", None),
        ("-2h", None, "2026-11-21T10:00"),
        ("1d-2h", "2026-11-20T12:00", "2026-11-21T10:00"),
        ("-+30m", None, "2026-11-21T12:30"),
        ("+1h-+2h", "2026-11-21T13:00", "2026-11-21T14:00"),
        (" 90s ", "2026-11-21T11:58:30", None),
        ("1w", "2026-11-14T12:00", None),
    ],
)
def test_ranges(text: str, since: str | None, until: str | None) -> None:
    """The end of the last value's precision is the end of the range."""
    span = parse_range(text, NOW, UTC)
    assert (span.since, span.until) == (utc(since), utc(until))


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "/", "yesterday", "20261331", "20260230", "2026-13-01", "2026112125"),
        *("20261122-20261121", "2h-1d", "2026-11-20T25:00", "99999999999999", "2x", "1-2-3"),
        *("\uff12\uff10\uff12\uff16", "20261121-x", "x-20261121", "2026-1121-2026"),
    ],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_range(text, NOW, UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+2h", "2026-11-21T14:00"),
        ("2h", "2026-11-21T14:00"),
        ("20261121", "2026-11-21"),
        ("202611211200", "2026-11-21T12:00"),
        ("20261121120000.5", "2026-11-21T12:00:00.500000"),
        ("2026-11-21T12:00+0100", "2026-11-21T11:00"),
    ],
)
def test_instants(text: str, expected: str) -> None:
    """Noon is noon; relative times lie ahead."""
    assert parse_instant(text, NOW, UTC) == utc(expected)


@pytest.mark.parametrize("text", ["", "-2h", "20261121-", "noon"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_instant(text, NOW, UTC)


def test_a_day_ends_at_the_next_midnight() -> None:
    """On the day of a change of clocks it has 25 hours."""
    span = parse_range("20261025", NOW, BERLIN)
    assert span.since is not None
    assert span.until is not None
    assert span.until.astimezone(UTC) - span.since.astimezone(UTC) == timedelta(hours=25)


def test_the_machines_zone_is_the_default() -> None:
    span = parse_range("2026112112", NOW)
    assert span.since == datetime.fromisoformat("2026-11-21T12:00").astimezone()


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9000, 1, 1)))  # noqa: DTZ001 - local
def test_a_dt_to_the_second_means_that_second(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    span = parse_range(f"{moment:%Y%m%d%H%M%S}".zfill(14), NOW, UTC)
    assert (span.since, span.until) == (moment, moment + timedelta(seconds=1))


@given(st.text(alphabet="0123456789-/+T:Zhd. ", max_size=30))
def test_anything_is_a_range_or_refused(text: str) -> None:
    try:
        span = parse_range(text, NOW, UTC)
    except InvalidValueError:
        return
    assert span.since is not None or span.until is not None
    if span.since is not None and span.until is not None:
        assert span.since < span.until
