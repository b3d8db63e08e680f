"""What the control room shows beside tasks: studies' destinations, throughput, commitments."""

from dataclasses import dataclass
from datetime import datetime

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries


@dataclass(frozen=True, slots=True)
class Slice:
    """Tasks of a destination that ended in a slice of time; durations in seconds."""

    remote_aet: str
    start: datetime
    ended: int
    failed: int
    median_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """A request for storage commitment as REST lists it."""

    pk: int
    transaction_uid: str
    task_pk: int
    exporter_id: str | None
    remote_aet: str
    status: str
    study_instance_uid: str
    series_instance_uid: str | None
    sop_instance_uid: str | None
    batch_id: str | None
    device_name: str
    num_instances: int
    num_committed: int
    num_failed: int
    created_time: datetime
    updated_time: datetime


@dataclass(frozen=True, slots=True)
class CommitmentFilter:
    """Conditions on requests, which hold together; None means any."""

    status: str | None = None
    study: str | None = None
    exporter_id: str | None = None
    batch_id: str | None = None
    task_pk: int | None = None


@dataclass(frozen=True, slots=True)
class ReceivedStudy:
    """A study with the first of its files that was received in a span of time."""

    study_instance_uid: str
    calling_aet: str
    called_aet: str
    storage_id: str
    storage_path: str
    received_time: datetime


def committed(tx: Transaction, study_instance_uid: str) -> dict[str, int]:
    """Return how many current instances of a study each destination has committed."""
    rows = tx.execute(load_queries("monitoring")["committed"], {"study": study_instance_uid})
    return dict(rows.fetchall())


def notified(tx: Transaction, study_instance_uid: str) -> dict[str, datetime]:
    """Return when each receiver last accepted a notification about a study."""
    rows = tx.execute(load_queries("monitoring")["notified"], {"study": study_instance_uid})
    return dict(rows.fetchall())


def throughput(tx: Transaction, device_name: str, *, since_s: float, slice_s: float) -> list[Slice]:
    """Return what ended in the last `since_s` seconds, by destination and slice."""
    parameters = {"device_name": device_name, "since_s": since_s, "slice_s": slice_s}
    rows = tx.execute(load_queries("monitoring")["throughput"], parameters)
    return [Slice(*row) for row in rows]


def commitments(
    tx: Transaction, wanted: CommitmentFilter, *, offset: int = 0, limit: int | None = None
) -> list[CommitmentRow]:
    """Return requests for commitment, latest change first."""
    parameters = {name: getattr(wanted, name) for name in CommitmentFilter.__dataclass_fields__}
    rows = tx.execute(
        load_queries("monitoring")["commitments"], parameters | {"offset": offset, "limit": limit}
    )
    return [CommitmentRow(*row) for row in rows]


def delete_commitments(
    tx: Transaction,
    *,
    transaction_uid: str | None = None,
    status: str | None = None,
    before: datetime | None = None,
) -> int:
    """Forget requests for commitment and return how many; their instances stay committed."""
    parameters = {"transaction_uid": transaction_uid, "status": status, "before": before}
    return tx.execute(load_queries("monitoring")["delete_commitments"], parameters).rowcount


def received(
    tx: Transaction, since: datetime, until: datetime | None, *, limit: int
) -> list[ReceivedStudy]:
    """Return the studies of which objects were received in a span of time, latest first."""
    rows = tx.execute(
        load_queries("monitoring")["received"], {"since": since, "until": until, "limit": limit}
    )
    return [ReceivedStudy(*row) for row in rows]
