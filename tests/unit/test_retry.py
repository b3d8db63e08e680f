"""Retry delays and decisions of a queue's policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.model.retry import Finish, RetryIn, RetryPolicy, decide, retry_delay_s
from archive.model.task import Failure, Outcome, TaskStatus

DEFAULT = RetryPolicy(max_retries=10, delay_s=30, max_delay_s=600, multiplier_percent=200)

policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(-2, 50),
    delay_s=st.floats(0, 1e6),
    max_delay_s=st.none() | st.floats(0, 1e7),
    multiplier_percent=st.integers(0, 10_000),
    retry_on_warning=st.booleans(),
)


def test_delays_of_the_default_queues() -> None:
    """The sequence that the reference's default configuration gives."""
    delays = [retry_delay_s(DEFAULT, failures) for failures in range(1, 11)]
    assert delays == [30, 60, 120, 240, 480, 600, 600, 600, 600, 600]


@given(policies, st.integers(1, 10_000))
def test_delay_is_bounded(policy: RetryPolicy, failures: int) -> None:
    """No delay is negative, above the cap, or longer than a year."""
    delay = retry_delay_s(policy, failures)
    assert 0 <= delay <= 366 * 86400
    if policy.max_delay_s is not None:
        assert delay <= policy.max_delay_s


@given(policies, st.integers(1, 100))
def test_delay_never_shrinks_while_growing(policy: RetryPolicy, failures: int) -> None:
    """With a multiplier of 100 % or more a later retry waits at least as long."""
    if policy.multiplier_percent >= 100:
        earlier, later = retry_delay_s(policy, failures), retry_delay_s(policy, failures + 1)
        assert later >= earlier


def _outcome(status: TaskStatus, failure: Failure | None) -> Outcome:
    return Outcome(status, "message", failure=failure)


@pytest.mark.parametrize(
    ("status", "failure", "on_warning", "retries"),
    [
        (TaskStatus.COMPLETED, None, True, False),
        (TaskStatus.CANCELED, None, True, False),
        (TaskStatus.WARNING, Failure.TRANSIENT, False, True),
        (TaskStatus.WARNING, Failure.PERMANENT, False, False),
        (TaskStatus.WARNING, Failure.PERMANENT, True, True),
        (TaskStatus.WARNING, None, False, False),
        (TaskStatus.WARNING, None, True, True),
        (TaskStatus.FAILED, Failure.TRANSIENT, False, True),
        (TaskStatus.FAILED, None, False, True),
        (TaskStatus.FAILED, Failure.PERMANENT, True, False),
    ],
)
def test_decision(
    status: TaskStatus, failure: Failure | None, *, on_warning: bool, retries: bool
) -> None:
    """Transient failures are retried, permanent ones only on demand of dcmRetryOnWarning."""
    policy = RetryPolicy(max_retries=1, delay_s=7, retry_on_warning=on_warning)
    expected = RetryIn(7) if retries else Finish(status)
    assert decide(policy, _outcome(status, failure), failures=1) == expected


@given(policies, st.integers(1, 60))
def test_retries_end(policy: RetryPolicy, failures: int) -> None:
    """A queue allows exactly its number of retries, then the outcome is final."""
    outcome = _outcome(TaskStatus.FAILED, Failure.TRANSIENT)
    decision = decide(policy, outcome, failures)
    assert isinstance(decision, RetryIn) == (failures <= policy.max_retries)
