"""What an export attempt achieved, counted, and what follows from the counts (pure)."""

from collections import Counter
from dataclasses import dataclass, field

from archive.errors import CONNECTION_FAILURES, DicomqError, PeerTimeoutError
from archive.model.entities import DeliverySummary
from archive.model.task import Failure, Outcome, TaskStatus

_REASONS_SHOWN = 3


@dataclass(slots=True)
class Tally:
    """Counts of one attempt; not safe to be changed by two threads at once.

    Attributes
    ----------
    completed, warning
        C-STOREs answered with 0000 and with a warning.
    transient, permanent
        Instances that failed and may, or may not, succeed in another attempt.
    missing
        Instances without a readable file.
    remaining
        Instances that were not tried.
    stopped_by
        Why the attempt ended before all instances were tried, if it did.
    """

    completed: int = 0
    warning: int = 0
    transient: int = 0
    permanent: int = 0
    missing: int = 0
    remaining: int = 0
    stopped_by: DicomqError | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def delivered(self) -> int:
        """C-STOREs that the peer accepted."""
        return self.completed + self.warning

    @property
    def failed(self) -> int:
        """Instances that the peer, or the way to it, did not let through."""
        return self.transient + self.permanent

    @property
    def unreached(self) -> bool:
        """Whether the peer was not reached, or left everything without an answer."""
        if self.delivered or not isinstance(self.stopped_by, CONNECTION_FAILURES):
            return False
        return isinstance(self.stopped_by, PeerTimeoutError) or not self.failed


def conclude(
    tally: Tally, summary: DeliverySummary, *, cancelled: bool
) -> tuple[TaskStatus, Failure | None]:
    """Return status and failure class of an export attempt.

    Completed only when every instance got a C-STORE-RSP that says so. Whatever is left is worth
    another attempt as long as one of its reasons is transient; the attempt then tries what was
    neither delivered nor refused for good.

    Parameters
    ----------
    tally
        Counts of this attempt.
    summary
        Counts over all attempts of the task.
    cancelled
        Whether the task was asked to stop.
    """
    if not (tally.failed or tally.missing or tally.remaining or summary.refused):
        return TaskStatus.COMPLETED, None
    if cancelled and tally.remaining:
        return TaskStatus.CANCELED, None
    stopped_for_now = tally.stopped_by is None or tally.stopped_by.retryable
    transient = tally.transient > 0 or (tally.remaining > 0 and stopped_for_now)
    status = TaskStatus.WARNING if summary.delivered else TaskStatus.FAILED
    return status, Failure.TRANSIENT if transient else Failure.PERMANENT


def describe(subject: str, tally: Tally, summary: DeliverySummary) -> str:
    """Return the outcome in one sentence: counts, then the first reasons.

    Parameters
    ----------
    subject
        What was exported where.
    summary
        Counts over all attempts; what earlier ones delivered is told apart.
    """
    counts = [f"completed:{tally.completed}"]
    named = (
        ("warning", tally.warning),
        ("failed", tally.failed),
        ("missing", tally.missing),
        ("remaining", tally.remaining),
        ("delivered before", summary.delivered - tally.delivered),
        ("refused before", summary.refused - tally.permanent),
    )
    counts += [f"{name}:{count}" for name, count in named if count > 0]
    reasons = [
        f"{count} × {reason}" if count > 1 else reason
        for reason, count in tally.reasons.most_common(_REASONS_SHOWN)
    ]
    if tally.stopped_by is not None and tally.remaining:
        reasons.append(f"stopped: {tally.stopped_by}")
    return "; ".join((f"{subject}: {' '.join(counts)}", *reasons))


def outcome(subject: str, tally: Tally, summary: DeliverySummary, *, cancelled: bool) -> Outcome:
    """Return the outcome of an export attempt, without follow-ups."""
    status, failure = conclude(tally, summary, cancelled=cancelled)
    message = describe(subject, tally, summary)
    return Outcome(status, message, failure, unreached=tally.unreached)
