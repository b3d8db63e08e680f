"""``celery -A workers destinations``: how destinations stand, pausing and probing them."""

from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples, form_options
from workers.commands.output import Form, exit_status, inert, local_time, print_rows
from workers.commands.queues import say
from workers.commands.session import Session, session, told

if TYPE_CHECKING:
    from workers.gatekeeping import DestinationView

_COLUMNS = (
    *("destination", "state", "since", "waiting", "failures", "probes", "next probe"),
    *("exporters", "by", "why"),
)
_NUMBERS = ("waiting", "failures", "probes")
_titles_argument = click.argument("titles", metavar="AET...", nargs=-1, required=True)


@click.group(
    name="destinations",
    epilog=examples("destinations list", "destinations pause PACS2 --reason upgrade"),
)
def destinations() -> None:
    """Show how destinations stand; pause, resume and probe them.

    A destination that cannot be reached several times in a row is paused by itself: its tasks
    wait without using up their retries, and one C-ECHO per step of a growing pause finds out when
    it is back.
    """


@destinations.command("list", cls=CeleryCommand, epilog=examples("destinations list --json"))
@form_options
@told
def list_destinations(form: Form) -> None:
    """List the destinations with the tasks that wait for them."""
    with session() as opened:
        views = opened.gatekeeper().destinations()
    rows = [_row(view) for view in views]
    print_rows(form, _COLUMNS, rows, lambda: map(_as_json, views), right=_NUMBERS)


def _row(view: "DestinationView") -> tuple[object, ...]:
    gate = view.gate
    return (
        *(gate.remote_aet, gate.state, local_time(gate.since), view.waiting),
        *(gate.failures or "", gate.probes or "", local_time(gate.next_probe_time)),
        *(" ".join(view.exporter_ids), gate.pause.actor if gate.pause else "", _why(view)),
    )


def _why(view: "DestinationView") -> str | None:
    if view.gate.pause is not None:
        return view.gate.pause.reason
    if view.gate.last_error and view.gate.failures:
        return view.gate.last_error
    is_ae = ":" not in view.gate.remote_aet
    return "no AE of this title in the directory" if is_ae and not view.is_configured else None


def _as_json(view: "DestinationView") -> dict[str, Any]:
    from workers.task_json import optional_time  # noqa: PLC0415 - see the package

    gate = view.gate
    return {
        "aet": gate.remote_aet,
        "state": gate.state.value,
        "since": optional_time(gate.since),
        "waiting": view.waiting,
        "failures": gate.failures,
        "lastError": gate.last_error,
        "probes": gate.probes,
        "nextProbe": optional_time(gate.next_probe_time),
        "exporterIDs": list(view.exporter_ids),
        "configured": view.is_configured,
        "pausedBy": gate.pause.actor if gate.pause else None,
        "pauseReason": gate.pause.reason if gate.pause else None,
    }


@destinations.command(
    "pause", cls=CeleryCommand, epilog=examples("destinations pause PACS2 --reason upgrade")
)
@_titles_argument
@click.option("--reason", default="", help="Why; shown by `destinations list`.")
@told
def pause_destinations(titles: tuple[str, ...], reason: str) -> int:
    """Hand over nothing for the destinations until they are resumed."""
    with session() as opened:
        changed = opened.gatekeeper().pause_destinations(titles, reason)
    return say(titles, changed, "paused", "paused already")


@destinations.command("resume", cls=CeleryCommand, epilog=examples("destinations resume PACS2"))
@_titles_argument
@told
def resume_destinations(titles: tuple[str, ...]) -> int:
    """Take pauses back; one that is paused by itself is probed at once."""
    with session() as opened:
        changed = opened.gatekeeper().resume_destinations(titles)
    return say(titles, changed, "resumed", "not paused")


@destinations.command(
    "echo", cls=CeleryCommand, epilog=examples("destinations echo PACS2 --from DCM4CHEE")
)
@_titles_argument
@click.option("--from", "local_aet", metavar="AET", help="Local AE that calls.")
@told
def echo_destinations(titles: tuple[str, ...], local_aet: str | None) -> int:
    """Send a C-ECHO to each destination."""
    wanted = tuple(dict.fromkeys(titles))
    with session() as opened:
        answered = sum(_echo(opened, title, local_aet) for title in wanted)
    return exit_status(answered, len(wanted))


def _echo(opened: Session, title: str, local_aet: str | None) -> bool:
    from archive.errors import DicomqError  # noqa: PLC0415 - see the package
    from workers.probing import route_to, send_echo  # noqa: PLC0415

    started = opened.clock.monotonic()
    try:
        route = route_to(opened.source.snapshot(), title, local_aet)
        status = send_echo(route, opened.clock)
    except DicomqError as error:
        click.echo(f"{inert(title)}: {inert(error)}")
        return False
    took_ms = (opened.clock.monotonic() - started) * 1000
    answer = "reached, but it knows no Verification" if status is None else f"status {status:04X}"
    click.echo(f"{inert(route)}, called by {inert(route.calling_aet)}: {answer}, {took_ms:.0f} ms")
    return True
