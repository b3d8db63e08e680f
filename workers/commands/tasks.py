"""``celery -A workers tasks``: look at tasks, cancel, reschedule and delete them."""

from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from workers.commands import bulk
from workers.commands.options import (
    bulk_options,
    examples,
    form_options,
    instant,
    selection_options,
)
from workers.commands.output import (
    Form,
    local_time,
    number,
    print_csv,
    print_fields,
    print_json,
    print_json_array,
    print_rows,
    print_table,
)
from workers.commands.session import Session, session, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive.model.task import Task
    from archive.model.task_filter import TaskFilter
    from workers.operations import TaskReport

ORDERS = (
    *("createdTime", "-createdTime", "updatedTime", "-updatedTime"),
    *(
        "scheduledTime",
        "-scheduledTime",
        "taskID",
        "-taskID",
        "status",
        "-status",
        "queue",
        "-queue",
    ),
)
_EVERYTHING = 10**9
_RESULTS_SHOWN = 20


@click.group(
    name="tasks",
    epilog=examples(
        "tasks list -s failed --updated 2h",
        "tasks show 4711",
        "tasks reschedule -s failed --destination PACS2 --at +30m",
        "tasks cancel -Q Export -s scheduled,scheduled_for_retry --dry-run",
        "tasks delete -s completed --updated -30d --yes",
    ),
)
def tasks() -> None:
    """Look at tasks of the ledger, cancel, reschedule and delete them.

    Exit status: 0 all of it was done, 1 some of it, 2 none of it or an error.
    """


@tasks.command(
    "list",
    cls=CeleryCommand,
    epilog=examples(
        "tasks list -s failed -s warning -e STORESCP",
        "tasks list --batch nightly --csv > nightly.csv",
    ),
)
@selection_options
@click.option("-n", "--limit", type=click.IntRange(min=0), help="Most tasks to list; 0 for all.")
@click.option("--order", type=click.Choice(ORDERS), default="-updatedTime", show_default=True)
@form_options
@told
def list_tasks(wanted: "TaskFilter", form: Form, limit: int | None, order: str) -> None:
    """List tasks, those changed last first; 50 of them in a table, else all."""
    from archive.ledger.operations import PageOrder  # noqa: PLC0415 - see the package
    from workers.task_json import CSV_COLUMNS, csv_row  # noqa: PLC0415

    if limit is None:
        limit = 50 if form is Form.TABLE else 0
    with session() as opened:
        found = opened.operations().walk(wanted, order=PageOrder(order), limit=limit or _EVERYTHING)
        if form is Form.TABLE:
            print_table(
                ("task", "kind", "status", "queue", "to", "study", "fails", "due", "changed", ""),
                (_row(task) for task in found),
                right=("task", "fails"),
            )
        elif form is Form.JSON:
            print_json_array(_as_json(opened, found))
        else:
            print_csv(CSV_COLUMNS, (csv_row(each) for each in _as_json(opened, found)))


def _row(task: "Task") -> tuple[object, ...]:
    return (
        *(task.pk, task.kind, task.status, task.queue_name),
        task.remote_aet if task.exporter_id is None else f"{task.exporter_id} > {task.remote_aet}",
        *(task.study_instance_uid, task.failures or ""),
        *(local_time(task.scheduled_time), local_time(task.updated_time)),
        task.error_message or task.outcome_message,
    )


def _as_json(opened: Session, found: "Iterator[Task]") -> "Iterator[dict[str, Any]]":
    from itertools import islice  # noqa: PLC0415 - see the package

    from workers.task_json import task_json  # noqa: PLC0415

    operations = opened.operations()
    while chunk := list(islice(found, 1000)):
        extents = operations.extents([task.pk for task in chunk])
        yield from (task_json(task, extents.get(task.pk)) for task in chunk)


@tasks.command("count", cls=CeleryCommand, epilog=examples("tasks count -Q Export --created 1d"))
@selection_options
@form_options
@told
def count_tasks(wanted: "TaskFilter", form: Form) -> None:
    """Count tasks by status."""
    with session() as opened:
        counts = opened.operations().count_by_status(wanted)
    total = sum(counts.values())
    if form is Form.JSON:
        by_status = {status.value: count for status, count in sorted(counts.items())}
        print_json({"count": total, "status": by_status})
        return
    rows = [(status.value, counts[status]) for status in sorted(counts)]
    if form is Form.CSV:
        print_csv(("status", "count"), [*rows, ("", total)])
    else:
        shown = [(status, number(count)) for status, count in [*rows, ("total", total)]]
        print_table(("status", "tasks"), shown, right=("tasks",))


