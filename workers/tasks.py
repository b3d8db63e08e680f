"""The Celery tasks: shells around the runner."""

from workers.app import app
from workers.hints import RUN_TASK


@app.task(name=RUN_TASK)
def run(task_pk: int, attempt: int) -> str:
    """Run attempt number `attempt` of the task with primary key `task_pk`."""
    return app.runtime().runner.run(task_pk, attempt)
