"""What becomes of a task after an attempt: decided here, without touching anything."""

from dataclasses import dataclass, field, replace

from archive.errors import CONNECTION_FAILURES, Blame, DicomqError
from archive.model.retry import Finish, RetryIn, RetryPolicy, decide
from archive.model.task import Failure, Outcome, Task, TaskStatus
from workers.processor import StopReason

_WHOSE_FAULT = {
    Blame.OURS: "a fault of this archive: see the worker's log",
    Blame.PEER: "a fault of the remote AE",
    Blame.OPERATOR: "to be put right in the configuration or on this host",
}

INTERNAL_ERROR = Outcome(
    TaskStatus.FAILED, f"internal error ({_WHOSE_FAULT[Blame.OURS]})", Failure.TRANSIENT
)


@dataclass(frozen=True, slots=True)
class Drop:
    """Write nothing: the task belongs to another attempt."""


@dataclass(frozen=True, slots=True)
class Release:
    """Put the task back to where it waited, without counting a failure."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Record the outcome, either as final or as a failure that is tried again.

    Attributes
    ----------
    cause
        The message without what it says about further attempts.
    """

    outcome: Outcome
    decision: Finish | RetryIn
    cause: str = field(default="", compare=False)


Conclusion = Drop | Release | Settle


def outcome_of_error(error: DicomqError) -> Outcome:
    """Return the outcome of an attempt that `error` ended."""
    return Outcome(
        status=TaskStatus.FAILED,
        failure=Failure.TRANSIENT if error.retryable else Failure.PERMANENT,
        message=f"{error} ({_WHOSE_FAULT[error.blame]})",
        unreached=isinstance(error, CONNECTION_FAILURES),
    )


def conclude(
    outcome: Outcome, reason: StopReason | None, policy: RetryPolicy, *, failures: int
) -> Conclusion:
    """Decide what becomes of a task.

    Parameters
    ----------
    outcome
        How the attempt ended.
    reason
        Why the task was asked to stop, if it was.
    policy
        Retry policy of the task's queue.
    failures
        Unsuccessful attempts before this one.
    """
    if reason is StopReason.CLAIM_LOST:
        return Drop()
    worth_another = outcome.failure is Failure.TRANSIENT
    cut_short = outcome.status is TaskStatus.CANCELED or worth_another
    if cut_short and reason is StopReason.SHUTDOWN:
        return Release()
    if cut_short and reason is StopReason.CANCELED:
        canceled = Outcome(TaskStatus.CANCELED, outcome.message)
        return Settle(canceled, Finish(TaskStatus.CANCELED))
    decision = decide(policy, outcome, failures + 1)
    explanation = explained(outcome, decision, policy, failures=failures + 1)
    return Settle(explanation, decision, outcome.message)


def explained(
    outcome: Outcome, decision: Finish | RetryIn, policy: RetryPolicy, *, failures: int
) -> Outcome:
    """Return `outcome` with a message that also says whether the task is tried again."""
    match decision:
        case RetryIn(delay_s):
            fate = f"retry {failures} of {policy.max_retries} in {delay_s:g} s"
        case Finish() if outcome.failure is Failure.PERMANENT:
            fate = "not retried: it would fail again; reschedule the task when the cause is gone"
        case Finish() if outcome.failure is Failure.TRANSIENT:
            fate = f"given up after {failures} attempts; reschedule the task to try again"
        case _:
            return outcome
    return replace(outcome, message=f"{outcome.message}; {fate}")


def outcome_of_lost_worker(task: Task) -> Outcome:
    """Return the outcome of an attempt whose worker did not renew its lease."""
    message = (
        f"worker lost: {task.worker} stopped renewing its lease on attempt {task.attempt}"
        " (it was killed, or cut off from PostgreSQL)"
    )
    return Outcome(TaskStatus.FAILED, message, Failure.TRANSIENT)
