"""REST that orders exports, notifications and commitments."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from archive.configuration.descriptors import NetworkAE
from archive.errors import InvalidValueError
from archive.ledger import objects, operations, retrievals, tasks
from archive.ledger.retrievals import NewRetrieve, RetrieveRole
from archive.model.retrieval import INTERACTIVE_QUEUE
from archive.model.task import CommitmentDetails, IanDetails, NewTask, Task, TaskKind, TaskStatus
from workers.monitor.handler import NotFoundError
from workers.monitor.parameters import flag_of, instant_of, text_of
from workers.monitor.rest import Call, Endpoint, Parameter, Reply, wait_for_end
from workers.monitor.rest_filters import CONDITIONS, FUZZY, entities_of
from workers.monitor.rest_tasks import SCHEDULED
from workers.monitor.retrieving import identifier_of
from workers.ordering import CsvColumns, CsvContent, Entity, Only, Order, read_csv
from workers.route import find_route, remote_ae
from workers.task_json import task_json

BATCH = Parameter(
    "batchID", "Name that holds the tasks together", {"type": "string", "maxLength": 64}
)
_FLAG = {"type": "string", "enum": ["", "true", "false"]}
ORDER = (
    BATCH,
    SCHEDULED,
    Parameter("only-ian", "Send the notifications that follow, no objects", _FLAG),
    Parameter("only-stgcmt", "Request storage commitment, send no objects", _FLAG),
)
LEVELS = (
    "/studies/{StudyInstanceUID}",
    "/studies/{StudyInstanceUID}/series/{SeriesInstanceUID}",
    "/studies/{StudyInstanceUID}/series/{SeriesInstanceUID}/instances/{SOPInstanceUID}",
)
MATCHES = (
    ("/studies", "study"),
    ("/series", "series"),
    ("/instances", "instance"),
    ("/studies/{StudyInstanceUID}/series", "series"),
    ("/studies/{StudyInstanceUID}/instances", "instance"),
    ("/studies/{StudyInstanceUID}/series/{SeriesInstanceUID}/instances", "instance"),
)
COMMITMENT = ("stgcmt", TaskKind.STGCMT_SCU, "StgCmtSCU")
_DICOM = "dicom:"


def own_ae(call: Call) -> NetworkAE:
    """Return the archive's AE that the path names.

    Raises
    ------
    NotFoundError
        When there is none, or it is not installed.
    """
    title = call.path["AETitle"]
    ae = call.services.source.snapshot().device.aes.get(title)
    if ae is None or not ae.installed:
        msg = f"No such Application Entity: {title}"
        raise NotFoundError(msg)
    return ae


def entity_of(call: Call) -> Entity:
    """Return the study, series or instance that the path names."""
    path = call.path
    return Entity(
        path["StudyInstanceUID"], path.get("SeriesInstanceUID"), path.get("SOPInstanceUID")
    )


def order_of_call(call: Call) -> Order:
    """Return how a call wants something exported.

    Raises
    ------
    InvalidValueError
        When it wants two things instead of the export.
    """
    only = [each for each in Only if flag_of(call.queries, each.value)]
    if len(only) > 1:
        msg = "give either only-ian or only-stgcmt"
        raise InvalidValueError(msg)
    return Order(
        exporter_id=call.path["ExporterID"],
        at=instant_of(call.queries, "scheduledTime", call.services.clock.now()),
        batch_id=text_of(call.queries, "batchID", 64),
        only=only[0] if only else None,
    )


def _export_entity(call: Call) -> Reply:
    ae = own_ae(call)
    entity = entity_of(call)
    if call.path["ExporterID"].startswith(_DICOM):
        return _store_now(call, ae, entity)
    pks = call.services.orders(call.actor).place(order_of_call(call), [entity])
    if len(pks) != 1:
        return Reply(202, {"count": len(pks)})
    task = call.services.operations(call.actor).show(pks[0]).task
    return Reply(202, task_json(task))


def _store_now(call: Call, ae: NetworkAE, entity: Entity) -> Reply:
    """Send to any AE at once and answer when it is done, without notification or commitment."""
    title = call.path["ExporterID"].removeprefix(_DICOM)
    snapshot = call.services.source.snapshot()
    find_route(ae, remote_ae(snapshot, title, "the export"))
    wanted = identifier_of(entity)
    with call.services.ledger.transaction() as tx:
        matches = retrievals.count_matches(tx, wanted)
        staged = NewRetrieve(
            RetrieveRole.SCP,
            wanted,
            queue_name=INTERACTIVE_QUEUE,
            device_name=call.services.settings.device_name,
            local_aet=ae.title,
            remote_aet=title,
            destination_aet=title,
            # It is a C-MOVE that the archive orders from itself (PS3.4 §C.4.2.1).
            move_originator_aet=ae.title,
            move_originator_message_id=1,
            remaining=matches,
        )
        pk = retrievals.stage(tx, staged, actor=call.actor, reason="export to an AE, at once")
    return moved(call, wait_for_end(call, pk))


def moved(call: Call, task: Task, *, tells_status: bool = False) -> Reply:
    """Return the counts of a retrieve that ended: 200, 206 or 502.

    Parameters
    ----------
    tells_status
        Add the status of the other archive's final response, if there was one.
    """
    with call.services.ledger.statement() as tx:
        progress = retrievals.progress(tx, task.pk)
    counts = progress.result.counts
    body: dict[str, object] = {}
    if tells_status and progress.is_settled:
        body["status"] = f"{progress.result.status:04X}"
    body["completed"] = counts.completed
    body |= {"warning": counts.warning} if counts.warning else {}
    body |= {"failed": counts.failed} if counts.failed else {}
    if task.status is not TaskStatus.COMPLETED and task.error_message:
        body["error"] = task.error_message
    failed = counts.failed or task.status is TaskStatus.FAILED or task.failures
    if not failed:
        return Reply(json=body)
    return Reply(
        206 if counts.completed + counts.warning else 502, body, warning=task.error_message
    )


def _matching(level: str, call: Call) -> Reply:
    ae, order = own_ae(call), order_of_call(call)
    pks = call.services.orders(call.actor).place(order, entities_of(level, call, ae))
    return Reply(202, {"count": len(pks)})


def _csv(call: Call) -> Reply:
    own_ae(call)
    content = read_rows(call)
    warning = warning_of(content)
    if not content.entities:
        return Reply(204, warning=warning or "no rows")
    pks = call.services.orders(call.actor).place(order_of_call(call), content.entities)
    return Reply(202, {"count": len(pks)}, warning=warning)


def warning_of(content: CsvContent) -> str | None:
    """Return which rows were refused, for the header Warning."""
    return "; ".join(f"line {each.line}: {each.reason}" for each in content.refused[:10]) or None


def read_rows(call: Call) -> CsvContent:
    """Return what the rows of the body ask for.

    Raises
    ------
    InvalidValueError
        When the body is no such file.
    """
    content_type = call.headers.get("Content-Type", "")
    if not content_type.lower().startswith("text/csv"):
        msg = "the body has to be text/csv"
        raise InvalidValueError(msg)
    try:
        text = call.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8: {error.reason} at byte {error.start}"
        raise InvalidValueError(msg) from error
    delimiter = ";" if "delimiter=semicolon" in content_type.replace(" ", "").lower() else ","
    return read_csv(text.splitlines(keepends=True), _columns(call, delimiter))


def _columns(call: Call, delimiter: str) -> CsvColumns:
    columns = [call.path["column"], call.path.get("seriesColumn")]
    for text in columns:
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 5):  # noqa: PLR2004 - more is a slip
            msg = f"csv:{text[:20]} is no column: columns of a CSV file count from 1"
            raise InvalidValueError(msg)
    series = None if columns[1] is None else int(columns[1])
    return CsvColumns(int(columns[0] or 0), series, delimiter)


def _ian(call: Call) -> Reply:
    """Notify any AE at once."""
    return _at_once(call, TaskKind.IAN, "IANSCU")


def _commit(call: Call) -> Reply:
    """Ask any AE for storage commitment at once."""
    return _at_once(call, TaskKind.STGCMT_SCU, "StgCmtSCU")


def _at_once(call: Call, kind: TaskKind, queue: str) -> Reply:
    ae, entity = own_ae(call), entity_of(call)
    title = call.path["RemoteAET"]
    remote_ae(call.services.source.snapshot(), title, f"the {kind}")
    with call.services.ledger.transaction() as tx:
        found = objects.instance_references(
            tx, entity.study_instance_uid, entity.series_instance_uid, entity.sop_instance_uid
        )
        if not found:
            msg = f"the archive holds no instance of study {entity.study_instance_uid}"
            raise NotFoundError(msg)
        new = _direct(call, ae, entity, (kind, queue, title))
        pk = tasks.stage(tx, new, actor=call.actor, reason="ordered by hand, at once")
    task = wait_for_end(call, pk)
    if task.status in {TaskStatus.COMPLETED, TaskStatus.WARNING}:
        return Reply(json={"status": "0000", "instances": len(found)})
    return Reply(502, {"error": task.error_message or task.status.value, "taskID": task.pk})


def _direct_matching(kind: TaskKind, queue: str, level: str, call: Call) -> Reply:
    """Stage a notification, or a request for commitment, for each match."""
    ae, title = own_ae(call), call.path["RemoteAET"]
    remote_ae(call.services.source.snapshot(), title, f"the {kind}")
    at = instant_of(call.queries, "scheduledTime", call.services.clock.now())
    batch = text_of(call.queries, "batchID", 64)
    new = [_direct(call, ae, each, (kind, queue, title)) for each in entities_of(level, call, ae)]
    with call.services.ledger.transaction() as tx:
        due_in_s = operations.due_in_s(tx, at)
        for each in new:
            staged = replace(each, batch_id=batch, due_in_s=due_in_s)
            tasks.stage(tx, staged, actor=call.actor, reason="ordered by hand")
    return Reply(202, {"count": len(new)})


def _direct(call: Call, ae: NetworkAE, entity: Entity, what: tuple[TaskKind, str, str]) -> NewTask:
    kind, queue, title = what
    device = call.services.source.snapshot().device
    retrieve_aets = ae.retrieve_aets or device.retrieve_aets or (ae.title,)
    return NewTask(
        kind=kind,
        queue_name=queue,
        device_name=device.name,
        local_aet=ae.title,
        remote_aet=title,
        study_instance_uid=entity.study_instance_uid,
        series_instance_uid=entity.series_instance_uid,
        sop_instance_uid=entity.sop_instance_uid,
        ian=IanDetails(retrieve_aets, "ONLINE") if kind is TaskKind.IAN else None,
        commitment=CommitmentDetails() if kind is TaskKind.STGCMT_SCU else None,
    )


def export_endpoints() -> list[Endpoint]:
    """Return the endpoints that order something."""
    rs = "/aets/{AETitle}/rs"
    found = [*_of_entities(rs)]
    for path, level in MATCHES:
        found += _of_matches(f"{rs}{path}", level)
    files = ("/studies/csv:{column}", "/studies/csv:{column}/series/csv:{seriesColumn}")
    found += [
        Endpoint(
            *("POST", f"{rs}{path}/export/{{ExporterID}}", _csv, "Export the rows of a file"),
            *(ORDER, (202, 204, 400, 404), "text/csv"),
        )
        for path in files
    ]
    return found


def _of_matches(path: str, level: str) -> Iterator[Endpoint]:
    """Yield the endpoints that order something for each match of a query."""
    filters = (BATCH, SCHEDULED, FUZZY, *CONDITIONS)
    statuses = (202, 400, 404, 413)
    yield Endpoint(
        *("POST", f"{path}/export/{{ExporterID}}", partial(_matching, level)),
        *(f"Export each {level} that matches", (*ORDER, FUZZY, *CONDITIONS), statuses),
    )
    for name, kind, queue in (("ian", TaskKind.IAN, "IANSCU"), COMMITMENT):
        answer = partial(_direct_matching, kind, queue, level)
        yield Endpoint(
            *("POST", f"{path}/{name}/{{RemoteAET}}", answer),
            *(f"{kind} for each {level} that matches", filters, statuses),
        )


def _of_entities(rs: str) -> Iterator[Endpoint]:
    for level in LEVELS:
        yield Endpoint(
            *("POST", f"{rs}{level}/export/{{ExporterID}}", _export_entity),
            *("Export; at once to dicom:AET", ORDER, (200, 202, 206, 400, 404, 502)),
        )
        yield Endpoint(
            *("POST", f"{rs}{level}/ian/dicom:{{RemoteAET}}", _ian),
            *("Notify an AE at once", (), (200, 400, 404, 502)),
        )
        yield Endpoint(
            *("POST", f"{rs}{level}/stgcmt/dicom:{{RemoteAET}}", _commit),
            *("Request storage commitment at once", (), (200, 400, 404, 502)),
        )
