"""What operators do to tasks: pages, counts, and changes of many tasks in chunks.

Conditions are put together from the constant fragments below; every value is a parameter. A bulk
change visits each matching task once, in the order of primary keys, one transaction per chunk, so
that it holds no locks for long, can be stopped, and meets concurrent workers safely.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, LiteralString

from psycopg import sql
from psycopg.rows import dict_row

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.ledger.tasks import task_of_row
from archive.model.task import Task, TaskStatus
from archive.model.task_filter import BulkProgress, PagePosition, TaskFilter

_COLUMNS = {
    "task_pks": "pk",
    "kinds": "kind",
    "statuses": "status",
    "queue_names": "queue_name",
    "exporter_ids": "exporter_id",
    "device_names": "device_name",
    "local_aets": "local_aet",
    "remote_aets": "remote_aet",
    "study_instance_uids": "study_instance_uid",
    "batch_ids": "batch_id",
}
_RANGES: dict[str, tuple[LiteralString, LiteralString]] = {
    "created": ("created_time >= %(created_since)s", "created_time < %(created_until)s"),
    "updated": ("updated_time >= %(updated_since)s", "updated_time < %(updated_until)s"),
    "scheduled": ("scheduled_time >= %(scheduled_since)s", "scheduled_time < %(scheduled_until)s"),
}
_BRINGS_TO: LiteralString = (
    "pk IN (SELECT task_fk FROM retrieve_task WHERE destination_aet = ANY(%(destination_aets)s))"
)


class PageOrder(StrEnum):
    """Order of a page; a leading minus is latest first, as in the reference's `orderby`.

    Each has an index that gives its pages in order, however many tasks there are.
    """

    CREATED = "createdTime"
    CREATED_DESCENDING = "-createdTime"
    UPDATED = "updatedTime"
    UPDATED_DESCENDING = "-updatedTime"
    SCHEDULED = "scheduledTime"
    SCHEDULED_DESCENDING = "-scheduledTime"
    TASK = "taskID"
    TASK_DESCENDING = "-taskID"
    STATUS = "status"
    STATUS_DESCENDING = "-status"
    QUEUE = "queue"
    QUEUE_DESCENDING = "-queue"


_ORDERS: dict[PageOrder, tuple[LiteralString, LiteralString]] = {
    PageOrder.CREATED: ("created_time, pk", "(created_time, pk) > (%(after)s, %(after_pk)s)"),
    PageOrder.CREATED_DESCENDING: (
        "created_time DESC, pk DESC",
        "(created_time, pk) < (%(after)s, %(after_pk)s)",
    ),
    PageOrder.UPDATED: ("updated_time, pk", "(updated_time, pk) > (%(after)s, %(after_pk)s)"),
    PageOrder.UPDATED_DESCENDING: (
        "updated_time DESC, pk DESC",
        "(updated_time, pk) < (%(after)s, %(after_pk)s)",
    ),
    PageOrder.SCHEDULED: ("scheduled_time, pk", "(scheduled_time, pk) > (%(after)s, %(after_pk)s)"),
    PageOrder.SCHEDULED_DESCENDING: (
        "scheduled_time DESC, pk DESC",
        "(scheduled_time, pk) < (%(after)s, %(after_pk)s)",
    ),
    PageOrder.TASK: ("pk", "pk > %(after_pk)s"),
    PageOrder.TASK_DESCENDING: ("pk DESC", "pk < %(after_pk)s"),
    PageOrder.STATUS: (
        "status, updated_time, pk",
        "(status, updated_time, pk) > (%(after_0)s, %(after)s, %(after_pk)s)",
    ),
    PageOrder.STATUS_DESCENDING: (
        "status DESC, updated_time DESC, pk DESC",
        "(status, updated_time, pk) < (%(after_0)s, %(after)s, %(after_pk)s)",
    ),
    PageOrder.QUEUE: (
        "queue_name, status, updated_time, pk",
        (
            "(queue_name, status, updated_time, pk)"
            " > (%(after_0)s, %(after_1)s, %(after)s, %(after_pk)s)"
        ),
    ),
    PageOrder.QUEUE_DESCENDING: (
        "queue_name DESC, status DESC, updated_time DESC, pk DESC",
        (
            "(queue_name, status, updated_time, pk)"
            " < (%(after_0)s, %(after_1)s, %(after)s, %(after_pk)s)"
        ),
    ),
}


# The same for a page of one status.
_BY_STATUS: dict[PageOrder, tuple[LiteralString, LiteralString]] = {
    PageOrder.UPDATED: (
        "status, updated_time, pk",
        "(status, updated_time, pk) > ({status}, %(after)s, %(after_pk)s)",
    ),
    PageOrder.UPDATED_DESCENDING: (
        "status DESC, updated_time DESC, pk DESC",
        "(status, updated_time, pk) < ({status}, %(after)s, %(after_pk)s)",
    ),
}
_FROM: LiteralString = "status >= {status}"
_TO: LiteralString = "status <= {status}"
_SINCE: LiteralString = "(status, updated_time) >= ({status}, %(updated_since)s)"
_UNTIL: LiteralString = "(status, updated_time) < ({status}, %(updated_until)s)"


@dataclass(frozen=True, slots=True)
class NewPlace:
    """Where rescheduled exports go instead; None leaves a column as it is."""

    exporter_id: str | None = None
    queue_name: str | None = None
    local_aet: str | None = None
    remote_aet: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next part of a bulk change: `limit` matching tasks after a primary key, by whom."""

    after: int
    limit: int
    actor: str


