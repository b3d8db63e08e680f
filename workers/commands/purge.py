"""``celery -A workers studies purge``: drops local files that another archive can give back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands.options import examples
from workers.commands.output import (
    NONE,
    confirmed,
    counted,
    exit_status,
    inert,
    number,
    print_json,
)
from workers.commands.session import Session, session, told

if TYPE_CHECKING:
    from archive.ledger.purging import PurgeFilter
    from workers.purging import PurgeReport


_KEYWORDS = {
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "AccessionNumber": "accession_number",
    "ModalitiesInStudy": "modality",
    "StudyDate": "dates",
}


@dataclass(frozen=True, slots=True)
class _Order:
    uids: tuple[str, ...]
    external_aet: str | None
    force: bool
    dry_run: bool


@click.command(
    "purge",
    cls=CeleryCommand,
    epilog=examples(
        "studies purge 1.2.3",
        "studies purge 1.2.3 --external-aet LTA --yes",
        "studies purge --date -20201231 --modality CT --older-than P30D --dry-run",
        "studies purge --filter PatientID=4711 --filter StudyDate=20250101-20251231",
    ),
)
@click.argument("study_uids", metavar="[UID]...", nargs=-1)
@click.option("--patient-id", help="Filter: Patient ID.")
@click.option("--patient", "patient_name", help="Filter: beginning of the name, in any case.")
@click.option("--accession", "accession_number", help="Filter: accession number.")
@click.option("--modality", help="Filter: a modality of the study.")
@click.option("--date", "dates", help="Filter: study date, 20261121, or a range a-b, a-, -b.")
@click.option("--older-than", metavar="DURATION", help="Filter: received so long ago, as P30D.")
@click.option(
    "--filter",
    "pairs",
    metavar="NAME=VALUE",
    multiple=True,
    help=f"The same in words of DICOM: {', '.join(_KEYWORDS)}.",
)
@click.option("--external-aet", metavar="AET", help="Archive that holds all of these studies.")
@click.option("--force", is_flag=True, help="Purge even what nobody else is known to hold.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@told
def purge(**values: Any) -> int:  # noqa: ANN401 - taken apart below
    """Drop the local files of studies; the index stays.

    Refused for a study with objects that no other archive has committed and that --external-aet
    does not name, or with exports that are not done. C-MOVE fetches purged objects back.
    """
    with session() as opened:
        order = _order(opened, values)
        if not order.uids:
            click.echo("no study with local files fits")
            return 0
        if not (values["yes"] or order.dry_run):
            loss = ", WHOEVER HOLDS THEM OR NOT" if order.force else ""
            studies = counted(len(order.uids), "study", "studies")
            if not confirmed(f"Drop the local files of {studies}{loss}?"):
                click.echo("nothing was changed", err=True)
                return NONE
        return _purge(opened, order, as_json=values["as_json"])


def _order(opened: Session, values: dict[str, Any]) -> _Order:
    from archive.ledger import purging  # noqa: PLC0415 - see the package
    from workers.purging import check_external_aet  # noqa: PLC0415

    uids: tuple[str, ...] = tuple(dict.fromkeys(values["study_uids"]))
    wanted = _filter(values | _worded(values))
    if bool(uids) == (wanted is not None):
        msg = "give either Study Instance UIDs or a filter"
        raise click.UsageError(msg)
    if values["external_aet"] is not None:
        check_external_aet(opened.source.snapshot(), values["external_aet"])
    if wanted is not None:
        with opened.ledger.statement() as tx:
            uids = tuple(purging.studies_matching(tx, wanted))
    return _Order(uids, values["external_aet"], values["force"], values["dry_run"])


def _worded(values: dict[str, Any]) -> dict[str, str]:
    """Return what ``--filter`` says, by the names of the other options."""
    found: dict[str, str] = {}
    for pair in values["pairs"]:
        keyword, sign, value = pair.partition("=")
        name = _KEYWORDS.get(keyword)
        if name is None or not sign or not value:
            msg = f"{pair!r}: write NAME=VALUE with one of {', '.join(_KEYWORDS)}"
            raise click.BadParameter(msg, param_hint="--filter")
        if name in found or values[name] is not None:
            msg = f"{keyword} is given twice"
            raise click.BadParameter(msg, param_hint="--filter")
        found[name] = value
    return found


def _filter(values: dict[str, Any]) -> "PurgeFilter | None":
    from archive.ledger.purging import PurgeFilter  # noqa: PLC0415 - see the package
    from archive.model.durations import parse_duration  # noqa: PLC0415

    texts = ("patient_id", "patient_name", "accession_number", "modality")
    if all(values[name] is None for name in (*texts, "dates", "older_than")):
        return None
    since, dash, until = (values["dates"] or "").partition("-")
    for date in (since, until):
        if date and not (date.isdecimal() and len(date) == len("YYYYMMDD")):
            msg = f"{date!r} is not a date; write 20261121"
            raise click.BadParameter(msg, param_hint="--date")
    older_than = values["older_than"]
    return PurgeFilter(
        **{name: values[name] for name in texts},
        study_date_from=since or None,
        study_date_to=(until if dash else since) or None,
        older_than_s=None if older_than is None else parse_duration(older_than),
    )


def _purge(opened: Session, order: _Order, *, as_json: bool) -> int:
    from archive.storage.base import Storages  # noqa: PLC0415 - see the package
    from workers.purging import purge_studies  # noqa: PLC0415

    storages = Storages(opened.source.snapshot(), opened.settings)
    reports = []
    for report in purge_studies(
        opened.ledger,
        storages,
        order.uids,
        external_aet=order.external_aet,
        force=order.force,
        dry_run=order.dry_run,
    ):
        reports.append(report)
        if not as_json:
            _tell(report, "would be " if order.dry_run else "")
    if as_json:
        print_json([_as_json(report) | {"dry_run": order.dry_run} for report in reports])
    purged = sum(report.study.refusal is None for report in reports)
    return exit_status(purged, len(reports))


def _tell(report: "PurgeReport", would: str) -> None:
    study = report.study
    uid = inert(study.study_instance_uid)
    if study.refusal is not None:
        click.echo(f"{uid}: {would}refused, {study.refusal}", err=True)
        return
    click.echo(
        f"{uid}: {number(study.instances)} objects {would}purged, "
        f"{number(len(study.files))} files {would}deleted"
    )
    for reason in report.kept_files:
        click.echo(f"  not deleted, the next sweep does it: {inert(reason)}", err=True)


def _as_json(report: "PurgeReport") -> dict[str, object]:
    study = report.study
    return {
        "study_instance_uid": study.study_instance_uid,
        "purged": study.refusal is None,
        "refusal": study.refusal,
        "instances": study.instances,
        "files": len(study.files),
        "files_not_deleted": list(report.kept_files),
    }
