"""What the commands print: tables for people, JSON and CSV for programs, progress of bulk work.

Text that comes from DICOM objects, from peers or from the directory is shown inert: control
characters as escapes, and never read as markup.
"""

import csv
import io
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datetime import datetime

    from archive.model.task_filter import BulkProgress

ALL, SOME, NONE = 0, 1, 2
"""Exit statuses: all of it was done; some of it; none, or an error."""

_VISIBLE_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Form(StrEnum):
    """In which form results are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def inert(value: object) -> str:
    """Return text that can do nothing to a terminal: control characters become escapes."""
    return "".join(
        letter.encode("unicode_escape").decode("ascii")
        if unicodedata.category(letter) in _VISIBLE_CONTROLS
        else letter
        for letter in str(value)
    )


def local_time(time: "datetime | None") -> str:
    """Return a time of the machine's zone, to the second."""
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def number(value: int) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,}"


def counted(value: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 entry``, ``2,000 entries``."""
    return f"{number(value)} {one if value == 1 else many or f'{one}s'}"


def confirmed(question: str) -> bool:
    """Ask on a terminal; without one the answer is no."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo("no answer; --yes goes on without asking", err=True)
        return False


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    title: str = "",
) -> None:
    """Print a table; cells that are the name of a state are coloured on a terminal.

    Where it is wider than the terminal, columns move below their rows. Without a terminal each
    row is one line.

    Parameters
    ----------
    right
        Columns that are aligned right.
    title
        Line above it.
    """
    from rich.console import Console  # noqa: PLC0415 - see the package

    from workers.commands.tables import Layout, table_lines  # noqa: PLC0415

    context = click.get_current_context(silent=True)
    no_color = bool(context and getattr(context.obj, "no_color", False)) or None
    console = Console(highlight=False, no_color=no_color)
    room = console.width if sys.stdout.isatty() else sys.maxsize
    cells = [[inert("" if cell is None else cell) for cell in row] for row in rows]
    with console.capture() as printed:
        for line in table_lines(Layout(columns, cells, right), console, room):
            console.print(line, soft_wrap=True)
    click.echo(f"\n{title}" if title else "")
    click.echo(printed.get())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names with their values; those without a value are left out."""
    shown = [(name, inert(value)) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name:<{width}}  {value}")


def print_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2))


def print_json_array(items: Iterable[object]) -> None:
    """Print a JSON array while its items come in, one per line."""
    separator = "["
    for item in items:
        click.echo(f"{separator}{json.dumps(item)}", nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[" else "]")


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print CSV (RFC 4180), every field quoted."""
    for row in (columns, *rows) if isinstance(rows, Sequence) else _chain(columns, rows):
        buffer = io.StringIO()
        csv.writer(buffer, quoting=csv.QUOTE_ALL).writerow([inert(cell) for cell in row])
        click.echo(buffer.getvalue(), nl=False)


def _chain(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
    yield columns
    yield from rows


def print_rows(
    form: Form,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    items: Callable[[], Iterable[dict[str, Any]]],
    *,
    right: Sequence[str] = (),
) -> None:
    """Print the same things as table, as CSV, or as JSON array of `items`."""
    if form is Form.JSON:
        print_json_array(items())
    elif form is Form.CSV:
        print_csv(columns, rows)
    else:
        print_table(columns, rows, right=right)


@contextmanager
def progress_bar(title: str, total: int) -> "Iterator[Callable[[BulkProgress], bool]]":
    """Show on a terminal how far bulk work has come; yields what is to be told of progress."""
    if not sys.stderr.isatty() or not total:
        yield lambda _progress: True
        return
    from rich.console import Console  # noqa: PLC0415 - see the package
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(title, total=total)

        def advance(progress: "BulkProgress") -> bool:
            bar.update(shown, completed=progress.visited)
            return True

        yield advance


def exit_status(changed: int, visited: int) -> int:
    """Return the exit status of bulk work: 0 all, 1 some, 2 none; nothing to do is all."""
    if changed == visited:
        return ALL
    return SOME if changed else NONE
