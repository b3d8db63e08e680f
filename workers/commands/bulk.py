"""Changes of many tasks on the command line: asked about, shown, stoppable, and summed up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from workers.commands.output import (
    NONE,
    SOME,
    confirmed,
    counted,
    exit_status,
    number,
    print_json,
    progress_bar,
)
from workers.commands.session import Session, session

if TYPE_CHECKING:
    from archive.ledger.operations import Operation
    from archive.model.task_filter import BulkProgress, TaskFilter
    from workers.operations import Operations, Target

_DONE = {"cancel": "canceled", "reschedule": "rescheduled", "delete": "deleted"}
_MISSING = "no such task"


@dataclass(frozen=True, slots=True)
class Options:
    """What the options of `bulk_options` say."""

    everything: bool
    dry_run: bool
    yes: bool
    as_json: bool


def change(
    name: str, wanted: "TaskFilter", options: Options, target: "Target | None" = None
) -> int:
    """Change all tasks that are meant, and return the exit status.

    Parameters
    ----------
    name
        cancel, reschedule or delete.
    target
        When and where to, of a reschedule.
    """
    from archive.ledger.operations import Operation  # noqa: PLC0415 - see the package

    if wanted.is_empty and not options.everything:
        msg = "say which tasks: give IDs or conditions, or --all for every task there is"
        raise click.UsageError(msg)
    if options.everything and not wanted.is_empty:
        msg = "--all means every task; leave it out when there are conditions"
        raise click.UsageError(msg)
    with session() as opened:
        return _change(opened, Operation(name), wanted, (options, target))


def _change(
    opened: Session,
    operation: "Operation",
    wanted: "TaskFilter",
    how: "tuple[Options, Target | None]",
) -> int:
    options, target = how
    service = opened.operations()
    only_ids = _only_ids(wanted)
    if options.dry_run or not (options.yes or only_ids):
        expected = service.preview(operation, wanted, target)
        if options.dry_run:
            return _report(operation, wanted, expected, (options, "would be "))
        if expected.changed and not _confirmed(operation, expected):
            click.echo("nothing was changed", err=True)
            return NONE
        total = expected.visited
    else:
        total = len(wanted.task_pks) if only_ids else service.count(wanted)
    done, finished = _run(service, operation, (wanted, target), total)
    status = _report(operation, wanted, done, (options, ""))
    if not finished:
        click.echo("stopped before the end; the same command goes on", err=True)
        return SOME
    return status


def _run(
    service: "Operations",
    operation: "Operation",
    what: "tuple[TaskFilter, Target | None]",
    total: int,
) -> "tuple[BulkProgress, bool]":
    """Change in chunks; return what was done, and whether Ctrl-C did not end it early."""
    from archive.model.task_filter import BulkProgress  # noqa: PLC0415 - see the package
    from workers.operations import BulkRun  # noqa: PLC0415

    latest = [BulkProgress()]
    wanted, target = what
    with progress_bar(f"{operation} tasks", total) as advance:

        def note(progress: BulkProgress) -> bool:
            latest[0] = progress
            return advance(progress)

        try:
            return service.change(operation, wanted, target, BulkRun(note)), True
        except KeyboardInterrupt:
            return latest[0], False


def _only_ids(wanted: "TaskFilter") -> bool:
    from archive.model.task_filter import TaskFilter  # noqa: PLC0415 - see the package

    return wanted == TaskFilter(task_pks=wanted.task_pks) and bool(wanted.task_pks)


def _confirmed(operation: "Operation", expected: "BulkProgress") -> bool:
    click.echo(_sentence(operation, expected, "would be "), err=True)
    return confirmed("Go on?")


def _report(
    operation: "Operation", wanted: "TaskFilter", done: "BulkProgress", how: tuple[Options, str]
) -> int:
    """Print the counts and return the exit status."""
    options, mood = how
    missing = len(wanted.task_pks) - done.visited if _only_ids(wanted) else 0
    skipped = dict(done.skipped) | ({_MISSING: missing} if missing > 0 else {})
    if options.as_json:
        print_json(_as_json(done, skipped))
    else:
        click.echo(_sentence(operation, done, mood, skipped))
    return exit_status(done.changed, done.visited + max(0, missing))


def _as_json(done: "BulkProgress", skipped: dict[str, int]) -> dict[str, Any]:
    return {
        "count": done.changed,
        "failed": sum(skipped.values()),
        "changed": dict(done.changed_from),
        "skipped": skipped,
    }


def _sentence(
    operation: "Operation", done: "BulkProgress", mood: str, skipped: dict[str, int] | None = None
) -> str:
    skipped = dict(done.skipped) if skipped is None else skipped
    if not done.visited and not skipped:
        return "no task matches"
    parts = [f"{counted(done.changed, 'task')} {mood}{_DONE[operation]}"]
    if done.changed_from:
        parts[0] += f" ({_listed(dict(done.changed_from))})"
    if skipped:
        parts.append(f"{number(sum(skipped.values()))} skipped ({_listed(skipped)})")
    return ", ".join(parts)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number(count)}" for name, count in sorted(counts.items()))
