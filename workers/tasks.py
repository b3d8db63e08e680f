"""The Celery tasks: shells around the runner."""

from celery import Task, shared_task
from celery.exceptions import Retry

from archive.model.task import TaskStatus
from workers.hints import RUN_TASK


class AttemptFailedError(Exception):
    """Tells Celery's events, and so Flower, that the ledger has the attempt as failed."""


@shared_task(name=RUN_TASK, bind=True, throws=(AttemptFailedError,))
def run(self: Task, task_pk: int, attempt: int) -> str:
    """Run attempt number `attempt` of the task with primary key `task_pk`.

    Raises
    ------
    AttemptFailedError
        When the task is FAILED now: Flower shows FAILURE.
    Retry
        When the ledger has another attempt of it later: Flower shows RETRY. Celery repeats nothing
        by itself.
    """
    word: str = self.app.runtime().runner.run(task_pk, attempt)
    match word.partition(":")[0]:
        case TaskStatus.FAILED:
            raise AttemptFailedError(word)
        case TaskStatus.SCHEDULED_FOR_RETRY | "held":
            raise Retry(word, exc=AttemptFailedError(word))
        case _:
            return word