class Operation(StrEnum):
    """What can be done to many tasks."""

    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that were staged together.

    Attributes
    ----------
    counts
        Tasks by status.
    created, updated, scheduled
        Earliest and latest time of its tasks.
    """

    batch_id: str
    counts: dict[TaskStatus, int]
    exporter_ids: tuple[str, ...]
    device_names: tuple[str, ...]
    created: tuple[datetime, datetime]
    updated: tuple[datetime, datetime]
    scheduled: tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Extent:
    """What an export task covers; unknown before its first attempt."""

    num_instances: int | None
    modalities: tuple[str, ...] = ()


def page(
    tx: Transaction,
    wanted: TaskFilter,
    *,
    order: PageOrder = PageOrder.UPDATED_DESCENDING,
    after: PagePosition | None = None,
    limit: int = 50,
) -> list[Task]:
    """Return a page of matching tasks; the next one begins after the key of its last task."""
    parameters: dict[str, Any] = {"limit": limit}
    if after is not None:
        parameters |= {"after": after.time, "after_pk": after.task_pk}
        parameters |= {f"after_{place}": word for place, word in enumerate(after.words)}
    if wanted.statuses and order in _BY_STATUS:
        query, values = _page_by_status(wanted, order, after)
    else:
        ordering, beyond = _ORDERS[order]
        conditions, values = _conditions(wanted)
        if after is not None:
            conditions.append(sql.SQL(beyond))
        query = _compose("page", conditions, sql.SQL(ordering))
    with tx.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, parameters | values).fetchall()
    return [task_of_row(row) for row in rows]


def extents(tx: Transaction, task_pks: Sequence[int]) -> dict[int, Extent]:
    """Return by primary key what export tasks cover."""
    rows = tx.execute(load_queries("operations")["extents"], {"task_pks": list(task_pks)})
    return {pk: Extent(number, tuple(modalities)) for pk, number, modalities in rows}


def count(tx: Transaction, wanted: TaskFilter) -> int:
    """Return how many tasks match."""
    conditions, parameters = _conditions(wanted)
    row = tx.execute(_compose("count", conditions), parameters).fetchone()
    return int(row[0]) if row else 0


def count_by_status(tx: Transaction, wanted: TaskFilter) -> dict[TaskStatus, int]:
    """Return how many matching tasks stand in each status."""
    conditions, parameters = _conditions(wanted)
    rows = tx.execute(_compose("count_by_status", conditions), parameters)
    return {TaskStatus(status): number for status, number in rows}


def due_in_s(tx: Transaction, at: datetime | None) -> float:
    """Return the seconds from the database's present time until `at`; 0 for None."""
    row = tx.execute(load_queries("operations")["due_in_s"], {"at": at}).fetchone()
    return float(row[0]) if row else 0.0


def batches(tx: Transaction, wanted: TaskFilter, limit: int = 1000) -> list[Batch]:
    """Return the batches that have matching tasks, latest change first; only those are counted."""
    conditions, parameters = _conditions(wanted)
    rows = tx.execute(_compose("batches", conditions), parameters | {"limit": limit})
    return [
        Batch(
            batch_id,
            {TaskStatus(status): number for status, number in counts.items()},
            tuple(sorted(exporter_ids)),
            tuple(sorted(device_names)),
            *zip(times[::2], times[1::2], strict=True),
        )
        for batch_id, counts, exporter_ids, device_names, *times in rows
    ]


def preview(
    tx: Transaction, operation: Operation, wanted: TaskFilter, place: NewPlace | None = None
) -> BulkProgress:
    """Return what a change of all matching tasks would do now."""
    conditions, parameters = _conditions(wanted)
    query = _compose(f"preview_{operation}", conditions)
    return _progress(tx.execute(query, parameters | asdict(place or NewPlace())).fetchall())


def cancel_chunk(tx: Transaction, wanted: TaskFilter, chunk: Chunk) -> BulkProgress:
    """Cancel the next matching tasks."""
    return _change(tx, "cancel_chunk", wanted, (chunk, {"reason": "canceled"}))


