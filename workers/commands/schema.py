"""``celery -A workers schema``: brings the ledger to the schema of this release."""

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples
from workers.commands.session import session, told


@click.command(
    name="schema", cls=CeleryCommand, epilog=examples("schema --pre", "schema --check", "schema")
)
@click.option("--pre", is_flag=True, help="Only what the previous release can live with.")
@click.option(
    "--check", is_flag=True, help="Apply nothing; exit status 1 when something is missing."
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for PostgreSQL to answer.",
)
@told
def schema(*, pre: bool, check: bool, wait_s: float) -> int:
    """Apply the migrations that the ledger lacks.

    Every process applies what the previous release can live with when it starts. What it cannot
    live with (*_post_*) is applied by this command only: run it when no process of the previous
    release is left. A database without tables gets everything at once.
    """
    from archive.ledger.migrations import Stage  # noqa: PLC0415 - see the package

    with session(wait_s=max(wait_s, 5.0)) as opened:
        if not check:
            applied = opened.ledger.migrate(Stage.PRE if pre else Stage.ALL)
            click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")
        missing = opened.ledger.pending_migrations()
    for name in missing:
        click.echo(f"missing {name}")
    return int(check and bool(missing))
