"""Claims and results of a worker process; threads at it at the same time share a commit."""

from collections.abc import Sequence

from archive.combining import Combiner
from archive.errors import LedgerUnavailableError
from archive.ledger import tasks
from archive.ledger.attempts import Ending, claim_together, finish_together
from archive.ledger.connection import Ledger
from archive.model.task import Hint, Task, TaskStatus


class Bookkeeping:
    """Claims tasks and records how their attempts ended.

    Parameters
    ----------
    worker
        Name under which tasks are claimed.
    lease_s
        Seconds until an unrenewed claim counts as lost.
    """

    def __init__(self, ledger: Ledger, *, worker: str, lease_s: float) -> None:
        self._ledger = ledger
        self._worker = worker
        self._lease_s = lease_s
        unavailable = LedgerUnavailableError
        self._claims = Combiner(self._claim_all, self._claim, everybodys=unavailable)
        self._finishes = Combiner(self._finish_all, self._finish, everybodys=unavailable)

    def claim(self, hint: Hint) -> Task | None:
        """Claim the task of `hint`; None when the hint is stale.

        Raises
        ------
        LedgerError
            When the ledger cannot be reached or refused the statement.
        """
        return self._claims.do(hint)

    def finish(self, ending: Ending) -> TaskStatus | None:
        """Record a plain ending; None: the claim was lost and nothing was changed.

        Raises
        ------
        LedgerError
            When the ledger cannot be reached or refused the statement.
        """
        return self._finishes.do(ending)

    def _claim(self, hint: Hint) -> Task | None:
        with self._ledger.statement() as tx:
            return tasks.claim(tx, hint, worker=self._worker, lease_s=self._lease_s)

    def _claim_all(self, hints: Sequence[Hint]) -> list[Task | None]:
        with self._ledger.statement() as tx:
            claimed = claim_together(tx, hints, worker=self._worker, lease_s=self._lease_s)
        # A hint that came twice is one claim, and the second one finds it stale.
        return [claimed.pop(hint, None) for hint in hints]

    def _finish(self, ending: Ending) -> TaskStatus | None:
        with self._ledger.statement() as tx:
            task, outcome, decision = ending.task, ending.outcome, ending.decision
            return tasks.finish(tx, task, outcome, decision, actor=self._worker)

    def _finish_all(self, endings: Sequence[Ending]) -> list[TaskStatus | None]:
        with self._ledger.statement() as tx:
            finished = finish_together(tx, endings, actor=self._worker)
        return [finished.get(ending.task.pk) for ending in endings]
