"""Draws figures beside their targets: a bar each, its length how far it is beyond the target."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

_MET, _MISSED = "#2e7d32", "#c62828"
_INCHES_PER_BAR, _INCHES_WIDE, _INCHES_MORE = 0.26, 9.0, 1.0


def draw(margins: Sequence[tuple[str, float]], path: Path) -> None:
    """Write a picture.

    Parameters
    ----------
    margins
        Name of a figure, and how many times better than its target it is; below 1 it misses it.
    path
        Where to; its suffix says what kind of picture, such as ``.svg``.
    """
    figure = Figure((_INCHES_WIDE, _INCHES_PER_BAR * len(margins) + _INCHES_MORE))
    axes = figure.subplots()
    names = [name for name, _ in margins]
    values = [value for _, value in margins]
    colours = [_MET if value >= 1 else _MISSED for value in values]
    axes.barh(names, [value - 1 for value in values], left=1, color=colours)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the target (1 is the target)")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
