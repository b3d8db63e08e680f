"""Tables of the command line: no word is broken and nothing is left out, however narrow."""

import pytest
from rich.console import Console

from workers.commands.tables import Layout, columns_in_row, table_lines

TASKS = Layout(
    ("task", "status", "study", "fails", ""),
    [
        (
            "17",
            "SCHEDULED FOR RETRY",
            "2.25.301145414540205066800572961571406865413",
            "2",
            "no way",
        ),
        ("4", "COMPLETED", "1.2", "", "山田 " * 30),
    ],
    right=("task", "fails"),
)


def printed(layout: Layout, room: int) -> list[str]:
    return [line.plain for line in table_lines(layout, Console(width=room), room)]


@pytest.mark.parametrize(
    ("widths", "room", "kept"),
    [
        ([4, 6], 80, [0, 1]),
        ([4, 6], 13, [0, 1]),
        ([4, 6], 12, [0]),
        ([4, 100, 6], 80, [0, 2]),
        ([100, 100], 80, []),
        ([], 80, []),
    ],
)
def test_columns_that_fit_stay_in_the_row(widths: list[int], room: int, kept: list[int]) -> None:
    assert columns_in_row(widths, room) == kept


def test_what_has_no_room_stands_below_its_row() -> None:
    lines = printed(TASKS, 60)
    assert lines[0] == " task  status               fails"
    assert lines[2] == "   17  SCHEDULED FOR RETRY      2"
    assert lines[3:5] == [
        "     study: 2.25.301145414540205066800572961571406865413",
        "     no way",
    ]
    assert lines[5] == "    4  COMPLETED"
    assert lines[6] == "     study: 1.2"


@pytest.mark.parametrize("room", range(20, 120))
def test_a_table_is_as_wide_as_the_terminal_at_most(room: int) -> None:
    lines = list(table_lines(TASKS, Console(width=room), room))
    assert max(line.cell_len for line in lines) <= room
    text = "".join("".join(line.plain.split()) for line in lines)
    assert "2.25.301145414540205066800572961571406865413" in text
    assert text.count("山田") == 30


def test_a_wide_terminal_has_a_line_for_each_row() -> None:
    assert len(printed(TASKS, 500)) == 4
