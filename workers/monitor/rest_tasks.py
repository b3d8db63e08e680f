"""REST of tasks: lists, counts, cancel, reschedule, delete, batches."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

from archive.errors import InvalidValueError
from archive.ledger.operations import Operation, PageOrder
from archive.model.task import TaskKind, TaskStatus
from archive.model.task_filter import BulkProgress, TaskFilter
from workers.monitor.handler import NotAcceptableError, NotFoundError
from workers.monitor.parameters import MOST, instant_of, number_of, order_of, task_filter, text_of
from workers.monitor.rest import Call, Endpoint, Parameter, Reply
from workers.monitor.task_pages import CsvForm, csv_chunks, json_chunks
from workers.operations import Target
from workers.task_json import CSV_COLUMNS, RETRIEVE_CSV_COLUMNS, batch_json

_TIME = "DT value or range a-b, a-, -b; also 2h for the last two hours"
_DAY = {"type": "string", "example": "20261121-20261122"}
_NUMBER = {"type": "integer", "minimum": 0, "maximum": MOST}
FILTERS = (
    Parameter("taskID", "Task", {"type": "integer", "minimum": 1, "maximum": 2**31}),
    Parameter("StudyInstanceUID", "Study Instance UID"),
    Parameter("dicomDeviceName", "Device"),
    Parameter("ExporterID", "Exporter; several with commas"),
    Parameter("LocalAET", "Local AE title"),
    Parameter("RemoteAET", "Remote AE title"),
    Parameter("DestinationAET", "Where retrieves bring their objects"),
    Parameter("localAET", "Same as LocalAET"),
    Parameter("remoteAET", "Same as RemoteAET"),
    Parameter("dcmQueueName", "Queue"),
    Parameter("status", "Status", {"type": "string", "enum": [each.value for each in TaskStatus]}),
    Parameter("batchID", "Batch"),
    Parameter("createdTime", _TIME, _DAY),
    Parameter("updatedTime", _TIME, _DAY),
)
ORDER = Parameter(
    "orderby",
    "Order; default -updatedTime",
    {
        "type": "string",
        "enum": [each.value for each in PageOrder],
    },
)
PAGE = (
    ORDER,
    Parameter("offset", "Tasks to skip", _NUMBER),
    Parameter("limit", "Most tasks to return", {**_NUMBER, "minimum": 1}),
)
ACCEPT = Parameter("accept", "application/json or text/csv, instead of the header Accept")
SCHEDULED = Parameter("scheduledTime", "When the tasks are due: yyyyMMddHHmmss; default now")
NEW_DEVICE = Parameter("newDeviceName", "Device that shall do it: the own one")
NEW_QUEUE = Parameter("newQueueName", "Queue instead, for retrieves")


def _wanted(call: Call, kind: TaskKind | None) -> TaskFilter:
    """Return which tasks a call means, of a kind or of the queue in the path."""
    arguments = dict(call.queries)
    if kind is not None:
        arguments["type"] = [kind.value]
    if "queueName" in call.path:
        arguments["queue"] = [call.path["queueName"].replace(",", "\0")]
    but = ("scheduledTime",)
    return task_filter(arguments, call.services.clock.now(), but=but)


def _listed(kind: TaskKind | None, call: Call) -> Reply:
    wanted, order = _wanted(call, kind), order_of(call.queries)
    offset = number_of(call.queries, "offset", least=0) or 0
    limit = number_of(call.queries, "limit", least=1)
    operations = call.services.operations(call.actor)
    media, delimiter = _form(call, may_be_csv=kind is not None)
    most = None if limit is None else offset + limit
    found = islice(operations.walk(wanted, order=order, limit=most), offset, None)
    if media == "text/csv":
        columns = RETRIEVE_CSV_COLUMNS if kind is TaskKind.RETRIEVE else CSV_COLUMNS
        rows = csv_chunks(operations, found, CsvForm(columns, delimiter))
        return Reply(text=rows, content_type="text/csv; charset=UTF-8")
    return Reply(text=_json_text(json_chunks(operations, found)))


def _json_text(chunks: Iterable[list[dict[str, object]]]) -> Iterator[str]:
    """Yield the pieces of a JSON array."""
    between = "["
    for chunk in chunks:
        yield between + json.dumps(chunk, ensure_ascii=False)[1:-1]
        between = ","
    yield "[]" if between == "[" else "]"


def _form(call: Call, *, may_be_csv: bool) -> tuple[str, str]:
    """Return the media type and the delimiter that a call wants.

    Raises
    ------
    NotAcceptableError
        When it wants another one.
    """
    accept = text_of(call.queries, "accept") or call.headers.get("Accept") or "*/*"
    text = accept.lower().replace(" ", "")
    if may_be_csv and "text/csv" in text:
        return "text/csv", ";" if "delimiter=semicolon" in text else ","
    if any(each in text for each in ("application/json", "*/*", "application/*")):
        return "application/json", ","
    msg = f"Accept: {accept[:80]} cannot be answered: application/json or text/csv can"
    raise NotAcceptableError(msg)


def _counted(kind: TaskKind | None, call: Call) -> Reply:
    operations = call.services.operations(call.actor)
    return Reply(json={"count": operations.count(_wanted(call, kind))})


def _batches(kind: TaskKind | None, call: Call) -> Reply:
    operations = call.services.operations(call.actor)
    return Reply(json=[batch_json(each) for each in operations.batches(_wanted(call, kind))])


def _target(call: Call) -> Target:
    """Return when and where to of a reschedule.

    Raises
    ------
    NotFoundError
        When another device is wanted.
    """
    device = text_of(call.queries, "newDeviceName")
    own = call.services.settings.device_name
    if device not in {None, own}:
        msg = f"tasks of device {own} cannot be moved to {device}: its own processes have its tasks"
        raise NotFoundError(msg)
    return Target(
        at=instant_of(call.queries, "scheduledTime", call.services.clock.now()),
        exporter_id=call.path.get("ExporterID"),
        queue_name=text_of(call.queries, "newQueueName"),
    )


def _change_one(operation: Operation, kind: TaskKind | None, call: Call) -> Reply:
    text = call.path["taskID"]
    operations = call.services.operations(call.actor)
    task = operations.show(int(text)).task if text.isdecimal() and len(text) < 19 else None  # noqa: PLR2004 - 2**63
    in_queue = task is not None and call.path.get("queueName", task.queue_name) == task.queue_name
    if task is None or not in_queue or (kind is not None and task.kind is not kind):
        msg = f"No such Task : {text}"
        raise NotFoundError(msg)
    match operation:
        case Operation.CANCEL:
            operations.cancel(task.pk)
        case Operation.RESCHEDULE:
            operations.reschedule(task.pk, _target(call))
        case Operation.DELETE:
            operations.delete(task.pk)
    return Reply(204)


def _change_many(operation: Operation, kind: TaskKind | None, call: Call) -> Reply:
    wanted = _wanted(call, kind)
    if operation is Operation.CANCEL:
        _check_cancelable(wanted)
    target = _target(call) if operation is Operation.RESCHEDULE else Target()
    done = call.services.operations(call.actor).change(operation, wanted, target)
    return _result(done)


def _check_cancelable(wanted: TaskFilter) -> None:
    if not wanted.statuses or any(status.is_final for status in wanted.statuses):
        msg = "give status=SCHEDULED, IN PROCESS or SCHEDULED FOR RETRY: only those can be canceled"
        raise InvalidValueError(msg)


def _result(done: BulkProgress) -> Reply:
    failed = done.visited - done.changed
    if not failed:
        return Reply(json={"count": done.changed})
    if done.changed:
        return Reply(202, {"count": done.changed, "failed": failed})
    return Reply(409, {"failed": failed})


def task_endpoints(base: str, kind: TaskKind | None) -> list[Endpoint]:
    """Return the endpoints of tasks of a kind, or of the queue that the path names."""
    what = f"{kind} tasks" if kind else "tasks of a queue"
    reschedule = (SCHEDULED, NEW_DEVICE, NEW_QUEUE)
    listing = (*FILTERS, *PAGE, *((ACCEPT,) if kind else ()))
    found = [
        Endpoint("GET", base, partial(_listed, kind), f"List {what}", listing, (200, 400, 406)),
        Endpoint(
            "GET", f"{base}/count", partial(_counted, kind), f"Count {what}", FILTERS, (200, 400)
        ),
        Endpoint(
            *("DELETE", base, partial(_change_many, Operation.DELETE, kind)),
            *(f"Delete {what}", FILTERS, (200, 202, 400, 409)),
        ),
        *_operations(base, kind, what, ("cancel", Operation.CANCEL, ())),
        *_operations(base, kind, what, ("reschedule", Operation.RESCHEDULE, reschedule)),
        Endpoint(
            *("DELETE", f"{base}/{{taskID}}", partial(_change_one, Operation.DELETE, kind)),
            *(f"Delete one of {what}", (), (204, 404)),
        ),
    ]
    if kind is None:
        return found
    batches = Endpoint(
        "GET", f"{base}/batch", partial(_batches, kind), f"Batches of {what}", FILTERS, (200, 400)
    )
    if kind is not TaskKind.EXPORT:
        return [batches, *found]
    to_other = ("reschedule/{ExporterID}", Operation.RESCHEDULE, reschedule)
    return [batches, *found, *_operations(base, kind, what, to_other)]


def _operations(
    base: str,
    kind: TaskKind | None,
    what: str,
    which: tuple[str, Operation, tuple[Parameter, ...]],
) -> list[Endpoint]:
    """Return an operation on many tasks and on one."""
    path, operation, parameters = which
    words = path.partition("/")[0].capitalize()
    many = (*FILTERS, *parameters)
    return [
        Endpoint(
            *("POST", f"{base}/{path}", partial(_change_many, operation, kind)),
            *(f"{words} {what}", many, (200, 202, 400, 404, 409)),
        ),
        Endpoint(
            *("POST", f"{base}/{{taskID}}/{path}", partial(_change_one, operation, kind)),
            *(f"{words} one of {what}", parameters, (204, 400, 404, 409)),
        ),
    ]
