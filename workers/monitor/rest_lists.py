"""REST of lists: exporters, queues, commitments; and of the configuration."""

from collections.abc import Mapping
from datetime import datetime

from archive.errors import InvalidValueError
from archive.ledger import monitoring
from archive.ledger.monitoring import CommitmentFilter, CommitmentRow
from archive.ledger.reloads import ask_for_reload
from workers.monitor.handler import NotFoundError
from workers.monitor.parameters import MOST, flag_of, instant_of, number_of, text_of
from workers.monitor.rest import Call, Endpoint, Parameter, Reply
from workers.queues import configured_queues
from workers.task_json import time_text

_STATUSES = ("PENDING", "COMPLETED", "WARNING", "FAILED")
_STATUS = Parameter("status", "Status", {"type": "string", "enum": list(_STATUSES)})
_BEFORE = Parameter("updatedBefore", "Changed before that day: yyyy-MM-dd")
_NUMBER = {"type": "integer", "minimum": 0, "maximum": MOST}
_FILTERS = (
    _STATUS,
    Parameter("studyUID", "Study Instance UID"),
    Parameter("ExporterID", "Exporter"),
    Parameter("batchID", "Batch"),
    Parameter("taskID", "Task", {"type": "integer", "minimum": 1, "maximum": 2**31}),
    Parameter("offset", "Requests to skip", _NUMBER),
    Parameter("limit", "Most requests to return", {**_NUMBER, "minimum": 1}),
)


def _exporters(call: Call) -> Reply:
    exporters = call.services.source.snapshot().device.exporters.values()
    found = [{"id": each.exporter_id, "description": each.description} for each in exporters]
    return Reply(json=sorted((_set(each) for each in found), key=lambda each: str(each["id"])))


def _queues(call: Call) -> Reply:
    snapshot = call.services.source.snapshot()
    users: dict[str, list[str]] = {}
    for exporter in snapshot.device.exporters.values():
        users.setdefault(exporter.queue_name, []).append(exporter.exporter_id)
    with_exporters = flag_of(call.queries, "includeExporters")
    names = sorted(users) if with_exporters else sorted(configured_queues(snapshot))
    return Reply(
        json=[
            _set(
                {
                    "name": name,
                    "description": snapshot.queue(name).description,
                    "exporterIDs": sorted(users[name]) if with_exporters else None,
                }
            )
            for name in names
        ]
    )


def _set(json: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in json.items() if value is not None}


def _reload(call: Call) -> Reply:
    """Have all processes read the configuration; they see changes by themselves within seconds."""
    with call.services.ledger.transaction() as tx:
        ask_for_reload(tx)
    return Reply(204)


def _commitment_status(call: Call) -> str | None:
    status = text_of(call.queries, "status")
    if status is not None and status not in _STATUSES:
        msg = f"status={status[:40]!r} is none of {', '.join(_STATUSES)}"
        raise InvalidValueError(msg)
    return status


def _commitments(call: Call) -> Reply:
    wanted = CommitmentFilter(
        status=_commitment_status(call),
        study=text_of(call.queries, "studyUID"),
        exporter_id=text_of(call.queries, "ExporterID"),
        batch_id=text_of(call.queries, "batchID"),
        task_pk=number_of(call.queries, "taskID", least=1, most=2**62),
    )
    offset = number_of(call.queries, "offset", least=0) or 0
    limit = number_of(call.queries, "limit", least=1)
    with call.services.ledger.statement() as tx:
        found = monitoring.commitments(tx, wanted, offset=offset, limit=limit)
    return Reply(json=[_commitment(each) for each in found])


def _commitment(row: CommitmentRow) -> dict[str, object]:
    return _set(
        {
            "dicomDeviceName": row.device_name,
            "transactionUID": row.transaction_uid,
            "status": row.status,
            "studyUID": row.study_instance_uid,
            "seriesUID": row.series_instance_uid,
            "objectUID": row.sop_instance_uid,
            "exporterID": row.exporter_id,
            "RemoteAET": row.remote_aet,
            "taskID": row.task_pk,
            "batchID": row.batch_id,
            "requested": row.num_instances,
            "failures": row.num_failed or None,
            "createdTime": time_text(row.created_time),
            "updatedTime": time_text(row.updated_time),
        }
    )


def _delete_commitments(call: Call) -> Reply:
    status, before = _commitment_status(call), _before(call)
    with call.services.ledger.transaction() as tx:
        deleted = monitoring.delete_commitments(tx, status=status, before=before)
    return Reply(json={"deleted": deleted})


def _before(call: Call) -> datetime | None:
    return instant_of(call.queries, "updatedBefore", call.services.clock.now())


def _delete_commitment(call: Call) -> Reply:
    uid = call.path["transactionUID"]
    with call.services.ledger.transaction() as tx:
        deleted = monitoring.delete_commitments(tx, transaction_uid=uid)
    if not deleted:
        msg = f"No such Storage Commitment Result: {uid}"
        raise NotFoundError(msg)
    return Reply(204)


def list_endpoints() -> list[Endpoint]:
    """Return the endpoints of lists."""
    exporters = Parameter(
        "includeExporters",
        "Queues of exporters only, with these",
        {"type": "string", "enum": ["", "true", "false"]},
    )
    return [
        Endpoint("GET", "/export", _exporters, "List the exporters"),
        Endpoint("GET", "/queue", _queues, "List the queues", (exporters,), (200, 400)),
        Endpoint("POST", "/ctrl/reload", _reload, "Read the configuration", (), (204,)),
        Endpoint("GET", "/stgcmt", _commitments, "List commitments", _FILTERS, (200, 400)),
        Endpoint(
            *("DELETE", "/stgcmt", _delete_commitments, "Forget commitments"),
            *((_STATUS, _BEFORE), (200, 400)),
        ),
        Endpoint(
            *("DELETE", "/stgcmt/{transactionUID}", _delete_commitment, "Forget a commitment"),
            *((), (204, 404)),
        ),
    ]
