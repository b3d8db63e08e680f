"""Options that several commands share: which tasks are meant, and how results are printed."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from celery.bin.base import CeleryOption

from workers.commands.output import Form

if TYPE_CHECKING:
    from datetime import datetime

    from archive.model.task_filter import TaskFilter, TimeRange

F = TypeVar("F", bound=Callable[..., Any])

GROUP = "Selection: conditions hold together, values of one are alternatives"
STATUSES = (
    "SCHEDULED",
    "IN PROCESS",
    "COMPLETED",
    "WARNING",
    "FAILED",
    "CANCELED",
    "SCHEDULED FOR RETRY",
)
KINDS = ("EXPORT", "IAN", "STGCMT_SCU", "STGCMT_SCP", "RETRIEVE", "LEADING_CFIND")
_TIMES = "as 2h (the last two hours), 20261121, 2026-11-21T10:30, or a range a-b, a-, -b"


def examples(*command_lines: str) -> str:
    """Return the end of a help text: commands as they are typed, after ``celery -A workers``."""
    lines = (f"  celery -A workers {line}" for line in command_lines)
    return "\n".join(("\b", "Examples:" if len(command_lines) > 1 else "Example:", *lines))


def _names(values: Sequence[str], *, separator: str = ",") -> tuple[str, ...]:
    """Return the names of repeated, comma-separated options, each once."""
    parts = (part.strip() for value in values for part in value.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def _member(value: str, members: Sequence[str], option: str) -> str:
    """Return the member that `value` spells, in any case and with any of blank, `_` and `-`."""

    def plain(text: str) -> str:
        return re.sub(r"[\s_-]+", "", text).upper()

    found = next((member for member in members if plain(member) == plain(value)), None)
    if found is None:
        msg = f"{value!r} is none of {', '.join(members)}"
        raise click.BadParameter(msg, param_hint=option)
    return found


def _complete(members: Sequence[str]) -> Callable[..., list[str]]:
    def complete(_context: object, _parameter: object, incomplete: str) -> list[str]:
        spelt = (member.lower().replace(" ", "_") for member in members)
        return [member for member in spelt if member.startswith(incomplete.lower())]

    return complete


def complete_configured(what: str) -> Callable[..., list[str]]:
    """Return a completion of names that the configuration knows: `exporters` or `queues`."""

    def complete(_context: object, _parameter: object, incomplete: str) -> list[str]:
        from archive.configuration.settings import Settings  # noqa: PLC0415 - see the package
        from archive.configuration.source import open_source  # noqa: PLC0415
        from archive.errors import DicomqError  # noqa: PLC0415

        try:
            device = open_source(Settings.from_environment()).snapshot().device
        except DicomqError:
            return []
        names: Iterable[str] = getattr(device, what)
        return sorted(name for name in names if name.startswith(incomplete))

    return complete


def _option(*names: str, **settings: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own
    many = settings.pop("many", True)
    return click.option(*names, cls=CeleryOption, multiple=many, help_group=GROUP, **settings)


_SELECTION = (
    click.argument("task_pks", metavar="[ID]...", nargs=-1, type=click.IntRange(min=1)),
    _option(
        "-Q",
        "--queue",
        "queue_names",
        metavar="NAME",
        help="Queue.",
        shell_complete=complete_configured("queues"),
    ),
    _option(
        "-k",
        "--kind",
        "kinds",
        metavar="KIND",
        help=f"Kind: {', '.join(KINDS)}.",
        shell_complete=_complete(KINDS),
    ),
    _option(
        "-s",
        "--status",
        "statuses",
        metavar="STATUS",
        help="Status, in any case, with blanks or underscores: failed, in_process …",
        shell_complete=_complete(STATUSES),
    ),
    _option(
        "-e",
        "--exporter",
        "exporter_ids",
        metavar="ID",
        help="Exporter.",
        shell_complete=complete_configured("exporters"),
    ),
    _option("--local", "local_aets", metavar="AET", help="Local AE title."),
    _option("--remote", "--destination", "remote_aets", metavar="AET", help="Destination AE."),
    _option("--brings-to", "destination_aets", metavar="AET", help="Destination of retrieves."),
    _option("--study", "study_instance_uids", metavar="UID", help="Study Instance UID."),
    _option("--batch", "batch_ids", metavar="ID", help="Batch."),
    _option("--device", "device_names", metavar="NAME", help="Device the tasks belong to."),
    _option("--created", many=False, metavar="TIME", help=f"Created {_TIMES}."),
    _option("--updated", many=False, metavar="TIME", help="Changed last, likewise."),
    _option("--scheduled", many=False, metavar="TIME", help="Due, likewise; +2h lies ahead."),
)
_LISTS = (
    *("queue_names", "kinds", "statuses", "exporter_ids", "local_aets"),
    *("remote_aets", "destination_aets", "study_instance_uids", "batch_ids", "device_names"),
)
_SPANS = ("created", "updated", "scheduled")


def selection_options(command: F) -> F:
    """Give a command IDs and filters; it gets them as the `TaskFilter` called `wanted`."""

    @functools.wraps(command)
    def run(**values: Any) -> Any:  # noqa: ANN401 - what the command returns
        chosen = {name: values.pop(name) for name in ("task_pks", *_LISTS, *_SPANS)}
        return command(wanted=_filter(chosen), **values)

    for option in reversed(_SELECTION):
        run = option(run)
    return run  # type: ignore[return-value] # the same but for its options


def _filter(chosen: dict[str, Any]) -> "TaskFilter":
    from archive.model.task import TaskKind, TaskStatus  # noqa: PLC0415 - see the package
    from archive.model.task_filter import TaskFilter  # noqa: PLC0415

    lists: dict[str, Any] = {name: _names(chosen[name]) for name in _LISTS}
    kinds = {TaskKind(_member(each, KINDS, "--kind")): None for each in lists.pop("kinds")}
    statuses = {
        TaskStatus(_member(each, STATUSES, "--status")): None for each in lists.pop("statuses")
    }
    spans: dict[str, Any] = {name: _range(chosen[name], f"--{name}") for name in _SPANS}
    pks = tuple(dict.fromkeys(chosen["task_pks"]))
    return TaskFilter(task_pks=pks, kinds=tuple(kinds), statuses=tuple(statuses), **lists, **spans)


def _range(text: str | None, option: str) -> "TimeRange":
    from archive.clock import SYSTEM_CLOCK  # noqa: PLC0415 - see the package
    from archive.errors import InvalidValueError  # noqa: PLC0415
    from archive.model.instants import parse_range  # noqa: PLC0415
    from archive.model.task_filter import TimeRange  # noqa: PLC0415

    if text is None:
        return TimeRange()
    try:
        return parse_range(text, SYSTEM_CLOCK.now())
    except InvalidValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def instant(text: str | None, option: str) -> "datetime | None":
    """Return the time that an option names, in the future where it is relative."""
    from archive.clock import SYSTEM_CLOCK  # noqa: PLC0415 - see the package
    from archive.errors import InvalidValueError  # noqa: PLC0415
    from archive.model.instants import parse_instant  # noqa: PLC0415

    if text is None:
        return None
    try:
        return parse_instant(text, SYSTEM_CLOCK.now())
    except InvalidValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def form_options(command: F) -> F:
    """Give a command `--json` and `--csv`; it gets the `Form` called `form`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @click.option("--csv", "as_csv", is_flag=True, help="Print CSV for programs.")
    @functools.wraps(command)
    def run(*, as_json: bool, as_csv: bool, **values: Any) -> Any:  # noqa: ANN401
        if as_json and as_csv:
            msg = "give either --json or --csv"
            raise click.UsageError(msg)
        form = Form.JSON if as_json else Form.CSV if as_csv else Form.TABLE
        return command(form=form, **values)

    return run  # type: ignore[return-value] # the same but for its options


def bulk_options(command: F) -> F:
    """Give a command that changes tasks `--all`, `--dry-run`, `--yes` and `--json`."""
    options = (
        click.option("--all", "everything", is_flag=True, help="Mean every task there is."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation."),
        click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command
