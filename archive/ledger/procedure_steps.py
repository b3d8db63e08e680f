"""Modality performed procedure steps, kept as they were received."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from psycopg.types.json import Jsonb
from pydicom.dataset import Dataset

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import Announcements
from archive.model.procedure_step import StepStatus

_NUL = "\\u0000"


@dataclass(frozen=True, slots=True)
class ChangedStep:
    """A procedure step after a change."""

    pk: int
    study_instance_uid: str | None
    dataset: Dataset


def create(
    tx: Transaction,
    sop_instance_uid: str,
    dataset: Dataset,
    *,
    calling_aet: str,
    called_aet: str,
    study_instance_uid: str | None,
) -> bool:
    """Take a procedure step in; False when its SOP Instance UID is known already."""
    row = tx.execute(
        load_queries("procedure_steps")["create"],
        {
            "sop_instance_uid": sop_instance_uid,
            "calling_aet": calling_aet,
            "called_aet": called_aet,
            "study_instance_uid": study_instance_uid,
            "attributes": Jsonb(_json(dataset)),
        },
    ).fetchone()
    return row is not None


def lock(tx: Transaction, sop_instance_uid: str) -> StepStatus | None:
    """Return the status of a procedure step, held until the transaction ends; None: unknown."""
    query = load_queries("procedure_steps")["lock"]
    row = tx.execute(query, {"sop_instance_uid": sop_instance_uid}).fetchone()
    return StepStatus(row[0]) if row else None


def change(
    tx: Transaction,
    sop_instance_uid: str,
    dataset: Dataset,
    *,
    status: StepStatus | None,
    study_instance_uid: str | None,
) -> ChangedStep:
    """Replace attributes of a procedure step that is locked, and return the whole of it."""
    row = tx.execute(
        load_queries("procedure_steps")["set"],
        {
            "sop_instance_uid": sop_instance_uid,
            "status": status,
            "study_instance_uid": study_instance_uid,
            "attributes": Jsonb(_json(dataset)),
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - it is locked
    pk, study, attributes = row
    return ChangedStep(pk, study, Dataset.from_json(attributes))


def wait_for_objects(
    tx: Transaction,
    step: ChangedStep,
    announced: Announcements,
    sop_instance_uids: tuple[str, ...],
) -> None:
    """Have a completed procedure step announced once its instances are here."""
    parameters = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(announced).items()
    }
    tx.execute(
        load_queries("procedure_steps")["wait_for_objects"],
        parameters
        | {
            "study_instance_uid": step.study_instance_uid,
            "mpps_pk": step.pk,
            "sop_instance_uids": list(sop_instance_uids),
        },
    )


def _json(dataset: Dataset) -> dict[str, Any]:
    """Return the DICOM JSON model of a data set without what PostgreSQL cannot hold."""
    text = dataset.to_json(suppress_invalid_tags=True)
    record: dict[str, Any] = json.loads(text.replace(_NUL, ""))
    return record
