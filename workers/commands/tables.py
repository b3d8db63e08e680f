"""How a table fits a terminal: what has no room in its row stands below it, whole.

Columns are as wide as what they hold, so that no word is broken. From left to right those stay in
the row that fit; of the others each row names heading and value on lines of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = 2
_INDENT = 5
_STYLES = {
    "COMPLETED": "green",
    "WARNING": "yellow",
    "FAILED": "red",
    "CANCELED": "dim",
    "IN PROCESS": "cyan",
    "SCHEDULED FOR RETRY": "magenta",
    "open": "green",
    "paused": "yellow",
    "paused, probing": "red",
    "not installed": "dim",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What is printed: inert text, and how columns are aligned."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()

    def widths(self) -> list[int]:
        """Return the width of each column, in places of the terminal."""
        cells = zip(self.columns, *self.rows, strict=True)
        return [max(map(cell_len, column)) for column in cells]


def columns_in_row(widths: Sequence[int], room: int) -> list[int]:
    """Return which columns stand in the row.

    Parameters
    ----------
    widths, room
        Places that each column takes, and that the terminal has.
    """
    kept: list[int] = []
    used = 1
    for column, width in enumerate(widths):
        wanted = width + (_GAP if kept else 0)
        if used + wanted <= room:
            kept.append(column)
            used += wanted
    return kept


def table_lines(layout: Layout, console: Console, room: int) -> Iterator[Text]:
    """Yield the lines of a table that is at most `room` places wide."""
    widths = layout.widths()
    kept = columns_in_row(widths, room)
    below = [column for column in range(len(widths)) if column not in kept]
    if kept:
        yield _row(layout, layout.columns, [(column, widths[column]) for column in kept], "bold")
        yield Text(" " + "─" * (sum(widths[column] + _GAP for column in kept) - _GAP))
    for cells in layout.rows:
        if kept:
            yield _row(layout, cells, [(column, widths[column]) for column in kept])
        yield from _below([(layout.columns[one], cells[one]) for one in below], console, room)


def _row(
    layout: Layout, cells: Sequence[str], places: Sequence[tuple[int, int]], style: str = ""
) -> Text:
    line = Text(" ")
    for column, width in places:
        cell = cells[column]
        blanks = " " * (width - cell_len(cell))
        text = Text(cell, style=style or _STYLES.get(cell, ""))
        line.append_text(
            Text.assemble(blanks, text)
            if layout.columns[column] in layout.right
            else Text.assemble(text, blanks)
        )
        line.append(" " * _GAP)
    line.rstrip()
    return line


def _below(pairs: Sequence[tuple[str, str]], console: Console, room: int) -> Iterator[Text]:
    """Yield lines that hold as many headings with their values as have room, none of them cut."""
    line = Text()
    width = max(room - _INDENT, 1)
    for heading, value in pairs:
        if not value:
            continue
        pair = Text.assemble((f"{heading}: " if heading else "", "dim"), value)
        if line and line.cell_len + _GAP + pair.cell_len > width:
            yield _indented(line)
            line = Text()
        if pair.cell_len > width:
            yield from map(_indented, pair.wrap(console, width, overflow="fold"))
        else:
            line = Text.assemble(line, " " * _GAP, pair) if line else pair
    if line:
        yield _indented(line)


def _indented(line: Text) -> Text:
    line.rstrip()
    return Text.assemble(" " * _INDENT, line)
