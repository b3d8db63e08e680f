"""Pages of tasks: the queues, and everything about one task."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from typing_extensions import override

from archive.configuration.descriptors import Snapshot
from archive.ledger.operations import PageOrder
from archive.model.task import Task, TaskKind, TaskStatus, Transition
from workers.monitor import wording
from workers.monitor.handler import PageHandler
from workers.monitor.parameters import (
    DEFAULT_PAGE_SIZE,
    FILTER_NAMES,
    PAGE_SIZES,
    normalized,
    number_of,
    order_of,
    position_in,
    position_text,
    task_filter,
)
from workers.operations import Operations, position_of
from workers.queues import configured_queues
from workers.task_json import CSV_COLUMNS, csv_row, task_json

CHUNK = 500
RESULTS_SHOWN = 500
_FIELDS = (
    ("LocalAET", "Local AE", "DCM4CHEE"),
    ("RemoteAET", "Remote AE", "STORESCP"),
    ("DestinationAET", "Retrieved to", "DCM4CHEE"),
    ("StudyInstanceUID", "Study Instance UID", "1.2.840…"),
    ("batchID", "Batch", ""),
    ("taskID", "Task", "4711"),
    ("createdTime", "Created", "2h, 20261121, a-b"),
    ("updatedTime", "Changed", "2h, 20261121, a-b"),
    ("scheduledTime", "Due", "20261121, -+1h"),
)
_SEEDS_NAMES = {"IANSCU": "IAN Tasks", "StgCmtSCU": "Storage Commitment", "Retrieve": "Retrieve"}


class QueuesPage(PageHandler):
    """The monitoring page of the seeds: tasks by filter, single and bulk actions."""

    template = "queues.html"
    tab = "queues"

    @override
    def load(self, *_names: str) -> dict[str, Any]:
        """Return a page of tasks and what its filters can be set to."""
        arguments = normalized(self.queries)
        now = self.services.clock.now()
        limit = number_of(arguments, "limit", least=1, most=1000) or DEFAULT_PAGE_SIZE
        order = order_of(arguments)
        wanted = task_filter(arguments, now)
        found = self.services.operations(self.actor).page(
            wanted, order=order, after=position_in(arguments), limit=limit + 1
        )
        shown = found[:limit]
        following = position_text(position_of(shown[-1], order)) if len(found) > limit else None
        return {
            "tasks": shown,
            "following": following,
            "order": order.value,
            "limit": limit,
            "chosen": arguments,
            "is_empty": wanted.is_empty,
            "urls": self._urls(arguments, order),
            **_choices(self.services.source.snapshot()),
        }

    def _urls(self, arguments: dict[str, list[str]], order: PageOrder) -> dict[str, str]:
        base = self.reverse_url("dicomq-overview")
        chosen = {name: values for name, values in arguments.items() if name in FILTER_NAMES}
        query = wording.query(chosen)
        return {
            "count": f"{base}/api/tasks/count?{query}",
            "csv": f"{base}/tasks.csv?{wording.query(chosen, orderby=order.value)}",
            "bulk": f"{base}/api/tasks/bulk?{query}",
        }


def _choices(snapshot: Snapshot) -> dict[str, Any]:
    names = sorted(configured_queues(snapshot))
    return {
        "queues": [(name, _queue_label(name, snapshot)) for name in names],
        "exporters": sorted(snapshot.device.exporters),
        "kinds": [kind.value for kind in TaskKind],
        "statuses": [status.value for status in TaskStatus],
        "sizes": PAGE_SIZES,
        "fields": _FIELDS,
    }


def _queue_label(name: str, snapshot: Snapshot) -> str:
    label = snapshot.queue(name).description or _SEEDS_NAMES.get(name)
    return f"{label} ({name})" if label and label != name else name


class TaskPage(PageHandler):
    """Everything about one task."""

    template = "task.html"
    tab = "queues"

    @override
    def load(self, *names: str) -> dict[str, Any]:
        """Return a task with history, attempts and results."""
        report = self.services.operations(self.actor).show(int(names[0]))
        results = sorted(report.results, key=lambda result: result[1].delivered)
        return {
            "task": report.task,
            "facts": (*_facts(report.task), ("Waits for", report.waits)),
            "timeline": list(_timeline(report.history)),
            "attempts": list(attempts_of(report.history)),
            "summary": report.summary,
            "results": results[:RESULTS_SHOWN],
            "more_results": max(0, len(results) - RESULTS_SHOWN),
        }


def _facts(task: Task) -> tuple[tuple[str, object], ...]:
    return (
        ("Kind", task.kind.value),
        ("Queue", task.queue_name),
        ("Device", task.device_name),
        ("Exporter", task.exporter_id),
        ("Local AE", task.local_aet),
        ("Remote AE", task.remote_aet),
        ("Series", task.series_instance_uid),
        ("Instance", task.sop_instance_uid),
        ("Batch", task.batch_id),
        ("Attempt", task.attempt or None),
        ("Failures", task.failures or None),
        ("Round", task.round if task.round > 1 else None),
        ("Sends", "only what was not delivered yet" if task.follow_up_only else None),
        ("Created", wording.clock_time(task.created_time)),
        ("Changed", wording.clock_time(task.updated_time)),
        ("Due", wording.clock_time(task.scheduled_time)),
        ("Started", wording.clock_time(task.start_time)),
        ("Ended", wording.clock_time(task.end_time)),
        ("Worker", task.worker),
    )


def _timeline(history: Sequence[Transition]) -> Iterator[tuple[Transition, str]]:
    """Yield each entry with the time since the one before."""
    before: datetime | None = None
    for entry in history:
        yield entry, "" if before is None else wording.span((entry.time - before).total_seconds())
        before = entry.time


def attempts_of(history: Sequence[Transition]) -> Iterator[dict[str, Any]]:
    """Yield each time that a worker began, with how it ended."""
    begun: Transition | None = None
    for entry in history:
        if entry.to_status is TaskStatus.IN_PROCESS and entry.from_status is not None:
            if begun is not None:
                yield _attempt(begun, None)
            begun = entry
        elif begun is not None and entry.from_status is TaskStatus.IN_PROCESS:
            yield _attempt(begun, entry)
            begun = None
    if begun is not None:
        yield _attempt(begun, None)


def _attempt(begun: Transition, ended: Transition | None) -> dict[str, Any]:
    return {
        "attempt": begun.attempt,
        "start": begun.time,
        "took": wording.span((ended.time - begun.time).total_seconds()) if ended else "",
        "status": ended.to_status.value if ended else None,
        "reason": ended.reason if ended else begun.actor,
    }


class TasksCsv(PageHandler):
    """All tasks that match, as CSV (RFC 4180), sent while they are read."""

    @override
    async def get(self, *_names: str) -> None:
        """Answer with the file."""
        arguments = normalized(self.queries)
        wanted = task_filter(arguments, self.services.clock.now())
        operations = self.services.operations(self.actor)
        self.set_header("Content-Type", "text/csv; charset=UTF-8")
        self.set_header("Content-Disposition", 'attachment; filename="tasks.csv"')
        pieces = csv_chunks(operations, operations.walk(wanted, order=order_of(arguments)))
        while piece := await self.run(next, pieces, ""):
            self.write(piece)
            await self.flush()


@dataclass(frozen=True, slots=True)
class CsvForm:
    """Columns of a CSV text, and what stands between them."""

    columns: tuple[str, ...] = CSV_COLUMNS
    delimiter: str = ","


def json_chunks(operations: Operations, found: Iterable[Task]) -> Iterator[list[dict[str, Any]]]:
    """Yield tasks as JSON objects, some hundred at a time."""
    waiting = iter(found)
    while chunk := list(islice(waiting, CHUNK)):
        extents = operations.extents([task.pk for task in chunk])
        yield [task_json(task, extents.get(task.pk)) for task in chunk]


def csv_chunks(
    operations: Operations, found: Iterable[Task], form: CsvForm = CsvForm()
) -> Iterator[str]:
    """Yield tasks as CSV text with a header, some hundred at a time."""
    yield csv_text([form.columns], form.delimiter)
    for chunk in json_chunks(operations, found):
        yield csv_text((csv_row(each, form.columns) for each in chunk), form.delimiter)


def csv_text(rows: Any, delimiter: str = ",") -> str:  # noqa: ANN401 - what csv takes
    """Return rows as CSV, every field quoted."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return out.getvalue()
