"""What becomes of a task after an attempt."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import (
    ConfigurationError,
    LedgerError,
    NoAcceptedContextError,
    PeerUnreachableError,
)
from archive.model.retry import Finish, RetryIn, RetryPolicy
from archive.model.task import Failure, Outcome, Task, TaskKind, TaskStatus
from workers.conclusion import (
    Conclusion,
    Drop,
    Release,
    Settle,
    conclude,
    explained,
    outcome_of_error,
    outcome_of_lost_worker,
)
from workers.processor import StopReason

COMPLETED = Outcome(TaskStatus.COMPLETED, "3 of 3 delivered")
CANCELED = Outcome(TaskStatus.CANCELED, "1 of 3 delivered")
FAILED = Outcome(TaskStatus.FAILED, "refused", Failure.TRANSIENT)
HOPELESS = Outcome(TaskStatus.FAILED, "unknown SOP class", Failure.PERMANENT)
PARTLY = Outcome(TaskStatus.WARNING, "2 of 3 delivered", Failure.TRANSIENT)
PARTLY_HOPELESS = Outcome(TaskStatus.WARNING, "2 of 3 delivered", Failure.PERMANENT)
POLICY = RetryPolicy(max_retries=2, delay_s=30.0)

OUTCOMES = st.sampled_from([COMPLETED, CANCELED, FAILED, HOPELESS, PARTLY, PARTLY_HOPELESS])
REASONS = st.sampled_from([None, *StopReason])


def fate(conclusion: Conclusion) -> object:
    match conclusion:
        case Settle(_, Finish(status)):
            return status
        case Settle(_, RetryIn(delay_s)):
            return delay_s
        case _:
            return type(conclusion)


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        (COMPLETED, None, TaskStatus.COMPLETED),
        (FAILED, None, 30.0),
        (PARTLY, None, 30.0),
        (HOPELESS, None, TaskStatus.FAILED),
        (PARTLY_HOPELESS, None, TaskStatus.WARNING),
        (CANCELED, None, TaskStatus.CANCELED),
        (COMPLETED, StopReason.CANCELED, TaskStatus.COMPLETED),
        (FAILED, StopReason.CANCELED, TaskStatus.CANCELED),
        (PARTLY, StopReason.CANCELED, TaskStatus.CANCELED),
        (HOPELESS, StopReason.CANCELED, TaskStatus.FAILED),
        (PARTLY_HOPELESS, StopReason.CANCELED, TaskStatus.WARNING),
        (CANCELED, StopReason.CANCELED, TaskStatus.CANCELED),
        (COMPLETED, StopReason.SHUTDOWN, TaskStatus.COMPLETED),
        (FAILED, StopReason.SHUTDOWN, Release),
        (PARTLY, StopReason.SHUTDOWN, Release),
        (HOPELESS, StopReason.SHUTDOWN, TaskStatus.FAILED),
        (PARTLY_HOPELESS, StopReason.SHUTDOWN, TaskStatus.WARNING),
        (CANCELED, StopReason.SHUTDOWN, Release),
    ],
)
def test_conclusion(outcome: Outcome, reason: StopReason | None, expected: object) -> None:
    assert fate(conclude(outcome, reason, POLICY, failures=0)) == expected


@given(outcome=OUTCOMES, failures=st.integers(0, 5))
def test_a_lost_claim_writes_nothing(outcome: Outcome, failures: int) -> None:
    assert conclude(outcome, StopReason.CLAIM_LOST, POLICY, failures=failures) == Drop()


@given(outcome=OUTCOMES, reason=REASONS, failures=st.integers(2, 50))
def test_no_retry_beyond_the_limit(
    outcome: Outcome, reason: StopReason | None, failures: int
) -> None:
    assert not isinstance(fate(conclude(outcome, reason, POLICY, failures=failures)), float)


@pytest.mark.parametrize(
    ("outcome", "decision", "failures", "message"),
    [
        (FAILED, RetryIn(30.0), 1, "refused; retry 1 of 2 in 30 s"),
        (
            FAILED,
            Finish(TaskStatus.FAILED),
            3,
            "refused; given up after 3 attempts; reschedule the task to try again",
        ),
        (
            HOPELESS,
            Finish(TaskStatus.FAILED),
            1,
            (
                "unknown SOP class; not retried: it would fail again;"
                " reschedule the task when the cause is gone"
            ),
        ),
        (COMPLETED, Finish(TaskStatus.COMPLETED), 1, "3 of 3 delivered"),
    ],
)
def test_message_says_whether_it_is_retried(
    outcome: Outcome, decision: Finish | RetryIn, failures: int, message: str
) -> None:
    assert explained(outcome, decision, POLICY, failures=failures).message == message


@pytest.mark.parametrize(
    ("error", "failure", "whose"),
    [
        (PeerUnreachableError("no route"), Failure.TRANSIENT, "the remote AE"),
        (NoAcceptedContextError("no CT"), Failure.PERMANENT, "the remote AE"),
        (ConfigurationError("no AE"), Failure.PERMANENT, "the configuration"),
        (LedgerError("bad SQL"), Failure.PERMANENT, "this archive"),
    ],
)
def test_error_names_whose_fault_it_is(
    error: PeerUnreachableError, failure: Failure, whose: str
) -> None:
    outcome = outcome_of_error(error)
    assert outcome.status is TaskStatus.FAILED
    assert outcome.failure is failure
    assert whose in outcome.message


def test_a_lost_worker_is_named() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    task = Task(
        pk=1,
        kind=TaskKind.EXPORT,
        queue_name="Export",
        device_name="dcm4chee-arc",
        status=TaskStatus.IN_PROCESS,
        created_time=now,
        updated_time=now,
        scheduled_time=now,
        attempt=4,
        round=1,
        failures=0,
        follow_up_only=False,
        cancel_requested=False,
        worker="export@host#77",
    )
    outcome = outcome_of_lost_worker(task)
    assert outcome.failure is Failure.TRANSIENT
    assert "worker lost: export@host#77" in outcome.message
    assert "attempt 4" in outcome.message
