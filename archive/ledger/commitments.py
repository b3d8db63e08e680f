"""Requests for storage commitment, their reports, and what has to be done about what is open."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from archive.errors import NoSuchTaskError
from archive.ledger import tasks
from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.commitment import (
    MAY_PASS,
    CommitmentStatus,
    OpenInstance,
    Report,
    Step,
)
from archive.model.task import (
    CommitmentDetails,
    ExportIntent,
    IanDetails,
    NewTask,
    Task,
    TaskKind,
)


@dataclass(frozen=True, slots=True)
class RequestedInstance:
    """An instance whose commitment is to be asked for.

    Attributes
    ----------
    resent
        It was sent again because an earlier request for it came to nothing.
    """

    instance_pk: int
    version: int
    sop_class_uid: str
    sop_instance_uid: str
    resent: bool


@dataclass(frozen=True, slots=True)
class RecordedReport:
    """What a report changed.

    Attributes
    ----------
    unknown
        Instances it names that were not asked for.
    late
        The request was dealt with before: reported already, or its deadline was over.
    staged
        Tasks that waited for this commitment and follow now.
    """

    commitment_pk: int
    newly_committed: int
    unknown: int
    late: bool
    status: CommitmentStatus
    num_instances: int
    num_committed: int
    num_failed: int
    remote_aet: str
    study_instance_uid: str
    staged: int = 0


@dataclass(frozen=True, slots=True)
class DueCommitment:
    """A request whose deadline is over."""

    pk: int
    task_fk: int
    device_name: str
    local_aet: str
    remote_aet: str
    exporter_id: str | None
    batch_id: str | None
    study_instance_uid: str
    rung: int
    after_committed: list[dict[str, Any]]
    reports: int
    requested_time: datetime


@dataclass(frozen=True, slots=True)
class CommitmentSummary:
    """A request in a list."""

    pk: int
    transaction_uid: str
    task_fk: int
    exporter_id: str | None
    remote_aet: str
    status: str
    rung: int
    num_instances: int
    num_committed: int
    num_failed: int
    reports: int
    requested_time: datetime
    accepted_time: datetime | None
    reported_time: datetime | None
    deadline: datetime | None
    escalated_time: datetime | None


@dataclass(frozen=True, slots=True)
class CommitmentGauges:
    """Numbers for alerts: requests that wait, that are overdue, and that were given up."""

    pending: int
    overdue: int
    given_up: int


def details(tx: Transaction, task_pk: int) -> CommitmentDetails:
    """Return what an STGCMT_SCU task asks for.

    Raises
    ------
    NoSuchTaskError
        When the task has no such details.
    """
    row = tx.execute(load_queries("commitments")["detail"], {"task_pk": task_pk}).fetchone()
    if row is None:
        msg = f"task {task_pk} asks for no commitment or was deleted"
        raise NoSuchTaskError(msg)
    export_task_pk, export_round, held_by, again_of, rung, after, verdict = row
    return CommitmentDetails(
        export_task_pk=export_task_pk,
        export_round=export_round,
        held_by_exporter=held_by,
        again_of=again_of,
        rung=rung,
        after_committed=tuple(_new_task(each) for each in after),
        verdict=verdict,
    )


def clear_verdict(tx: Transaction, task_pk: int) -> None:
    """Have a task whose verdict is said ask anew when it is rescheduled."""
    tx.execute(load_queries("commitments")["clear_verdict"], {"task_pk": task_pk})


def to_request(tx: Transaction, task: Task) -> list[RequestedInstance]:
    """Return the instances whose commitment the task has still to ask for, in order."""
    rows = tx.execute(load_queries("commitments")["to_request"], {"task_pk": task.pk})
    return [RequestedInstance(*row) for row in rows]


def open_request(
    tx: Transaction,
    task: Task,
    transaction_uid: str,
    *,
    instances: Sequence[RequestedInstance],
    rung: int,
    retrieve_aet: str | None,
) -> int:
    """Remember a request that is about to be sent; return its primary key.

    Parameters
    ----------
    retrieve_aet
        Where the instances can be retrieved once they are committed, whatever the report says.
    """
    row = tx.execute(
        load_queries("commitments")["open_request"],
        {
            "task_pk": task.pk,
            "transaction_uid": transaction_uid,
            "rung": rung,
            "retrieve_aet": retrieve_aet,
            "instance_pks": [each.instance_pk for each in instances],
            "versions": [each.version for each in instances],
            "uids": [each.sop_instance_uid for each in instances],
        },
    ).fetchone()
    if row is None:
        msg = f"task {task.pk} was deleted while it was performed"
        raise NoSuchTaskError(msg)
    return int(row[0])


def accept_request(tx: Transaction, pk: int, *, deadline_s: float) -> None:
    """Note that the peer took a request: its report is due in `deadline_s` seconds."""
    parameters = {"pk": pk, "deadline_s": deadline_s}
    tx.execute(load_queries("commitments")["accept_request"], parameters)


def refuse_request(tx: Transaction, pk: int) -> None:
    """Forget a request that the peer refused."""
    tx.execute(load_queries("commitments")["refuse_request"], {"pk": pk})


def record_report(tx: Transaction, report: Report, *, actor: str) -> RecordedReport | None:
    """Enter a report into its request and stage what waited for it.

    Returns
    -------
    RecordedReport or None
        None when no such request was ever sent.
    """
    committed = [each for each in report.instances if each.failure_reason is None]
    failed = [each for each in report.instances if each.failure_reason is not None]
    row = tx.execute(
        load_queries("commitments")["record_report"],
        {
            "transaction_uid": report.transaction_uid,
            "committed": [each.sop_instance_uid for each in committed],
            "aets": [each.retrieve_aet for each in committed],
            "failed": [each.sop_instance_uid for each in failed],
            "reasons": [each.failure_reason for each in failed],
            "may_pass": sorted(MAY_PASS),
        },
    ).fetchone()
    if row is None:
        return None
    pk, newly_committed, unknown, late, status, *counts = row
    num_instances, num_committed, num_failed, remote_aet, study, exporter_id, after = counts
    staged = 0
    if newly_committed and after and _is_study_committed(tx, study, exporter_id, remote_aet):
        for each in after:
            reason = f"all committed by {remote_aet}"
            tasks.stage_follow_up(tx, _new_task(each), actor=actor, reason=reason)
        staged = len(after)
    return RecordedReport(
        commitment_pk=pk,
        newly_committed=newly_committed,
        unknown=unknown,
        late=late,
        status=CommitmentStatus(status),
        num_instances=num_instances,
        num_committed=num_committed,
        num_failed=num_failed,
        remote_aet=remote_aet,
        study_instance_uid=study,
        staged=staged,
    )


def _is_study_committed(
    tx: Transaction, study: str, exporter_id: str | None, remote_aet: str
) -> bool:
    parameters = {"study": study, "exporter_id": exporter_id, "remote_aet": remote_aet}
    row = tx.execute(load_queries("commitments")["is_study_committed"], parameters).fetchone()
    return bool(row and row[0])


def due(tx: Transaction, device_name: str, limit: int = 20) -> list[DueCommitment]:
    """Lock and return requests whose deadline is over; `close_due` each of them."""
    with tx.cursor(row_factory=class_row(DueCommitment)) as cursor:
        return cursor.execute(
            load_queries("commitments")["due"], {"device_name": device_name, "limit": limit}
        ).fetchall()


def open_instances(tx: Transaction, request: DueCommitment) -> tuple[list[OpenInstance], bool]:
    """Return what nobody has committed of a request, and whether we delivered all of it."""
    rows = tx.execute(
        load_queries("commitments")["open_instances"],
        {
            "pk": request.pk,
            "exporter_id": request.exporter_id,
            "remote_aet": request.remote_aet,
        },
    ).fetchall()
    instances = [OpenInstance(pk, uid, reason) for pk, uid, reason, _ in rows]
    return instances, all(delivered for *_, delivered in rows)


def note_step(tx: Transaction, pk: int, step: Step, instances: Sequence[OpenInstance]) -> None:
    """Note what is done about some instances of a request."""
    tx.execute(
        load_queries("commitments")["note_step"],
        {"pk": pk, "step": step, "instance_pks": [each.instance_pk for each in instances]},
    )


def close_due(tx: Transaction, pk: int, status: CommitmentStatus | None) -> None:
    """Note that a request that was due has been dealt with; None: by what was reported."""
    tx.execute(load_queries("commitments")["close_due"], {"pk": pk, "status": status})


def export_again(
    tx: Transaction, intent: ExportIntent, study: str, instances: Sequence[OpenInstance]
) -> None:
    """Stage an export of just these instances, which the exporter delivered before."""
    tx.execute(
        load_queries("commitments")["export_again"],
        {
            "intent": Jsonb(asdict(intent)),
            "study": study,
            "instance_pks": [each.instance_pk for each in instances],
        },
    )


def after_committed(request: DueCommitment) -> tuple[NewTask, ...]:
    """Return the tasks that wait for the commitment of a request."""
    return tuple(_new_task(each) for each in request.after_committed)


def of_study(tx: Transaction, study_instance_uid: str) -> list[CommitmentSummary]:
    """Return the requests for a study, oldest first."""
    with tx.cursor(row_factory=class_row(CommitmentSummary)) as cursor:
        query = load_queries("commitments")["of_study"]
        return cursor.execute(query, {"study": study_instance_uid}).fetchall()


def gauges(tx: Transaction, device_name: str) -> CommitmentGauges:
    """Return the numbers that an alert watches."""
    query = load_queries("commitments")["gauges"]
    row = tx.execute(query, {"device_name": device_name}).fetchone()
    return CommitmentGauges(*row) if row else CommitmentGauges(0, 0, 0)


def purge(tx: Transaction, device_name: str, *, older_than_s: float, limit: int = 1000) -> int:
    """Delete up to `limit` completed requests older than `older_than_s` seconds.

    Those stay without which nobody would know that an instance is committed.
    """
    return tx.execute(
        load_queries("commitments")["purge"],
        {"device_name": device_name, "older_than_s": older_than_s, "limit": limit},
    ).rowcount


def _new_task(record: dict[str, Any]) -> NewTask:
    """Return a task that was kept as JSON."""
    values = dict(record)
    values["kind"] = TaskKind(values["kind"])
    if values.get("ian"):
        ian: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["ian"].items()
        }
        values["ian"] = IanDetails(**ian)
    return NewTask(**values)
