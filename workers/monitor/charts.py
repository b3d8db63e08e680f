"""Charts of throughput and latency as SVG paths: pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from archive.ledger.monitoring import Slice
from workers.monitor import wording

WIDTH = 600
HEIGHT = 100
_TOP = 92


@dataclass(frozen=True, slots=True)
class Bar:
    """A slice of time: what ended in it, and how much of that failed, in units of the drawing."""

    x: float
    width: float
    height: float
    failed: float
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What a destination did in a span of time.

    Attributes
    ----------
    line
        SVG path of the 95th percentile of the seconds from start to end.
    """

    bars: tuple[Bar, ...]
    line: str
    ended: int
    failed: int
    most: int
    longest_s: float


def chart(slices: Sequence[Slice], now: datetime, *, since_s: float, slice_s: float) -> Chart:
    """Return the drawing of a destination's slices."""
    most = max((each.ended for each in slices), default=0)
    longest = max((each.p95_s for each in slices), default=0.0)
    width = WIDTH * slice_s / since_s
    bars, points = [], []
    for each in slices:
        x = WIDTH * (1 - (now - each.start).total_seconds() / since_s)
        scale = _TOP / most
        words = (
            f"{wording.clock_time(each.start)}: {each.ended} ended, {each.failed} failed, "
            f"median {each.median_s:.1f} s, 95 % within {each.p95_s:.1f} s"
        )
        bars.append(Bar(x, max(width - 1, 1), each.ended * scale, each.failed * scale, words))
        y = HEIGHT - (_TOP * each.p95_s / longest if longest else 0)
        points.append(f"{x + width / 2:.1f},{y:.1f}")
    return Chart(
        tuple(bars),
        "M" + " L".join(points) if points else "",
        sum(each.ended for each in slices),
        sum(each.failed for each in slices),
        most,
        longest,
    )


def by_destination(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """Return the slices of each destination."""
    found: dict[str, list[Slice]] = {}
    for each in slices:
        found.setdefault(each.remote_aet, []).append(each)
    return found
