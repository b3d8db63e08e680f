"""Counters of a retrieve while it is performed, and how they get to whoever waits for them."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from typing_extensions import override

from archive.errors import LedgerError
from archive.ledger import retrievals
from archive.model.entities import InstanceToSend
from archive.model.retrieval import RetrieveResult, SubOperations
from archive.model.status import Service, StatusClass, classify
from archive.model.task import Task
from workers.recorder import Recorder

if TYPE_CHECKING:
    from workers.processor import TaskContext

WRITE_EVERY_S = 0.5
"""Counters are written at most so often; pending responses are seconds apart."""


class Progress:
    """Counts sub-operations; shared by the threads that perform them.

    Parameters
    ----------
    own
        Number of instances that are sent from here.
    """

    def __init__(self, task: Task, context: "TaskContext", own: int) -> None:
        self._task = task
        self._context = context
        self._own = own
        self._lock = threading.Lock()
        self._ended: dict[str, StatusClass] = {}
        self._elsewhere: dict[str, SubOperations] = {}
        self._totals: dict[str, int] = {}
        self._failed_elsewhere: dict[str, None] = {}
        self._uncounted = 0
        self._problems: dict[str, None] = {}

    def expect(self, forward: str, total: int) -> None:
        """Note how many sub-operations a forwarded C-MOVE has, as far as it is known."""
        with self._lock:
            self._totals[forward] = max(self._totals.get(forward, 0), total)

    def drop(self, count: int) -> None:
        """Take instances that are passed over out of the total."""
        with self._lock:
            self._own -= count

    def ended(self, sop_instance_uid: str, status: StatusClass) -> None:
        """Note that a sub-operation of ours came to an end; the first end of an object counts."""
        with self._lock:
            self._ended.setdefault(sop_instance_uid, status)

    def failed(self, sop_instance_uid: str, reason: str) -> None:
        """Note an object that cannot be delivered."""
        self.problem(reason)
        self.ended(sop_instance_uid, StatusClass.FAILURE)

    def failed_unnamed(self, count: int) -> None:
        """Note objects that were not delivered and of which only the number is known."""
        with self._lock:
            self._uncounted += max(0, count)

    def elsewhere(self, forward: str, result: RetrieveResult) -> None:
        """Take over the counters of another archive that delivers by itself."""
        with self._lock:
            self._elsewhere[forward] = result.counts
            self._totals[forward] = max(self._totals.get(forward, 0), result.counts.total)
            self._failed_elsewhere.update(dict.fromkeys(result.failed_sop_instance_uids))

    def name_failed(self, sop_instance_uids: tuple[str, ...]) -> None:
        """Add to the list of failed objects, without counting them."""
        with self._lock:
            self._failed_elsewhere.update(dict.fromkeys(sop_instance_uids))

    def problem(self, reason: str) -> None:
        """Note why something failed, for the outcome's message."""
        with self._lock:
            self._problems[reason] = None

    def has_ended(self, sop_instance_uid: str) -> bool:
        """Tell whether an object was delivered or has failed."""
        return sop_instance_uid in self._ended

    @property
    def problems(self) -> tuple[str, ...]:
        """Reasons noted so far, the first one first."""
        with self._lock:
            return tuple(self._problems)

    def counts(self) -> SubOperations:
        """Return the counters as a response has them."""
        with self._lock:
            own = list(self._ended.values())
            done = SubOperations(
                completed=own.count(StatusClass.SUCCESS),
                warning=own.count(StatusClass.WARNING),
                failed=own.count(StatusClass.FAILURE) + self._uncounted,
            )
            for counts in self._elsewhere.values():
                done = done.plus(SubOperations(0, counts.completed, counts.failed, counts.warning))
            total = self._own + sum(self._totals.values())
            remaining = max(0, total - done.done)
            return SubOperations(remaining, done.completed, done.failed, done.warning)

    def failed_uids(self) -> tuple[str, ...]:
        """Return the objects that are known to have failed."""
        with self._lock:
            own = [uid for uid, end in self._ended.items() if end is StatusClass.FAILURE]
            return tuple(dict.fromkeys((*own, *self._failed_elsewhere)))

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Write changed counters down from time to time while the block runs.

        In a thread of its own, because a sub-operation may take long. What cannot be written now
        is written later; the last word is the task's, and counts.
        """
        ended = threading.Event()

        def tell() -> None:
            told: SubOperations | None = None
            while True:
                if (counts := self.counts()) != told:
                    with contextlib.suppress(LedgerError):
                        self.write(RetrieveResult(0, counts), status=None)
                        told = counts
                if ended.wait(WRITE_EVERY_S):
                    return

        teller = threading.Thread(target=tell, name="retrieve progress")
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    def write(self, result: RetrieveResult, *, status: int | None) -> None:
        """Write counters down; with a status they are final."""
        with self._context.ledger.statement() as tx:
            retrievals.note(tx, self._task, result, status=status)


class MoveRecorder(Recorder):
    """Passes what a move destination answers on to the counters."""

    def __init__(self, task: Task, context: "TaskContext", progress: Progress) -> None:
        super().__init__(task, context)
        self._progress = progress

    @override
    def answered(self, instance: InstanceToSend, code: int, comment: str) -> None:
        """Note a C-STORE-RSP."""
        status = classify(Service.C_STORE, code)
        if status.is_accepted:
            self._progress.ended(instance.sop_instance_uid, status.status_class)
        else:
            self._progress.failed(instance.sop_instance_uid, status.describe(comment))

    @override
    def failed(self, instance: InstanceToSend, reason: str, *, transient: bool) -> None:
        """Note an instance that got no response."""
        self._progress.failed(instance.sop_instance_uid, reason)

    @override
    def missing(self, instance: InstanceToSend, reason: str) -> None:
        """Note an instance whose file cannot be read."""
        self._progress.failed(instance.sop_instance_uid, reason)