@tasks.command("show", cls=CeleryCommand, epilog=examples("tasks show 4711"))
@click.argument("task_pk", metavar="ID", type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@told
def show_task(task_pk: int, *, as_json: bool) -> None:
    """Show a task with its history and its result per instance."""
    with session() as opened:
        operations = opened.operations()
        report = operations.show(task_pk)
        extent = operations.extents([task_pk]).get(task_pk)
    from workers.task_json import report_json  # noqa: PLC0415 - see the package

    shown = report_json(report, extent)
    if as_json:
        print_json(shown)
        return
    print_fields((name, value) for name, value in shown.items() if not isinstance(value, list))
    _print_history(report)
    _print_results(report)


def _print_history(report: "TaskReport") -> None:
    print_table(
        ("time", "status", "attempt", "by", "why"),
        [
            (local_time(each.time), each.to_status, each.attempt, each.actor, each.reason)
            for each in report.history
        ],
        right=("attempt",),
    )


def _print_results(report: "TaskReport") -> None:
    if not report.results:
        return
    results = sorted(report.results, key=lambda result: result[1].delivered)
    rows = [
        (
            uid,
            "delivered" if result.delivered else "not delivered",
            "" if result.dimse_status is None else f"{result.dimse_status:04X}",
            result.message,
        )
        for uid, result in results[:_RESULTS_SHOWN]
    ]
    print_table(("instance", "result", "DIMSE status", "reason"), rows)
    if len(results) > _RESULTS_SHOWN:
        click.echo(f"and {number(len(results) - _RESULTS_SHOWN)} more; --json shows all")


@tasks.command("batches", cls=CeleryCommand, epilog=examples("tasks batches --created 7d"))
@selection_options
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@form_options
@told
def list_batches(wanted: "TaskFilter", form: Form, limit: int) -> None:
    """List batches, those changed last first, with how their tasks stand."""
    from workers.task_json import batch_json  # noqa: PLC0415 - see the package

    with session() as opened:
        found = opened.operations().batches(wanted, limit)
    rows = [
        (
            batch.batch_id,
            sum(batch.counts.values()),
            ", ".join(
                f"{status} {number(count)}" for status, count in sorted(batch.counts.items())
            ),
            " ".join(batch.exporter_ids),
            local_time(batch.created[0]),
            local_time(batch.updated[1]),
        )
        for batch in found
    ]
    columns = ("batch", "tasks", "statuses", "exporters", "created", "changed")
    print_rows(form, columns, rows, lambda: map(batch_json, found), right=("tasks",))


@tasks.command(
    "cancel",
    cls=CeleryCommand,
    epilog=examples("tasks cancel 4711 4712", "tasks cancel -e STORESCP -s scheduled --yes"),
)
@selection_options
@bulk_options
@told
def cancel_tasks(wanted: "TaskFilter", **options: Any) -> int:  # noqa: ANN401 - see bulk
    """Cancel tasks; a running one is told to stop."""
    return bulk.change("cancel", wanted, bulk.Options(**options))


@tasks.command(
    "reschedule",
    cls=CeleryCommand,
    epilog=examples(
        "tasks reschedule 4711",
        "tasks reschedule -s failed -e OLDPACS --to-exporter NEWPACS --at +1h",
    ),
)
@selection_options
@click.option("--at", metavar="TIME", help="When: +30m, 202611212200, 2026-11-21T22:00; else now.")
@click.option("--to-exporter", metavar="ID", help="For exports: send them through this exporter.")
@click.option("--to-queue", metavar="NAME", help="For retrieves: put them into this queue.")
@bulk_options
@told
def reschedule_tasks(
    wanted: "TaskFilter",
    at: str | None,
    to_exporter: str | None,
    to_queue: str | None,
    **options: Any,  # noqa: ANN401 - see bulk
) -> int:
    """Make tasks due again, with their failures forgotten; a running one is stopped before."""
    from workers.operations import Target  # noqa: PLC0415 - see the package

    target = Target(instant(at, "--at"), to_exporter, to_queue)
    return bulk.change("reschedule", wanted, bulk.Options(**options), target)


@tasks.command(
    "delete",
    cls=CeleryCommand,
    epilog=examples(
        "tasks delete -s completed --updated -30d --dry-run", "tasks delete --batch mistake --yes"
    ),
)
@selection_options
@bulk_options
@told
def delete_tasks(wanted: "TaskFilter", **options: Any) -> int:  # noqa: ANN401 - see bulk
    """Delete tasks with their history; what they delivered stays known."""
    return bulk.change("delete", wanted, bulk.Options(**options))
