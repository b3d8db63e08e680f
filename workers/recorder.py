"""Writes down what the destination answered, instance by instance, in batches."""

import threading
from typing import TYPE_CHECKING

from archive.ledger import deliveries
from archive.model.entities import InstanceResult, InstanceToSend
from archive.model.status import DimseStatus, Service, StatusClass, classify
from archive.model.task import Failure, Task
from workers.tally import Tally

if TYPE_CHECKING:
    from workers.processor import TaskContext

_BATCH = 100
_BATCH_AGE_S = 1.0


class Recorder:
    """Counts results and writes them to the ledger in batches; shared by threads."""

    def __init__(self, task: Task, context: "TaskContext") -> None:
        self.tally = Tally()
        self._task = task
        self._context = context
        self._lock = threading.Lock()
        self._batch: list[InstanceResult] = []
        self._batch_since = 0.0

    def answered(self, instance: InstanceToSend, code: int, comment: str) -> None:
        """Note a C-STORE-RSP."""
        status = classify(Service.C_STORE, code)
        words = "" if status.status_class is StatusClass.SUCCESS else status.describe(comment)
        with self._lock:
            if status.status_class is StatusClass.SUCCESS:
                self.tally.completed += 1
            elif status.is_accepted:
                self.tally.warning += 1
            elif status.failure is Failure.PERMANENT:
                self.tally.permanent += 1
            else:
                self.tally.transient += 1
            self._note(instance, words, status, permanent=status.failure is Failure.PERMANENT)

    def failed(self, instance: InstanceToSend, reason: str, *, transient: bool) -> None:
        """Note an instance that got no response."""
        with self._lock:
            if transient:
                self.tally.transient += 1
            else:
                self.tally.permanent += 1
            self._note(instance, reason, permanent=not transient)

    def missing(self, instance: InstanceToSend, reason: str) -> None:
        """Note an instance whose file cannot be read."""
        with self._lock:
            self.tally.missing += 1
            self._note(instance, reason)

    def flush(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            self._write()

    def _note(
        self,
        instance: InstanceToSend,
        reason: str,
        status: DimseStatus | None = None,
        *,
        permanent: bool = False,
    ) -> None:
        """Add a result to the batch; `status` is None when no response came."""
        now = self._context.clock.monotonic()
        if reason:
            self.tally.reasons[reason] += 1
        if not self._batch:
            self._batch_since = now
        self._batch.append(
            InstanceResult(
                instance.instance_pk,
                instance.version,
                delivered=status is not None and status.is_accepted,
                dimse_status=None if status is None else status.code,
                message=reason,
                permanent=permanent,
            )
        )
        if len(self._batch) >= _BATCH or now - self._batch_since > _BATCH_AGE_S:
            self._write()

    def _write(self) -> None:
        if self._batch:
            with self._context.ledger.statement() as tx:
                deliveries.record(tx, self._task, self._batch)
            self._batch = []
