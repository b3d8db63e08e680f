"""``celery -A workers health``: whether a process of this host does its work, for supervisors."""

from typing import TYPE_CHECKING

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples
from workers.commands.session import CommandError, told

if TYPE_CHECKING:
    from workers.health import Finding


@click.command(
    name="health",
    cls=CeleryCommand,
    epilog=examples("health --kind export", "health --kind dispatcher"),
)
@click.option(
    "--kind",
    required=True,
    metavar="KIND",
    help="dispatcher, flower, or the kind of a worker: export, notify, commit …",
)
@click.option("--hostname", metavar="NAME", help="Node name of the worker. [default: KIND@host]")
@click.option(
    "--url",
    metavar="URL",
    default="http://127.0.0.1:5555/healthcheck",
    show_default=True,
    help="Where Flower answers.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 60),
    default=8.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
@told
def health(kind: str, hostname: str | None, url: str, timeout_s: float) -> None:
    """Ask a process of this host whether it does its work; exit status 2 when not.

    A worker answers a ping that goes through Redis and back. A dispatcher shows by its metrics
    (DICOMQ_METRICS_PORT) when it last completed a pass over the ledger. Flower answers HTTP.
    """
    from archive.errors import InvalidValueError  # noqa: PLC0415 - see the package
    from workers import health as checks  # noqa: PLC0415
    from workers.app import app  # noqa: PLC0415

    finding: Finding
    if kind == "dispatcher":
        finding = checks.dispatcher_health(app.settings(), timeout_s)
    elif kind == "flower":
        finding = checks.flower_health(url, timeout_s)
    else:
        try:
            finding = checks.worker_health(app, kind, hostname, timeout_s)
        except InvalidValueError as error:
            msg = f"{error}; or dispatcher, flower"
            raise CommandError(msg) from error
    if not finding.healthy:
        raise CommandError(finding.text)
    click.echo(finding.text)
