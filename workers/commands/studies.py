"""``celery -A workers studies``: what the archive holds, and exporting it by hand."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import complete_configured, examples, form_options, instant
from workers.commands.output import (
    SOME,
    Form,
    inert,
    local_time,
    number,
    print_fields,
    print_json,
    print_rows,
    print_table,
)
from workers.commands.purge import purge
from workers.commands.reconciliation import (
    incomplete,
    print_reconciliation,
    reconciled,
    reconciliation_json,
)
from workers.commands.session import CommandError, Session, session, told

if TYPE_CHECKING:
    from archive.ledger.studies import StudyFilter, StudySummary
    from workers.ordering import CsvContent, Entity, Order

_COLUMNS = (
    *("study", "patient ID", "patient", "date", "modalities", "series", "instances"),
    *("accession", "description", "received"),
)


@click.group(
    name="studies",
    epilog=examples("studies list --patient-id 4711", "studies export 1.2.3 -e STORESCP"),
)
def studies() -> None:
    """Show what the archive holds, and export it by hand."""


studies.add_command(purge)
studies.add_command(incomplete)


@studies.command("list", cls=CeleryCommand, epilog=examples("studies list --date 20261101-"))
@click.option("--patient-id", help="Patient ID.")
@click.option("--patient", "patient_name", help="Beginning of the name, in any case.")
@click.option("--accession", "accession_number", help="Accession number.")
@click.option("--modality", help="A modality of the study.")
@click.option("--date", "dates", help="Study date: 20261121, or a range a-b, a-, -b.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True)
@form_options
@told
def list_studies(form: Form, dates: str | None, limit: int, **conditions: str | None) -> None:
    """List studies, the latest received first."""
    from archive.ledger import studies as ledger_studies  # noqa: PLC0415 - see the package

    wanted = _filter(dates, conditions)
    with session() as opened, opened.ledger.statement() as tx:
        found = ledger_studies.page(tx, wanted, limit=limit)
    print_rows(
        form,
        _COLUMNS,
        [_row(study) for study in found],
        lambda: map(_as_json, found),
        right=("series", "instances"),
    )


def _filter(dates: str | None, conditions: dict[str, str | None]) -> "StudyFilter":
    from archive.ledger.studies import StudyFilter  # noqa: PLC0415 - see the package

    since, dash, until = (dates or "").partition("-")
    for date in (since, until):
        if date and not (date.isdecimal() and len(date) == len("YYYYMMDD")):
            msg = f"{date!r} is not a date; write 20261121"
            raise click.BadParameter(msg, param_hint="--date")
    return StudyFilter(
        study_date_since=since or None,
        study_date_until=(until if dash else since) or None,
        **{name: value for name, value in conditions.items() if value is not None},  # type: ignore[arg-type] # names of its fields
    )


def _row(study: "StudySummary") -> tuple[object, ...]:
    return (
        *(study.study_instance_uid, study.patient_id, study.patient_name, study.study_date),
        *("\\".join(study.modalities), study.num_series, study.num_instances),
        *(study.accession_number, study.study_description, local_time(study.created_time)),
    )


def _as_json(study: "StudySummary") -> dict[str, Any]:
    from workers.task_json import time_text  # noqa: PLC0415 - see the package

    return asdict(study) | {"created_time": time_text(study.created_time)}


@studies.command("show", cls=CeleryCommand, epilog=examples("studies show 1.2.3"))
@click.argument("study_instance_uid", metavar="UID")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@told
def show_study(study_instance_uid: str, *, as_json: bool) -> None:
    """Show a study with its series, and which destinations hold it."""
    from archive.ledger import studies as ledger_studies  # noqa: PLC0415 - see the package
    from archive.ledger.studies import StudyFilter  # noqa: PLC0415

    with session() as opened, opened.ledger.transaction() as tx:
        found = ledger_studies.page(tx, StudyFilter((study_instance_uid,)))
        if not found:
            msg = f"the archive has no study {inert(study_instance_uid)}"
            raise CommandError(msg)
        series = ledger_studies.series(tx, study_instance_uid)
        holdings = ledger_studies.holdings(tx, study_instance_uid)
        state = reconciled(opened, study_instance_uid)
    study = _as_json(found[0])
    if as_json:
        held = [asdict(each) | {"latest_time": local_time(each.latest_time)} for each in holdings]
        more = {"reconciliation": reconciliation_json(state)} if state else {}
        print_json(study | {"series": [asdict(each) for each in series], "holdings": held} | more)
        return
    print_fields(
        (name.replace("_", " "), " ".join(value) if isinstance(value, list | tuple) else value)
        for name, value in study.items()
    )
    print_table(
        ("series", "modality", "number", "description", "instances"),
        [tuple(asdict(each).values()) for each in series],
        right=("number", "instances"),
    )
    total = found[0].num_instances
    print_table(
        ("exporter", "destination", "holds", "latest delivery"),
        [
            (
                *(each.exporter_id, each.remote_aet),
                *(f"{each.num_instances} of {total}", local_time(each.latest_time)),
            )
            for each in holdings
        ],
    )
    if state is not None:
        print_reconciliation(state)


@studies.command(
    "export",
    cls=CeleryCommand,
    epilog=examples(
        "studies export 1.2.3 -e STORESCP",
        "studies export 1.2.3 --series 1.2.3.1 -e STORESCP --at +2h",
        "studies export --csv studies.csv -e STORESCP --batch migration-7",
        "studies export 1.2.3 -e STORESCP --only-ian",
    ),
)
@click.argument("study_uids", metavar="[UID]...", nargs=-1)
@click.option(
    "-e",
    "--exporter",
    "exporter_id",
    required=True,
    help="Exporter.",
    shell_complete=complete_configured("exporters"),
)
@click.option("--series", "series_uid", metavar="UID", help="This series of the study only.")
@click.option("--instance", "sop_uid", metavar="UID", help="This instance of the series only.")
@click.option(
    "--csv",
    "csv_file",
    type=click.File("r", encoding="utf-8"),
    help="Study Instance UIDs in a CSV file; - is the standard input.",
)
@click.option("--column", default=1, show_default=True, help="Column of the study, from 1.")
@click.option("--series-column", type=int, help="Column of the series, if series are exported.")
@click.option("--delimiter", default=",", show_default=True, help="Between columns; often ';'.")
@click.option("--at", metavar="TIME", help="When: +2h, 202611212200, 2026-11-21T22:00; else now.")
@click.option("--batch", "batch_id", metavar="ID", help="Name that holds the tasks together.")
@click.option("--only-ian", is_flag=True, help="Send the notifications that follow, no objects.")
@click.option("--only-stgcmt", is_flag=True, help="Request storage commitment, send no objects.")
@told
def export_studies(**values: Any) -> int:  # noqa: ANN401 - taken apart below
    """Export studies, a series or an instance: everything, also what was sent before."""
    order = _order(values)
    with session() as opened:
        if values["csv_file"] is not None:
            return _export_csv(opened, order, values)
        entities = _entities(values)
        pks = opened.orders().place(order, entities)
        _warn_of_unknown(opened, values["study_uids"])
    click.echo(f"{_tasks(pks)} scheduled: {', '.join(map(str, pks))}")
    return 0


def _order(values: dict[str, Any]) -> "Order":
    from workers.ordering import Only, Order  # noqa: PLC0415 - see the package

    if values["only_ian"] and values["only_stgcmt"]:
        msg = "give either --only-ian or --only-stgcmt"
        raise click.UsageError(msg)
    only = Only.IAN if values["only_ian"] else None
    only = Only.COMMITMENT if values["only_stgcmt"] else only
    return Order(values["exporter_id"], instant(values["at"], "--at"), values["batch_id"], only)


def _entities(values: dict[str, Any]) -> "list[Entity]":
    from workers.ordering import Entity  # noqa: PLC0415 - see the package

    uids, series_uid, sop_uid = values["study_uids"], values["series_uid"], values["sop_uid"]
    if not uids:
        msg = "give Study Instance UIDs, or --csv FILE"
        raise click.UsageError(msg)
    if len(uids) > 1 and series_uid is not None:
        msg = "--series goes with one Study Instance UID"
        raise click.UsageError(msg)
    return [Entity(uid, series_uid, sop_uid) for uid in dict.fromkeys(uids)]


def _warn_of_unknown(opened: Session, study_uids: tuple[str, ...]) -> None:
    from archive.ledger import studies as ledger_studies  # noqa: PLC0415 - see the package
    from archive.ledger.studies import StudyFilter  # noqa: PLC0415

    with opened.ledger.statement() as tx:
        found = ledger_studies.page(tx, StudyFilter(study_uids), limit=len(study_uids))
    known = {study.study_instance_uid for study in found}
    for uid in study_uids:
        if uid not in known:
            click.echo(f"note: the archive has no study {inert(uid)} yet", err=True)


def _export_csv(opened: Session, order: "Order", values: dict[str, Any]) -> int:
    if values["study_uids"] or values["series_uid"] or values["sop_uid"]:
        msg = "--csv goes without UIDs on the command line"
        raise click.UsageError(msg)
    content = _read_csv(values["csv_file"], values)
    for row in content.refused:
        click.echo(f"line {row.line} refused: {inert(row.reason)}", err=True)
    if not content.entities:
        msg = f"nothing to export: {number(len(content.refused))} rows refused, no other found"
        raise CommandError(msg)
    pks = opened.orders().place(order, content.entities)
    refused = f", {number(len(content.refused))} rows refused" if content.refused else ""
    click.echo(f"{_tasks(pks)} scheduled{refused}")
    return SOME if content.refused else 0


def _read_csv(file: TextIO, values: dict[str, Any]) -> "CsvContent":
    from archive.errors import InvalidValueError  # noqa: PLC0415 - see the package
    from workers.ordering import CsvColumns, read_csv  # noqa: PLC0415

    delimiter = values["delimiter"]
    if len(delimiter) != 1:
        msg = "is one character"
        raise click.BadParameter(msg, param_hint="--delimiter")
    try:
        columns = CsvColumns(values["column"], values["series_column"], delimiter)
        return read_csv(file, columns)
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from error
    except UnicodeDecodeError as error:
        msg = f"{file.name} is not UTF-8: {error.reason} at byte {error.start}"
        raise CommandError(msg) from error


def _tasks(pks: Iterable[int]) -> str:
    count = len(list(pks))
    return f"{number(count)} task{'' if count == 1 else 's'}"
