"""What the pages ask for: changes of one task and of many, counts."""

from typing import Any

from archive.errors import InvalidValueError
from archive.ledger.operations import Operation
from archive.model.task_filter import BulkProgress, TaskFilter
from workers.monitor import wording
from workers.monitor.bulk_jobs import BulkState
from workers.monitor.handler import JsonHandler
from workers.monitor.parameters import instant_of, member, normalized, task_filter, text_of
from workers.operations import Target

_DONE = {
    Operation.CANCEL: "canceled",
    Operation.RESCHEDULE: "rescheduled",
    Operation.DELETE: "deleted",
}


def sentence(operation: Operation, progress: BulkProgress, mood: str = "") -> str:
    """Return in words what a change of many tasks did, or would do."""
    plural = "" if progress.changed == 1 else "s"
    text = f"{wording.number(progress.changed)} task{plural} {mood}{_DONE[operation]}"
    if progress.changed_from:
        text += f" ({wording.listed(progress.changed_from)})"
    if progress.skipped:
        skipped = sum(count for _, count in progress.skipped)
        text += f", {wording.number(skipped)} left alone ({wording.listed(progress.skipped)})"
    return text


class ActionHandler(JsonHandler):
    """What actions of the pages have in common."""

    def target(self, body: dict[str, Any]) -> Target:
        """Return when and where to of a reschedule."""
        given = {name: [value] for name, value in body.items() if isinstance(value, str)}
        return Target(
            at=instant_of(given, "at", self.services.clock.now()),
            exporter_id=text_of(given, "exporter"),
            queue_name=text_of(given, "queue"),
        )

    def wanted(self) -> TaskFilter:
        """Return which tasks the address means."""
        return task_filter(normalized(self.queries), self.services.clock.now())


class TaskAction(ActionHandler):
    """Cancel, reschedule or delete one task."""

    async def post(self, pk: str, operation: str) -> None:
        """Answer with the status that the task has now."""
        target = self.target(self.body_json())
        status = await self.run(self._change, int(pk), Operation(operation), target)
        self.write_json({"status": status})

    def _change(self, pk: int, operation: Operation, target: Target) -> str:
        operations = self.services.operations(self.actor)
        match operation:
            case Operation.CANCEL:
                return operations.cancel(pk)
            case Operation.RESCHEDULE:
                return operations.reschedule(pk, target)
            case Operation.DELETE:
                operations.delete(pk)
                return "DELETED"


class TaskCount(ActionHandler):
    """How many tasks match, by status."""

    async def get(self) -> None:
        """Answer with the counts."""
        operations = self.services.operations(self.actor)
        counts = await self.run(operations.count_by_status, self.wanted())
        by_status = {status.value: count for status, count in sorted(counts.items())}
        self.write_json({"count": sum(counts.values()), "status": by_status})


class BulkPreview(ActionHandler):
    """What a change of all matching tasks would do."""

    async def post(self) -> None:
        """Answer with the numbers and a sentence."""
        body = self.body_json()
        operation = member(Operation, str(body.get("operation")))
        operations = self.services.operations(self.actor)
        expected = await self.run(operations.preview, operation, self.wanted(), self.target(body))
        text = sentence(operation, expected, "would be ") if expected.visited else "No task matches"
        self.write_json({"changed": expected.changed, "text": text})


class BulkStart(ActionHandler):
    """Change all matching tasks, in the background."""

    async def post(self) -> None:
        """Answer with the ID under which it is followed."""
        body = self.body_json()
        operation = member(Operation, str(body.get("operation")))
        wanted, target = self.wanted(), self.target(body)
        if wanted.is_empty and body.get("everything") is not True:
            msg = "no filter is set: say that every task is meant"
            raise InvalidValueError(msg)
        operations = self.services.operations(self.actor)
        expected = await self.run(operations.preview, operation, wanted, target)
        state = BulkState(operation, self.actor, expected.visited)
        job_id = self.services.jobs.start(operations, state, wanted, target)
        self.write_json({"id": job_id, "total": expected.visited}, 202)


class BulkFollow(ActionHandler):
    """How far a change of many tasks has come."""

    async def get(self, job_id: str) -> None:
        """Answer with its state."""
        state = self.services.jobs.get(job_id).state
        self.write_json(
            {
                "total": max(state.total, state.progress.visited),
                "visited": state.progress.visited,
                "changed": state.progress.changed,
                "finished": state.finished,
                "stopped": state.stopped,
                "error": state.error,
                "text": sentence(state.operation, state.progress),
            }
        )


class BulkStop(ActionHandler):
    """Stop a change of many tasks after its present chunk."""

    async def post(self, job_id: str) -> None:
        """Answer at once."""
        self.services.jobs.get(job_id).stop.set()
        self.write_json({}, 202)
