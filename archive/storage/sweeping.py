"""What a sweep of a storage asks and answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

KnownPaths = Callable[[Sequence[str]], set[str]]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep found.

    Attributes
    ----------
    removed
        Orphans (temporary files included) that were deleted.
    confirmed
        Files in doubt whose row was found, so that they stay.
    missing
        Paths the ledger knows but the storage does not have.
    """

    removed: tuple[str, ...] = ()
    confirmed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
