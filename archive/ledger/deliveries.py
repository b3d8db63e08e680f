"""What destinations acknowledged, per instance."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from psycopg.rows import dict_row

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import (
    DeliverySummary,
    InstanceReference,
    InstanceResult,
    InstanceToSend,
    StoredFile,
)
from archive.model.task import Task


def instances_to_send(
    tx: Transaction, task: Task, *, refused_too: bool = False
) -> list[InstanceToSend]:
    """Return the instances of an export task that are still to be delivered.

    Those that this task delivered in its present round are left out and, for a task staged by a
    rule, those that its exporter delivered before. So are those refused for good since the task
    was last scheduled, unless `refused_too` (dcmRetryOnWarning) asks for them.
    """
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            load_queries("deliveries")["instances_to_send"],
            {
                "study": task.study_instance_uid,
                "series": task.series_instance_uid,
                "sop": task.sop_instance_uid,
                "task_pk": task.pk,
                "round": task.round,
                "follow_up_only": task.follow_up_only,
                "exporter_id": task.exporter_id,
                "refused_too": refused_too,
            },
        ).fetchall()
    return [_instance_to_send(row) for row in rows]


def record(tx: Transaction, task: Task, results: Sequence[InstanceResult]) -> None:
    """Note what the destination answered for some instances in this attempt."""
    if not results:
        return
    tx.execute(
        load_queries("deliveries")["record"],
        {
            "task_pk": task.pk,
            "round": task.round,
            "exporter_id": task.exporter_id,
            "remote_aet": task.remote_aet,
            "attempt": task.attempt,
            "instance_pks": [result.instance_pk for result in results],
            "versions": [result.version for result in results],
            "delivered": [result.delivered for result in results],
            "permanent": [result.permanent for result in results],
            "dimse_statuses": [result.dimse_status for result in results],
            "messages": [result.message.replace("\0", "") for result in results],
        },
    )


def summary(tx: Transaction, task: Task) -> DeliverySummary:
    """Return the counts over all attempts of the task's present round."""
    parameters = {"task_pk": task.pk, "round": task.round}
    row = tx.execute(load_queries("deliveries")["summary"], parameters).fetchone()
    return DeliverySummary(*row) if row else DeliverySummary(0, 0, 0)


def held_by(tx: Transaction, study_instance_uid: str, exporter_id: str) -> list[InstanceReference]:
    """Return the study's current instances that the exporter's destination acknowledged."""
    rows = tx.execute(
        load_queries("deliveries")["held_by"],
        {"study": study_instance_uid, "exporter_id": exporter_id},
    )
    return [InstanceReference(*row) for row in rows]


def note_extent(tx: Transaction, task: Task, num_instances: int) -> None:
    """Note how many instances, of which modalities, an export task covers."""
    tx.execute(
        load_queries("deliveries")["note_extent"],
        {
            "task_pk": task.pk,
            "study": task.study_instance_uid,
            "series": task.series_instance_uid,
            "num_instances": num_instances,
        },
    )


def results(tx: Transaction, task_pk: int) -> list[tuple[str, InstanceResult]]:
    """Return (SOP Instance UID, result) of a task, newest first."""
    rows = tx.execute(load_queries("deliveries")["results"], {"task_pk": task_pk})
    return [
        (uid, InstanceResult(0, 0, delivered=delivered, dimse_status=status, message=message))
        for uid, delivered, status, message, _attempt, _time in rows
    ]


def _instance_to_send(row: dict[str, object]) -> InstanceToSend:
    file = None
    if row["storage_id"] is not None:
        file = StoredFile(
            storage_id=str(row["storage_id"]),
            storage_path=str(row["storage_path"]),
            transfer_syntax_uid=str(row["transfer_syntax_uid"]),
            object_size=int(str(row["object_size"])),
            dataset_offset=int(str(row["dataset_offset"])),
            digest=str(row["digest"]),
        )
    sending_aet = row["sending_aet"]
    return InstanceToSend(
        instance_pk=int(str(row["instance_pk"])),
        version=int(str(row["version"])),
        sop_class_uid=str(row["sop_class_uid"]),
        sop_instance_uid=str(row["sop_instance_uid"]),
        series_instance_uid=str(row["series_instance_uid"]),
        sending_aet=None if sending_aet is None else str(sending_aet),
        file=file,
        coercions=cast("Mapping[str, Any] | None", row["coercions"]),
    )
