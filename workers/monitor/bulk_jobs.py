"""Changes of many tasks that run while their user watches: started, followed and stopped."""

import logging
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from archive.errors import DicomqError, InvalidValueError
from archive.ledger.operations import Operation
from archive.model.identifiers import new_uid
from archive.model.task_filter import BulkProgress, TaskFilter
from workers.operations import BulkRun, Operations, Target

LOGGER = logging.getLogger(__name__)
REMEMBERED = 100
PARALLEL = 2


@dataclass(frozen=True, slots=True)
class BulkState:
    """How far a change of many tasks has come.

    Attributes
    ----------
    total
        Tasks that matched when it was started.
    error
        Why it ended early; what was changed before stays changed.
    """

    operation: Operation
    actor: str
    total: int
    progress: BulkProgress = field(default_factory=BulkProgress)
    finished: bool = False
    stopped: bool = False
    error: str | None = None


class BulkJob:
    """One change of many tasks; its state is replaced as a whole."""

    def __init__(self, state: BulkState) -> None:
        self.state = state
        self.stop = threading.Event()

    def run(self, operations: Operations, wanted: TaskFilter, target: Target) -> None:
        """Change the tasks, chunk by chunk, until all are or it is stopped."""
        operation, error = self.state.operation, "a defect of ours ended it: see the log of Flower"
        try:
            operations.change(operation, wanted, target, BulkRun(self._note))
            error = ""
        except DicomqError as known:
            error = str(known)
        finally:
            stopped = self.state.progress.last_pk is not None and not error
            self.state = replace(self.state, finished=True, stopped=stopped, error=error or None)

    def _note(self, progress: BulkProgress) -> bool:
        self.state = replace(self.state, progress=progress)
        return not self.stop.is_set()


def _log_defect(run: Future[None]) -> None:
    error = run.exception()
    if error is not None:
        LOGGER.error("a change of many tasks ended by a defect", exc_info=error)


class BulkJobs:
    """The changes of many tasks of this process, the last of them remembered."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, BulkJob] = OrderedDict()
        self._executor = ThreadPoolExecutor(PARALLEL, "bulk")

    def start(
        self, operations: Operations, state: BulkState, wanted: TaskFilter, target: Target
    ) -> str:
        """Begin a change and return its ID."""
        job, job_id = BulkJob(state), new_uid().rpartition(".")[2]
        self._jobs[job_id] = job
        while len(self._jobs) > REMEMBERED:
            self._jobs.popitem(last=False)
        self._executor.submit(job.run, operations, wanted, target).add_done_callback(_log_defect)
        return job_id

    def get(self, job_id: str) -> BulkJob:
        """Return a change.

        Raises
        ------
        InvalidValueError
            When this process does not know it, for example since it was started anew.
        """
        job = self._jobs.get(job_id)
        if job is None:
            msg = (
                f"there is no bulk change {job_id}: Flower was started anew; look at the tasks and"
                " repeat it if needed"
            )
            raise InvalidValueError(msg)
        return job

    def close(self) -> None:
        """Stop all changes after their present chunk."""
        for job in self._jobs.values():
            job.stop.set()
        self._executor.shutdown(wait=False)
