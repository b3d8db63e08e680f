"""Draws figures beside their targets: a bar each, its length how far it is beyond the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Seen well on white and on black, and by those who cannot tell red from green.
_MET, _MISSED, _INK = "#3d8bd4", "#e07b28", "#7f8791"
_INCHES_PER_BAR, _INCHES_WIDE, _INCHES_MORE = 0.21, 9.5, 0.9
_LEAST, _MOST = 0.15, 20.0
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dicomq",  # the same figures give the same file
    "font.size": 7.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Bar:
    """A figure.

    Attributes
    ----------
    margin
        How many times better than its target it is; below 1 it misses it.
    text
        The figure and its target.
    """

    suite: str
    name: str
    margin: float
    text: str


def draw(bars: Sequence[Bar], path: Path) -> None:
    """Write a picture, on a transparent ground.

    Parameters
    ----------
    path
        Where to; its suffix says what kind of picture, such as ``.svg``.
    """
    with rc_context(_STYLE):
        figure = Figure((_INCHES_WIDE, _INCHES_PER_BAR * len(bars) + _INCHES_MORE))
        axes = figure.subplots()
        _bars(axes, bars)
        _suites(axes, bars)
        figure.tight_layout()
        without_date = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, transparent=True, metadata=without_date)


def _bars(axes: Axes, bars: Sequence[Bar]) -> None:
    ends = [min(max(bar.margin, _LEAST), _MOST) for bar in bars]
    colours = [_MET if bar.margin >= 1 else _MISSED for bar in bars]
    axes.barh(range(len(bars)), [end - 1 for end in ends], left=1, height=0.7, color=colours)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    for row, (bar, end) in enumerate(zip(bars, ends, strict=True)):
        place = {"x": max(end, 1) * 1.04, "y": row, "va": "center"}
        axes.text(s=bar.text, fontsize=6.5, **place)
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10) if min(ends) * 0.8 <= tick]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(*ends, 1) * 0.9, _MOST * 3)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel("times better than the target; to the left of 1× it is missed")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _suites(axes: Axes, bars: Sequence[Bar]) -> None:
    """Divide the benchmarks by lines, and name each."""
    row = 0
    for suite, of_suite in groupby(bars, key=lambda bar: bar.suite):
        if row:
            axes.axhline(row - 0.5, color=_INK, linewidth=0.4, alpha=0.5)
        axes.text(_MOST * 2.9, row, suite, ha="right", va="center", fontweight="bold")
        row += len(list(of_suite))
