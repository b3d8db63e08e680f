"""The Celery tasks: shells around the runner."""

from celery import Task, shared_task

from workers.hints import RUN_TASK


@shared_task(name=RUN_TASK, bind=True)
def run(self: Task, task_pk: int, attempt: int) -> str:
    """Run attempt number `attempt` of the task with primary key `task_pk`."""
    word: str = self.app.runtime().runner.run(task_pk, attempt)
    return word
