"""Coerces received objects that had to wait for a leading archive.

Reception only marks them, so that a modality never waits for another archive. What the answer
changes is recorded with the instance and brought into the index; the file keeps what was received.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from pydicom.dataset import Dataset

from archive.errors import ConfigurationError, DatasetError, StorageError
from archive.ledger import leading
from archive.ledger.leading import PendingCoercion
from archive.model.coerced_object import (
    Bytes,
    apply_recorded,
    read_header,
    record,
    with_original_attributes,
)
from archive.model.coercion import (
    AnswerKind,
    Coerced,
    LeadingAnswer,
    UpdatePolicy,
    merge,
)
from archive.model.indexed import indexed_attributes
from archive.model.task import Task

if TYPE_CHECKING:
    from archive.ledger.connection import Transaction
    from workers.processor import TaskContext

_BATCH = 100


def coerce_pending(task: Task, found: LeadingAnswer, context: "TaskContext") -> int:
    """Coerce the objects of the task's study that wait for the answer; return how many."""
    study, aet = task.study_instance_uid or "", task.remote_aet or ""
    if found.kind is not AnswerKind.FOUND:
        with context.ledger.transaction() as tx:
            leading.drop_pending(tx, aet, study)
        return 0
    count = 0
    while not context.cancelled():
        with context.ledger.transaction() as tx:
            waiting = leading.pending(tx, aet, study, _BATCH)
            for each in waiting:
                _coerce(tx, each, found.attributes or Dataset(), task=task, context=context)
        count += len(waiting)
        if len(waiting) < _BATCH:
            break
    return count


def _coerce(
    tx: "Transaction",
    waiting: PendingCoercion,
    attributes: Dataset,
    *,
    task: Task,
    context: "TaskContext",
) -> None:
    """Record what the answer changes in one object, and bring it into the index."""
    try:
        dataset = _header(waiting, context)
        result = Coerced(dataset, sources=[task.remote_aet or ""])
        merge(result, attributes, UpdatePolicy(waiting.policy))
    except (StorageError, DatasetError, ConfigurationError):
        leading.settle(tx, waiting.instance_pk, task.remote_aet or "", waiting.coercions)
        return  # sending it fails, and says why
    changes = _changes(waiting, result, task=task, now=context.clock.now())
    leading.settle(tx, waiting.instance_pk, task.remote_aet or "", changes)
    if result.changed:
        kept = Dataset()
        for tag in result.changed:
            if tag in dataset:
                kept[tag] = dataset[tag]
        leading.reindex(tx, task.study_instance_uid or "", indexed_attributes(kept))


def _header(waiting: PendingCoercion, context: "TaskContext") -> Dataset:
    file = waiting.file
    with context.storages.get(file.storage_id).open(file.storage_path) as opened:
        opened.seek(file.dataset_offset)
        length = file.object_size - file.dataset_offset
        header, _ = read_header(cast("Bytes", opened), length, file.transfer_syntax_uid)
    dataset = header.dataset()
    apply_recorded(dataset, waiting.coercions)
    return dataset


def _changes(
    waiting: PendingCoercion, result: Coerced, *, task: Task, now: datetime
) -> dict[str, Any] | None:
    """Return what is recorded: what was changed before, and now."""
    if not result.changed:
        return waiting.coercions
    with_original_attributes(
        result, modifying_system=task.local_aet or "", source=waiting.calling_aet, now=now
    )
    changes = record(result)
    earlier = waiting.coercions or {}
    return {
        "set": {**earlier.get("set", {}), **changes["set"]},
        "removed": [*earlier.get("removed", ()), *changes["removed"]],
    }
