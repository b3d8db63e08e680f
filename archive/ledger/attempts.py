"""Claims and results of several attempts in one statement: the plain cases, for a busy worker.

A transaction costs a round trip, a flush of the log, and a notification, which PostgreSQL lets
one commit do at a time; several attempts share them here. Nothing is decided differently from
`tasks.claim` and `tasks.finish`, and nothing is waited for: what is locked by somebody, or needs a
second look, is left out of the answer and has to go through those.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.ledger.tasks import ending, read_tasks
from archive.model.retry import Finish, RetryIn
from archive.model.task import Hint, Outcome, Task, TaskStatus


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, and what becomes of its task."""

    task: Task
    outcome: Outcome
    decision: Finish | RetryIn

    @property
    def is_plain(self) -> bool:
        """Whether one statement does all: nothing follows, and no circuit has to be counted."""
        return not (self.outcome.follow_ups or self.outcome.unreached)


def claim_together(
    tx: Transaction, hints: Sequence[Hint], *, worker: str, lease_s: float
) -> dict[Hint, Task]:
    """Give the tasks of `hints` to `worker`; a hint that is missing has to be claimed alone."""
    parameters = {
        "pks": [hint.task_pk for hint in hints],
        "attempts": [hint.attempt for hint in hints],
        "worker": worker,
        "lease_s": lease_s,
    }
    claimed = read_tasks(tx, load_queries("attempts")["claim"], parameters)
    return {Hint(task.pk, task.attempt): task for task in claimed}


def finish_together(
    tx: Transaction, endings: Sequence[Ending], *, actor: str
) -> dict[int, TaskStatus]:
    """End plain attempts; a task that is missing from the answer has to be finished alone."""
    ends = [ending(each.outcome, each.decision) for each in endings]
    parameters = {
        "pks": [each.task.pk for each in endings],
        "attempts": [each.task.attempt for each in endings],
        "statuses": [end.status for end in ends],
        "failed": [end.failed for end in ends],
        "delays": [end.delay_s for end in ends],
        "errors": [end.error_message for end in ends],
        "outcomes": [end.outcome_message for end in ends],
        "actor": actor,
    }
    rows = tx.execute(load_queries("attempts")["finish"], parameters)
    return {pk: TaskStatus(status) for pk, status in rows}
