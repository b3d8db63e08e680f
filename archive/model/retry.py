"""Retry policy of a queue, as a pure function of the failures so far."""

from dataclasses import dataclass

from archive.model.task import Failure, Outcome, TaskStatus


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry attributes of a `dcmQueue` entry.

    Attributes
    ----------
    max_retries
        dcmMaxRetries: attempts after the first one; 0 or less never retries.
    delay_s
        dcmRetryDelay, seconds.
    max_delay_s
        dcmMaxRetryDelay, seconds; None for no cap.
    multiplier_percent
        dcmRetryDelayMultiplier: growth per retry, 100 keeps the delay.
    retry_on_warning
        dcmRetryOnWarning: retry an outcome of WARNING whatever its reason.
    """

    max_retries: int = 0
    delay_s: float = 60.0
    max_delay_s: float | None = None
    multiplier_percent: int = 100
    retry_on_warning: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The outcome is final."""

    status: TaskStatus


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Another attempt is due after `delay_s` seconds."""

    delay_s: float


def retry_delay_s(policy: RetryPolicy, failures: int) -> float:
    """Return the delay before the retry that follows failure number `failures` (1-based).

    The delay grows geometrically, is never below zero and never above the cap.
    """
    exponent = max(0, failures - 1)
    cap = policy.max_delay_s if policy.max_delay_s is not None else float("inf")
    try:
        delay = policy.delay_s * (policy.multiplier_percent / 100) ** exponent
    except OverflowError:
        delay = cap
    return max(0.0, min(delay, cap, _LONGEST_DELAY_S))


_LONGEST_DELAY_S = 366 * 86400.0


def decide(policy: RetryPolicy, outcome: Outcome, failures: int) -> Finish | RetryIn:
    """Decide what follows an attempt.

    Parameters
    ----------
    policy
        The queue's retry policy.
    outcome
        How the attempt ended.
    failures
        Unsuccessful attempts including this one.
    """
    match outcome.status:
        case TaskStatus.WARNING:
            worthwhile = outcome.failure is Failure.TRANSIENT or policy.retry_on_warning
        case TaskStatus.FAILED:
            worthwhile = outcome.failure is not Failure.PERMANENT
        case _:
            worthwhile = False
    if worthwhile and failures <= policy.max_retries:
        return RetryIn(retry_delay_s(policy, failures))
    return Finish(outcome.status)
