"""Which tasks an operator means: conditions hold together, values of one are alternatives."""

from dataclasses import dataclass, fields
from datetime import datetime

from archive.model.task import TaskKind, TaskStatus


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A span of time, either end open; `since` is included, `until` is not."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Conditions on tasks; an empty field means any.

    `remote_aets` is the destination of exports and notifications and the peer of other kinds;
    `destination_aets` is where retrieves bring their objects.
    """

    task_pks: tuple[int, ...] = ()
    kinds: tuple[TaskKind, ...] = ()
    statuses: tuple[TaskStatus, ...] = ()
    queue_names: tuple[str, ...] = ()
    exporter_ids: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    local_aets: tuple[str, ...] = ()
    remote_aets: tuple[str, ...] = ()
    destination_aets: tuple[str, ...] = ()
    study_instance_uids: tuple[str, ...] = ()
    batch_ids: tuple[str, ...] = ()
    created: TimeRange = TimeRange()
    updated: TimeRange = TimeRange()
    scheduled: TimeRange = TimeRange()

    @property
    def is_empty(self) -> bool:
        """Whether it means every task there is."""
        return all(getattr(self, each.name) == each.default for each in fields(self))


@dataclass(frozen=True, slots=True)
class PagePosition:
    """Where a page of tasks begins: after this key, in the order of the page.

    Attributes
    ----------
    words
        Status, or queue and status, where the order begins with them.
    """

    time: datetime
    task_pk: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """How far an operation on many tasks has come.

    Attributes
    ----------
    visited
        Tasks that matched and were looked at.
    changed
        Tasks that the operation changed.
    skipped
        Tasks left as they were, by the reason: the status that forbade the change, or its kind.
    last_pk
        Continue after this primary key; None when nothing is left.
    changed_from
        The changed tasks by the status they had before.
    """

    visited: int = 0
    changed: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    last_pk: int | None = 0
    changed_from: tuple[tuple[str, int], ...] = ()

    def plus(self, other: "BulkProgress") -> "BulkProgress":
        """Return the sum of both, continuing where `other` ended."""
        return BulkProgress(
            self.visited + other.visited,
            self.changed + other.changed,
            _summed(self.skipped, other.skipped),
            other.last_pk,
            _summed(self.changed_from, other.changed_from),
        )


def _summed(
    one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    totals = dict(one)
    for name, count in other:
        totals[name] = totals.get(name, 0) + count
    return tuple(sorted(totals.items()))
