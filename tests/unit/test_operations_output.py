"""What the commands print, and what their options mean."""

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from archive.model.task import TaskKind, TaskStatus
from archive.model.task_filter import TaskFilter
from workers.commands import output
from workers.commands.options import KINDS, STATUSES, selection_options
from workers.commands.output import exit_status, inert
from workers.commands.session import told


def run(command: click.Command, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]x[/bold]", "plain [bold]x[/bold]"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("Müller^Jörg 山田", "Müller^Jörg 山田"),
        ("\u202eevil\u200b", "\\u202eevil\\u200b"),
        ("\ud800", "\\ud800"),
        ("\x9b2J", "\\x9b2J"),
        (None, "None"),
        (42, "42"),
    ],
)
def test_inert(text: object, shown: str) -> None:
    assert inert(text) == shown


@given(st.text())
def test_inert_text_is_printable(text: str) -> None:
    shown = inert(text)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) <= 1
    shown.encode()


@click.command()
@told
def hostile_table() -> int:
    output.print_table(
        ("name", "state"), [("[red]x[/red] \x1b[2J", "FAILED"), ("[/]", None)], right=("name",)
    )
    return output.SOME


def test_tables_hold_hostile_text() -> None:
    """Markup is text, control characters are escapes, nothing is cut off."""
    status, printed = run(hostile_table)
    assert status == 1
    assert "[red]x[/red] \\x1b[2J" in printed
    assert "[/]" in printed
    assert "\x1b" not in printed


@click.command()
@click.option("--csv", "as_csv", is_flag=True)
def hostile_rows(*, as_csv: bool) -> None:
    if as_csv:
        output.print_csv(("a", "b"), ((n, 'say "x",\x1b') for n in range(2)))
    else:
        output.print_json_array({"n": n, "text": "\x1b\n"} for n in range(2))


def test_json_and_csv_for_programs() -> None:
    assert json.loads(run(hostile_rows)[1]) == [{"n": n, "text": "\x1b\n"} for n in range(2)]
    assert "\x1b" not in run(hostile_rows)[1]
    assert run(hostile_rows, "--csv")[1].splitlines() == [
        *('"a","b"', '"0","say ""x"",\\x1b"', '"1","say ""x"",\\x1b"')
    ]


def test_empty_json_array() -> None:
    @click.command()
    def empty() -> None:
        output.print_json_array([])

    assert json.loads(run(empty)[1]) == []


@pytest.mark.parametrize(
    ("changed", "visited", "status"), [(0, 0, 0), (3, 3, 0), (1, 3, 1), (0, 3, 2)]
)
def test_exit_status(changed: int, visited: int, status: int) -> None:
    assert exit_status(changed, visited) == status


def chosen(*arguments: str) -> TaskFilter | str:
    """Return the filter that arguments mean, or what is said about them."""
    found: list[TaskFilter] = []

    @click.command()
    @selection_options
    def command(wanted: TaskFilter) -> None:
        found.append(wanted)

    _, printed = run(command, *arguments)
    return found[0] if found else printed


def test_statuses_and_kinds_are_those_of_the_model() -> None:
    assert set(STATUSES) == set(TaskStatus)
    assert set(KINDS) == set(TaskKind)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), TaskFilter()),
        (("7", "8", "7"), TaskFilter(task_pks=(7, 8))),
        (("-s", "failed"), TaskFilter(statuses=(TaskStatus.FAILED,))),
        (
            ("-s", "in_process,In Process", "-s", "scheduled-for-retry"),
            TaskFilter(statuses=(TaskStatus.IN_PROCESS, TaskStatus.SCHEDULED_FOR_RETRY)),
        ),
        (("-k", "export,stgcmt-scu"), TaskFilter(kinds=(TaskKind.EXPORT, TaskKind.STGCMT_SCU))),
        (("-Q", "A,B", "-Q", "C"), TaskFilter(queue_names=("A", "B", "C"))),
        (("--remote", "X", "--destination", "Y"), TaskFilter(remote_aets=("X", "Y"))),
        (
            ("-e", "E", "--local", "L", "--study", "1.2", "--batch", "b", "--device", "d"),
            TaskFilter(
                exporter_ids=("E",),
                local_aets=("L",),
                study_instance_uids=("1.2",),
                batch_ids=("b",),
                device_names=("d",),
            ),
        ),
    ],
)
def test_selection(arguments: tuple[str, ...], expected: TaskFilter) -> None:
    assert chosen(*arguments) == expected


def test_selection_of_times() -> None:
    wanted = chosen("--created", "20261121", "--updated", "-2h", "--scheduled", "+2h-")
    assert isinstance(wanted, TaskFilter)
    assert wanted.created.since is not None
    assert wanted.created.until is not None
    assert (wanted.updated.since, wanted.scheduled.until) == (None, None)
    assert not wanted.is_empty


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-s", "done"), "'done' is none of SCHEDULED, IN PROCESS"),
        (("-k", "mpps"), "'mpps' is none of EXPORT"),
        (("--created", "yesterday"), "'yesterday' is not a range of time"),
        (("zero",), "not a valid integer"),
        (("0",), "not in the range"),
    ],
)
def test_refused_selection(arguments: tuple[str, ...], words: str) -> None:
    printed = chosen(*arguments)
    assert isinstance(printed, str)
    assert words in " ".join(printed.split())