def reschedule_chunk(
    tx: Transaction,
    wanted: TaskFilter,
    chunk: Chunk,
    *,
    at: datetime | None = None,
    place: NewPlace | None = None,
) -> BulkProgress:
    """Make the next matching tasks due at `at`, or now.

    Running ones are asked to stop and scheduled again when they have; with a new place they are
    skipped, because what they have sent went to the old one.
    """
    target = {"at": at, "reason": "rescheduled"} | asdict(place or NewPlace())
    return _change(tx, "reschedule_chunk", wanted, (chunk, target))


def delete_chunk(tx: Transaction, wanted: TaskFilter, chunk: Chunk) -> BulkProgress:
    """Delete the next matching tasks, running ones included."""
    return _change(tx, "delete_chunk", wanted, (chunk, {}))


def _change(
    tx: Transaction, name: str, wanted: TaskFilter, how: tuple[Chunk, dict[str, Any]]
) -> BulkProgress:
    """Lock a chunk and change it; the transaction must be one, not one per statement."""
    chunk, parameters = how
    conditions, values = _conditions(wanted)
    values |= {"after": chunk.after, "limit": chunk.limit}
    pks = [pk for (pk,) in tx.execute(_compose("lock_chunk", conditions), values)]
    if not pks:
        return BulkProgress(last_pk=None)
    parameters = parameters | {"pks": pks, "actor": chunk.actor}
    rows = tx.execute(load_queries("operations")[name], parameters).fetchall()
    is_last = len(pks) < chunk.limit
    return replace(_progress([row[:3] for row in rows]), last_pk=None if is_last else pks[-1])


def _progress(rows: Sequence[tuple[Any, ...]]) -> BulkProgress:
    """Make a progress of (status, verdict, count)."""
    skipped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for status, verdict, number in rows:
        if verdict is None:
            changed[status] += number
        else:
            skipped[verdict] += number
    return BulkProgress(
        visited=changed.total() + skipped.total(),
        changed=changed.total(),
        skipped=tuple(sorted(skipped.items())),
        last_pk=None,
        changed_from=tuple(sorted(changed.items())),
    )


def _conditions(wanted: TaskFilter) -> tuple[list[sql.Composable], dict[str, Any]]:
    conditions: list[sql.Composable] = []
    parameters: dict[str, Any] = {}
    for name, column in _COLUMNS.items():
        values = getattr(wanted, name)
        if not values:
            continue
        # A plain comparison lets PostgreSQL read an index in the order of the page.
        form = sql.SQL("{} = {}") if len(values) == 1 else sql.SQL("{} = ANY({})")
        conditions.append(form.format(sql.Identifier(column), sql.Placeholder(name)))
        parameters[name] = values[0] if len(values) == 1 else list(values)
    if wanted.destination_aets:
        conditions.append(sql.SQL(_BRINGS_TO))
        parameters["destination_aets"] = list(wanted.destination_aets)
    for name, (since, until) in _RANGES.items():
        span = getattr(wanted, name)
        if span.since is not None:
            conditions.append(sql.SQL(since))
            parameters[f"{name}_since"] = span.since
        if span.until is not None:
            conditions.append(sql.SQL(until))
            parameters[f"{name}_until"] = span.until
    return conditions, parameters


def _page_by_status(
    wanted: TaskFilter, order: PageOrder, after: PagePosition | None
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the statement for a page of some statuses: a page of each, merged."""
    queries = load_queries("operations")
    ordering, beyond = _BY_STATUS[order]
    shared, parameters = _conditions(replace(wanted, statuses=()))
    bounds = _status_bounds(wanted, beyond if after is not None else None)
    pages = []
    for place, status in enumerate(dict.fromkeys(wanted.statuses)):
        parameters[f"status_{place}"] = status
        name = sql.Placeholder(f"status_{place}")
        conditions = [*shared, *(sql.SQL(bound).format(status=name) for bound in bounds)]
        pages.append(
            sql.SQL(queries["page_of_status"]).format(
                conditions=sql.SQL(" AND ").join(conditions), order=sql.SQL(ordering)
            )
        )
    merged = sql.SQL(") UNION ALL (").join(pages)
    return sql.SQL(queries["merged_pages"]).format(
        pages=sql.SQL("({})").format(merged), order=sql.SQL(_ORDERS[order][0])
    ), parameters


def _status_bounds(wanted: TaskFilter, beyond: LiteralString | None) -> list[LiteralString]:
    """Return where the page of a status begins and ends in its index, as tightly as is known."""
    above: list[LiteralString] = [_SINCE] if wanted.updated.since is not None else []
    below: list[LiteralString] = [_UNTIL] if wanted.updated.until is not None else []
    if beyond is not None:
        (below if "<" in beyond else above).append(beyond)
    return [*(above or [_FROM]), *(below or [_TO])]


def _compose(
    name: str, conditions: list[sql.Composable], order: sql.SQL | None = None
) -> sql.Composed:
    combined = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")
    query = sql.SQL(load_queries("operations")[name])
    return (
        query.format(conditions=combined, order=order)
        if order
        else query.format(conditions=combined)
    )
