"""Retrieve tasks: this archive as C-MOVE SCU, for one study, series or instance (PS3.4 §C.4.2.3).

Every response of the other archive is written down when it comes. A cancel sends a C-CANCEL and
waits for the final response.
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
    with context.on_abort(association.shutdown), association:
        for response in association.move(move, context.cancelled):
            final = response
            with context.ledger.statement() as tx:
                retrievals.note(tx, task, response, status=response.status)
    assert final is not None  # noqa: S101 - the iteration ends with a response or an error
    subject = (
        f"C-MOVE of {request.identifier.words()} from {task.remote_aet} "
        f"to {request.destination_aet}"
    )
    return outcome_of(subject, final, local, cancelled=context.cancelled())


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
