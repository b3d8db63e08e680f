"""What the archive holds, study by study, and which destinations hold it too."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Conditions on studies, which hold together; None means any.

    Attributes
    ----------
    patient_name
        Beginning of the name, in any case.
    study_date_since, study_date_until
        DA values (YYYYMMDD), both included.
    """

    study_instance_uids: tuple[str, ...] = ()
    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    modality: str | None = None
    study_date_since: str | None = None
    study_date_until: str | None = None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study in a list."""

    pk: int
    study_instance_uid: str
    patient_id: str
    patient_name: str | None
    study_date: str | None
    study_time: str | None
    accession_number: str | None
    study_description: str | None
    modalities: list[str]
    num_series: int
    num_instances: int
    created_time: datetime


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """A series in a list."""

    series_instance_uid: str
    modality: str | None
    series_number: str | None
    series_description: str | None
    num_instances: int


@dataclass(frozen=True, slots=True)
class Holding:
    """How many current instances of a study a destination acknowledged."""

    exporter_id: str
    remote_aet: str
    num_instances: int
    latest_time: datetime


_CONDITIONS: dict[str, LiteralString] = {
    "study_instance_uids": "t.study_instance_uid = ANY(%(study_instance_uids)s)",
    "patient_id": "p.patient_id = %(patient_id)s",
    "patient_name": "starts_with(lower(p.patient_name), lower(%(patient_name)s))",
    "accession_number": "t.accession_number = %(accession_number)s",
    "modality": (
        "EXISTS (SELECT FROM series m WHERE m.study_fk = t.pk AND m.modality = %(modality)s)"
    ),
    "study_date_since": "t.study_date >= %(study_date_since)s",
    "study_date_until": "t.study_date <= %(study_date_until)s",
}


def page(
    tx: Transaction, wanted: StudyFilter, *, before_pk: int | None = None, limit: int = 50
) -> list[StudySummary]:
    """Return matching studies, the latest received first, from before a primary key on."""
    conditions, parameters = _matching(wanted)
    parameters["limit"] = limit
    if before_pk is not None:
        conditions.append(sql.SQL("t.pk < %(before_pk)s"))
        parameters["before_pk"] = before_pk
    query = sql.SQL(load_queries("studies")["page"]).format(
        conditions=sql.SQL(" AND ").join(conditions)
    )
    return [StudySummary(*row) for row in tx.execute(query, parameters)]


def count(tx: Transaction, wanted: StudyFilter) -> int:
    """Return how many studies match."""
    conditions, parameters = _matching(wanted)
    query = sql.SQL(load_queries("studies")["count"]).format(
        conditions=sql.SQL(" AND ").join(conditions)
    )
    row = tx.execute(query, parameters).fetchone()
    return int(row[0]) if row else 0


def _matching(wanted: StudyFilter) -> tuple[list[sql.SQL], dict[str, Any]]:
    parameters: dict[str, Any] = {}
    conditions = [sql.SQL("true")]
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value:
            conditions.append(sql.SQL(condition))
            parameters[name] = list(value) if isinstance(value, tuple) else value
    return conditions, parameters


def series(tx: Transaction, study_instance_uid: str) -> list[SeriesSummary]:
    """Return the series of a study in order of reception."""
    rows = tx.execute(load_queries("studies")["series"], {"study": study_instance_uid})
    return [SeriesSummary(*row) for row in rows]


def holdings(tx: Transaction, study_instance_uid: str) -> list[Holding]:
    """Return what destinations hold of a study, by exporter."""
    rows = tx.execute(load_queries("studies")["holdings"], {"study": study_instance_uid})
    return [Holding(*row) for row in rows]
