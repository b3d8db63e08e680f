"""Retrieve tasks: this archive as C-MOVE SCU, for one study, series or instance (PS3.4 §C.4.2.3).

The other archive's responses are written down as they come, at most four a second. A cancel sends
a C-CANCEL and waits for the final response.
"""

from typing import TYPE_CHECKING

from archive.ledger import retrievals
from archive.ledger.retrievals import RetrieveRequest
from archive.model.retrieval import RetrieveResult, RetrieveStatus
from archive.model.status import Service, classify
from archive.model.task import Failure, Outcome, Task, TaskStatus
from workers.moving import MoveAssociation, MoveRequest
from workers.route import find_route, local_ae, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import NetworkAE
    from workers.processor import TaskContext

NOTE_EVERY_S = 0.25
"""Responses are written down at most so often."""

_WANTED_BY = "a retrieve task"


def perform_request(task: Task, request: RetrieveRequest, context: "TaskContext") -> Outcome:
    """Ask another archive to send; return how that ended.

    Raises
    ------
    PeerError
        When it could not be asked, or did not answer to the end.
    NotConfiguredError
        When the local or the remote AE is missing in the directory.
    """
    local = local_ae(context.snapshot, task.local_aet, _WANTED_BY)
    remote = remote_ae(context.snapshot, task.remote_aet or "", _WANTED_BY)
    move = MoveRequest(request.identifier, request.destination_aet, priority=request.priority)
    association = MoveAssociation(find_route(local, remote), move.sop_class_uid, context.clock)
    final: RetrieveResult | None = None
    notes = _Notes(task, context)
    with context.on_abort(association.shutdown), association:
        for response in association.move(move, notes.cancelled):
            final = response
            notes.take(response)
    assert final is not None  # noqa: S101 - the iteration ends with a response or an error
    notes.write()
    subject = (
        f"C-MOVE of {request.identifier.words()} from {task.remote_aet} "
        f"to {request.destination_aet}"
    )
    return outcome_of(subject, final, local, cancelled=context.cancelled())


class _Notes:
    """Writes responses down: of many that come in a moment the latest, and always the last."""

    def __init__(self, task: Task, context: "TaskContext") -> None:
        self._task = task
        self._context = context
        self._unwritten: RetrieveResult | None = None
        self._written_at = float("-inf")

    def take(self, response: RetrieveResult) -> None:
        """Remember a response."""
        self._unwritten = response

    def cancelled(self) -> bool:
        """Tell whether to cancel; called after each response and while none comes."""
        if self._context.clock.monotonic() - self._written_at >= NOTE_EVERY_S:
            self.write()
        return self._context.cancelled()

    def write(self) -> None:
        """Write the latest response down, unless that was done."""
        response, self._unwritten = self._unwritten, None
        if response is not None:
            with self._context.ledger.statement() as tx:
                retrievals.note(tx, self._task, response, status=response.status)
            self._written_at = self._context.clock.monotonic()


def outcome_of(
    subject: str, final: RetrieveResult, local: "NetworkAE", *, cancelled: bool
) -> Outcome:
    """Return the outcome for a final response.

    Nothing delivered although something failed is a failure, whatever the status says; a B000
    with something delivered is a warning.

    Parameters
    ----------
    subject
        What was asked of whom.
    local
        AE with dcmRetrieveTaskWarningOnNoMatch and …OnWarnings.
    """
    status = classify(Service.C_MOVE, final.status)
    counts = final.counts
    numbers = f"completed:{counts.completed} warning:{counts.warning} failed:{counts.failed}"
    if counts.remaining:
        numbers += f" remaining:{counts.remaining}"
    message = f"{subject}: {status.describe(final.error_comment)}; {numbers}"
    if cancelled and final.status == RetrieveStatus.CANCELED:
        return Outcome(TaskStatus.CANCELED, message)
    delivered = counts.completed + counts.warning
    if status.is_accepted and (delivered or not counts.failed):
        return _accepted(message, final, local)
    failure = status.failure or Failure.TRANSIENT
    return Outcome(TaskStatus.FAILED, message, failure)


def _accepted(message: str, final: RetrieveResult, local: "NetworkAE") -> Outcome:
    counts = final.counts
    nothing = not (counts.completed or counts.warning or counts.failed)
    warned = (
        final.status == RetrieveStatus.SOME_FAILED
        or counts.failed > 0
        or (nothing and local.retrieve_task_warning_on_no_match)
        or (counts.warning > 0 and local.retrieve_task_warning_on_warnings)
    )
    if warned:
        return Outcome(TaskStatus.WARNING, message, Failure.PERMANENT)
    return Outcome(TaskStatus.COMPLETED, message)
