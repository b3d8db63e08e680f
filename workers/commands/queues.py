"""``celery -A workers queues``: how queues stand, pausing and resuming them."""

from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import complete_configured, examples, form_options
from workers.commands.output import Form, exit_status, inert, local_time, print_rows
from workers.commands.session import session, told

if TYPE_CHECKING:
    from workers.gatekeeping import QueueView

_COLUMNS = (
    *("queue", "pool", "state", "since", "limit", "in flight", "waiting", "retrying", "due"),
    *("oldest due", "by", "why"),
)
_NUMBERS = ("limit", "in flight", "waiting", "retrying", "due")
_names_argument = click.argument(
    "names",
    metavar="NAME...",
    nargs=-1,
    required=True,
    shell_complete=complete_configured("queues"),
)


@click.group(name="queues", epilog=examples("queues list", "queues pause Export --reason backup"))
def queues() -> None:
    """Show how queues stand; pause and resume them.

    Nothing of a paused queue is handed to the workers; what is running ends as usual.
    """


@queues.command("list", cls=CeleryCommand, epilog=examples("queues list", "queues list --json"))
@form_options
@told
def list_queues(form: Form) -> None:
    """List the queues with their unfinished tasks."""
    with session() as opened:
        views = opened.gatekeeper().queues()
    rows = [_row(view) for view in views]
    print_rows(form, _COLUMNS, rows, lambda: map(_as_json, views), right=_NUMBERS)


def _row(view: "QueueView") -> tuple[object, ...]:
    load, pause = view.load, view.pause
    return (
        *(view.queue.name, view.pool, view.state, local_time(pause.time if pause else None)),
        *(view.queue.max_tasks_parallel, load.in_flight, load.waiting, load.retrying, load.due),
        *(local_time(load.oldest_due), pause.actor if pause else "", _why(view)),
    )


def _why(view: "QueueView") -> str:
    if view.pause is not None:
        return view.pause.reason
    if not view.queue.installed:
        return f"dicomInstalled is FALSE in {view.queue.dn}"
    return f"opens {local_time(view.opens_time)}" if view.opens_time else ""


def _as_json(view: "QueueView") -> dict[str, Any]:
    from workers.task_json import optional_time  # noqa: PLC0415 - see the package

    pause, load = view.pause, view.load
    return {
        "name": view.queue.name,
        "description": view.queue.description,
        "pool": view.pool.value,
        "state": view.state,
        "maxTasksParallel": view.queue.max_tasks_parallel,
        "inFlight": load.in_flight,
        "scheduled": load.waiting,
        "scheduledForRetry": load.retrying,
        "inProcess": load.running,
        "due": load.due,
        "oldestDue": optional_time(load.oldest_due),
        "opens": optional_time(view.opens_time),
        "pausedTime": optional_time(pause.time if pause else None),
        "pausedBy": pause.actor if pause else None,
        "pauseReason": pause.reason if pause else None,
    }


@queues.command("pause", cls=CeleryCommand, epilog=examples("queues pause Export --reason backup"))
@_names_argument
@click.option("--reason", default="", help="Why; shown by `queues list`.")
@told
def pause_queues(names: tuple[str, ...], reason: str) -> int:
    """Hand nothing of the queues over until they are resumed."""
    with session() as opened:
        changed = opened.gatekeeper().pause_queues(names, reason)
    return say(names, changed, "paused", "paused already")


@queues.command("resume", cls=CeleryCommand, epilog=examples("queues resume Export"))
@_names_argument
@told
def resume_queues(names: tuple[str, ...]) -> int:
    """Hand tasks of paused queues over again."""
    with session() as opened:
        changed = opened.gatekeeper().resume_queues(names)
    return say(names, changed, "resumed", "not paused")


def say(names: tuple[str, ...], changed: list[str], done: str, skipped: str) -> int:
    """Say for each name what became of it, and return the exit status."""
    wanted = dict.fromkeys(names)
    for name in wanted:
        click.echo(f"{inert(name)}: {done if name in changed else skipped}")
    return exit_status(len(changed), len(wanted))
