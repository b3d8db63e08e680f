"""``celery -A workers retrieve``: asks another archive to send studies, series or instances."""

from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples, instant
from workers.commands.output import SOME, inert, number, print_json
from workers.commands.session import CommandError, session, told

if TYPE_CHECKING:
    from workers.ordering import CsvContent
    from workers.requesting import Requested, RetrieveOrder


@click.command(
    "retrieve",
    cls=CeleryCommand,
    epilog=examples(
        "retrieve 1.2.3 --from LTA",
        "retrieve 1.2.3 --series 1.2.3.1 --from LTA --to STORESCP",
        "retrieve --csv studies.csv --from LTA --at +2h --batch migration-7",
    ),
)
@click.argument("study_uids", metavar="[UID]...", nargs=-1)
@click.option("--from", "remote_aet", metavar="AET", required=True, help="Archive that is asked.")
@click.option("--to", "destination_aet", metavar="AET", help="Where it sends to [default: here].")
@click.option("--local", "local_aet", metavar="AET", help="AE that asks [default: the first].")
@click.option("--series", "series_uid", metavar="UID", help="This series of the study only.")
@click.option("--instance", "sop_uid", metavar="UID", help="This instance of the series only.")
@click.option(
    "--csv",
    "csv_file",
    type=click.File("r", encoding="utf-8"),
    help="Study Instance UIDs in a CSV file; - is the standard input.",
)
@click.option("--column", default=1, show_default=True, help="Column of the study, from 1.")
@click.option("--series-column", type=int, help="Column of the series, if series are retrieved.")
@click.option("--delimiter", default=",", show_default=True, help="Between columns; often ';'.")
@click.option("-Q", "--queue", "queue_name", default="Retrieve", show_default=True, help="Queue.")
@click.option("--at", metavar="TIME", help="When: +2h, 202611212200, 2026-11-21T22:00; else now.")
@click.option("--batch", "batch_id", metavar="ID", help="Name that holds the tasks together.")
@click.option("--json", "as_json", is_flag=True, help="Print the task IDs as JSON.")
@told
def retrieve(**values: Any) -> int:  # noqa: ANN401 - taken apart below
    """Ask another archive for studies, a series or an instance with C-MOVE.

    What is waiting or under way already is not asked for twice. `tasks cancel` ends a running
    one with a C-CANCEL.
    """
    from workers.requesting import Requests  # noqa: PLC0415 - see the package

    content = _content(values)
    for row in content.refused:
        click.echo(f"line {row.line} refused: {inert(row.reason)}", err=True)
    if not content.entities:
        msg = f"nothing to retrieve: {number(len(content.refused))} rows refused, no other found"
        raise CommandError(msg)
    with session() as opened:
        requests = Requests(opened.ledger, opened.source, actor=opened.actor)
        requested = requests.place(_order(values), content.entities)
    _tell(requested, as_json=values["as_json"])
    return SOME if content.refused else 0


def _order(values: dict[str, Any]) -> "RetrieveOrder":
    from workers.requesting import RetrieveOrder  # noqa: PLC0415 - see the package

    return RetrieveOrder(
        values["remote_aet"],
        values["destination_aet"],
        values["local_aet"],
        values["queue_name"],
        instant(values["at"], "--at"),
        values["batch_id"],
    )


def _content(values: dict[str, Any]) -> "CsvContent":
    from archive.errors import InvalidValueError  # noqa: PLC0415 - see the package
    from workers.ordering import CsvColumns, CsvContent, Entity, read_csv  # noqa: PLC0415

    uids, series_uid, sop_uid = values["study_uids"], values["series_uid"], values["sop_uid"]
    if bool(uids) == (values["csv_file"] is not None):
        msg = "give either Study Instance UIDs or --csv FILE"
        raise click.UsageError(msg)
    if series_uid is not None and len(uids) != 1:
        msg = "--series goes with one Study Instance UID"
        raise click.UsageError(msg)
    try:
        if values["csv_file"] is None:
            studies = dict.fromkeys(uids)
            return CsvContent(tuple(Entity(uid, series_uid, sop_uid) for uid in studies), ())
        columns = CsvColumns(values["column"], values["series_column"], values["delimiter"])
        return read_csv(values["csv_file"], columns)
    except InvalidValueError as error:
        raise click.UsageError(str(error)) from error
    except UnicodeDecodeError as error:
        msg = f"the file is not UTF-8: {error.reason} at byte {error.start}"
        raise CommandError(msg) from error


def _tell(requested: "Requested", *, as_json: bool) -> None:
    if as_json:
        print_json({"staged": list(requested.staged), "joined": list(requested.joined)})
        return
    click.echo(f"{_tasks(len(requested.staged))} scheduled{_ids(requested.staged)}")
    if requested.joined:
        click.echo(f"{_tasks(len(requested.joined))} for the same already{_ids(requested.joined)}")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{number(count)} tasks"


def _ids(pks: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, pks[:20]))
    return f": {shown}{' …' if len(pks) > 20 else ''}" if pks else ""  # noqa: PLR2004 - enough
