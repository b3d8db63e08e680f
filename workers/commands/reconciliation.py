"""``studies show`` and ``studies incomplete``: how far studies came at their destinations."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples, form_options
from workers.commands.output import Form, inert, local_time, print_rows, print_table
from workers.commands.session import session, told

if TYPE_CHECKING:
    from archive.model.reconciliation import DestinationState, IncompleteStudy, Reconciliation
    from workers.commands.session import Session

_LISTED = 20
_COLUMNS = ("study", "received", "tasks open", "tasks failed", "uncommitted")


def reconciled(opened: "Session", study_instance_uid: str) -> "Reconciliation | None":
    """Return how far a study came; None when there is no such study."""
    from archive.ledger import reconciliation  # noqa: PLC0415 - see the package
    from workers.reconciling import expectations  # noqa: PLC0415

    expected = expectations(opened.source.snapshot())
    with opened.ledger.transaction() as tx:
        return reconciliation.reconcile(tx, study_instance_uid, expected)


def reconciliation_json(found: "Reconciliation") -> dict[str, Any]:
    """Return the answer for a study as JSON."""
    return asdict(found) | {
        "created_time": local_time(found.created_time),
        "complete": found.is_complete,
    }


def print_reconciliation(found: "Reconciliation") -> None:
    """Print how far a study came at each destination, and what lags."""
    rejected = f", {found.rejected} rejected" if found.rejected else ""
    click.echo(f"\n{found.received} instances received{rejected}")
    heads = ("exporter", "destination", "demanded", "exported", "acknowledged", "committed")
    print_table((*heads, "notified"), [_state(each) for each in found.destinations])
    lagging = [row for each in found.destinations for row in _lagging(each)]
    if lagging:
        print_table(("exporter", "instance", "lacks", "why"), lagging[:_LISTED])
    if len(lagging) > _LISTED:
        click.echo(f"and {len(lagging) - _LISTED} more; --json lists them all")


def _state(state: "DestinationState") -> tuple[object, ...]:
    told_aets = ", ".join(f"{aet} {count}" for aet, count in state.notified.items())
    committed = "" if state.committed is None else state.committed
    counts = (state.demanded, state.exported, state.acknowledged, committed)
    return (state.exporter_id, state.remote_aet, *counts, told_aets)


def _lagging(state: "DestinationState") -> Iterator[tuple[object, ...]]:
    for each in state.lagging:
        lacks = f"{each.stage} ({each.aet})"
        yield state.exporter_id, each.sop_instance_uid, lacks, inert(each.why)


@click.command(
    "incomplete", cls=CeleryCommand, epilog=examples("studies incomplete --older-than PT1H")
)
@click.option("--older-than", metavar="DURATION", help="Received so long ago, as PT1H or P1D.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True)
@form_options
@told
def incomplete(form: Form, older_than: str | None, limit: int) -> None:
    """List studies for which something is not done, the oldest first."""
    from archive.ledger import reconciliation  # noqa: PLC0415 - see the package

    older_than_s = _seconds(older_than)
    with session() as opened, opened.ledger.statement() as tx:
        found = reconciliation.incomplete(tx, older_than_s=older_than_s, limit=limit)
    print_rows(
        form,
        _COLUMNS,
        [_row(each) for each in found],
        lambda: (asdict(each) | {"created_time": local_time(each.created_time)} for each in found),
        right=_COLUMNS[2:],
    )


def _seconds(text: str | None) -> float:
    from archive.model.durations import parse_duration  # noqa: PLC0415 - see the package

    if text is None:
        return 0.0
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from error


def _row(study: "IncompleteStudy") -> tuple[object, ...]:
    counts = (study.waiting, study.failed, study.uncommitted)
    return (study.study_instance_uid, local_time(study.created_time), *counts)
