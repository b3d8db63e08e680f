"""Tasks as programs get them: the names, order and formats of the reference's JSON and CSV."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from archive.ledger.operations import Batch, Extent
from archive.ledger.retrievals import RetrieveExtent
from archive.model.task import Task
from workers.operations import TaskReport

CSV_COLUMNS = (
    "taskID", "createdTime", "updatedTime", "ExporterID", "LocalAET", "RemoteAET",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "NumberOfInstances", "Modality",
    "batchID", "dicomDeviceName", "scheduledTime", "type", "status", "queue", "failures",
    "processingStartTime", "processingEndTime", "errorMessage", "outcomeMessage",
)  # fmt: skip
RETRIEVE_CSV_COLUMNS = (
    *(name for name in CSV_COLUMNS if name not in {"ExporterID", "NumberOfInstances", "Modality"}),
    *("DestinationAET", "remaining", "completed", "warning", "failed"),
    *("statusCode", "errorComment"),
)


def time_text(time: datetime) -> str:
    """Return a time as ``yyyy-MM-dd'T'HH:mm:ss.SSSZ`` in the zone of the machine."""
    local = time.astimezone()
    return f"{local:%Y-%m-%dT%H:%M:%S}.{local.microsecond // 1000:03}{local:%z}"


def task_json(task: Task, extent: Extent | RetrieveExtent | None = None) -> dict[str, Any]:
    """Return a task as JSON object; what is not set is left out, as are zero failures.

    Parameters
    ----------
    extent
        What an export or a retrieve covers, as far as it is known.
    """
    head: dict[str, Any] = {
        "taskID": task.pk,
        "dicomDeviceName": task.device_name,
        "queue": task.queue_name,
        "type": task.kind.value,
        "status": task.status.value,
        "batchID": task.batch_id,
        "failures": task.failures or None,
        "createdTime": time_text(task.created_time),
        "updatedTime": time_text(task.updated_time),
        "scheduledTime": time_text(task.scheduled_time),
        "processingStartTime": optional_time(task.start_time),
        "processingEndTime": optional_time(task.end_time),
        "errorMessage": task.error_message,
        "outcomeMessage": task.outcome_message,
        "LocalAET": task.local_aet,
        "RemoteAET": task.remote_aet,
        "ExporterID": task.exporter_id,
        "StudyInstanceUID": task.study_instance_uid,
        "SeriesInstanceUID": task.series_instance_uid,
        "SOPInstanceUID": task.sop_instance_uid,
    }
    head |= _extent_json(extent) if extent is not None else {}
    return {name: value for name, value in head.items() if value not in (None, [])}


def _extent_json(extent: Extent | RetrieveExtent) -> dict[str, Any]:
    if isinstance(extent, Extent):
        return {"NumberOfInstances": extent.num_instances, "Modality": list(extent.modalities)}
    is_known = extent.remaining is not None or extent.status is not None
    counts = {name: getattr(extent, name) for name in ("completed", "warning", "failed")}
    return {
        "DestinationAET": extent.destination_aet,
        "remaining": extent.remaining,
        **(counts if is_known else {}),
        "statusCode": None if extent.status is None else f"{extent.status:04X}",
        "errorComment": extent.error_comment,
    }


def csv_row(json: Mapping[str, Any], columns: Sequence[str] = CSV_COLUMNS) -> list[str]:
    """Return the cells of a task's JSON in the order of `columns`."""
    return [_cell(json.get(name)) for name in columns]


def batch_json(batch: Batch) -> dict[str, Any]:
    """Return a batch as JSON object; statuses without tasks are left out."""
    return {
        "batchID": batch.batch_id,
        "tasks": {
            status.value.lower().replace(" ", "-"): count for status, count in batch.counts.items()
        },
        "dicomDeviceName": list(batch.device_names),
        "ExporterID": list(batch.exporter_ids),
        "createdTimeRange": [time_text(time) for time in batch.created],
        "updatedTimeRange": [time_text(time) for time in batch.updated],
        "scheduledTimeRange": [time_text(time) for time in batch.scheduled],
    }


def optional_time(time: datetime | None) -> str | None:
    """Return `time_text` of a time that may be missing."""
    return None if time is None else time_text(time)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)


def report_json(
    report: TaskReport, extent: Extent | RetrieveExtent | None = None
) -> dict[str, Any]:
    """Return everything known of a task: its JSON with `history` and, for exports, `instances`."""
    task = report.task
    json = task_json(task, extent) | {
        "attempt": task.attempt,
        "round": task.round,
        "worker": task.worker,
        "cancelRequested": task.cancel_requested or None,
        "waitsFor": report.waits,
        "history": [
            {
                "time": time_text(each.time),
                "from": each.from_status,
                "to": each.to_status.value,
                "attempt": each.attempt,
                "actor": each.actor,
                "reason": each.reason,
            }
            for each in report.history
        ],
    }
    if report.summary is not None:
        json |= {"delivered": report.summary.delivered, "notDelivered": report.summary.failed}
        json["instances"] = [
            {
                "SOPInstanceUID": uid,
                "delivered": result.delivered,
                "status": None if result.dimse_status is None else f"{result.dimse_status:04X}",
                "message": result.message,
            }
            for uid, result in report.results
        ]
    return {name: value for name, value in json.items() if value is not None}
