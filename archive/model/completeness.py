"""Whether the archive holds all of a study or series that another one has (pure).

What was sent here is taken as whole, until something says otherwise: the fallback archive was
asked and did not bring all of it, only a part of it was ever asked for, or it is older than
dcmFallbackCMoveSCPStudyOlderThan and may have been cut off when the archive was introduced.
"""

from dataclasses import dataclass
from enum import StrEnum

FOR_EVER = -1
"""Value of dcmFallbackCMoveSCPRetries without a limit."""


class Completeness(StrEnum):
    """What is known of a study or series."""

    UNKNOWN = "UNKNOWN"
    """A part of it was fetched, or its fetch did not come to an end."""
    PARTIAL = "PARTIAL"
    """It was fetched, and something is missing."""
    COMPLETE = "COMPLETE"


@dataclass(frozen=True, slots=True)
class Holding:
    """A study or series that a C-MOVE asks for, as the index knows it.

    Attributes
    ----------
    instances
        Number of its objects in the index.
    study_date
        As stored, YYYYMMDD.
    completeness
        None when it was never fetched.
    failed_retrieves
        How often something was missing.
    has_grown
        Whether a series came to it since its completeness was determined.
    """

    study_instance_uid: str
    series_instance_uid: str | None = None
    instances: int = 0
    study_date: str | None = None
    completeness: Completeness | None = None
    failed_retrieves: int = 0
    has_grown: bool = False


@dataclass(frozen=True, slots=True)
class RefetchPolicy:
    """What the directory says.

    Attributes
    ----------
    retries
        How often what was PARTIAL is asked for again; -1 for ever (dcmFallbackCMoveSCPRetries).
    study_older_than
        Studies dated before this day, YYYYMMDD, or without a date are fetched once although they
        were sent here (dcmFallbackCMoveSCPStudyOlderThan).
    """

    retries: int = 0
    study_older_than: str | None = None


def has_to_be_fetched(holding: Holding, policy: RefetchPolicy) -> bool:
    """Tell whether the fallback archive has to be asked for something that is requested."""
    if not holding.instances or holding.completeness is Completeness.UNKNOWN:
        return True
    if holding.completeness is Completeness.PARTIAL:
        return policy.retries == FOR_EVER or holding.failed_retrieves <= policy.retries
    if policy.study_older_than is None or not is_older(holding, policy.study_older_than):
        return False
    return holding.completeness is None or holding.has_grown


def is_older(holding: Holding, limit: str) -> bool:
    """Tell whether a study is dated before `limit`; one without a date is."""
    return (holding.study_date or "") < limit


def judged(*, expected: int | None, held: int, succeeded: bool) -> Completeness:
    """Return the completeness of a study after it was fetched.

    Parameters
    ----------
    expected
        Number of its objects that the leading archive named; None when it could not be asked.
    held
        Number of its objects in the index.
    succeeded
        Whether the fallback archive reported success and all that it counted arrived.
    """
    is_whole = held >= expected if expected else succeeded
    return Completeness.COMPLETE if is_whole else Completeness.PARTIAL
