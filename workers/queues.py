"""Which queues a pool of workers serves.

Pools are divided by what their work waits for, so that a destination that hangs never holds the
slots that notifications or commitments need. Pure: names in, names out.
"""

from collections.abc import Container, Iterable
from enum import StrEnum

from archive.configuration.descriptors import Snapshot
from archive.errors import InvalidValueError
from archive.model.retrieval import INTERACTIVE_QUEUE, RETRIEVE_QUEUE


class PoolKind(StrEnum):
    """Kind of a worker pool, `--kind` on the command line."""

    EXPORT = "export"
    NOTIFY = "notify"
    COMMIT = "commit"
    RETRIEVE = "retrieve"
    QUERY = "query"


ALL_KINDS = frozenset(PoolKind)
EVERY_KIND = "all"

KIND_BY_QUEUE: dict[str, PoolKind] = {
    "IANSCU": PoolKind.NOTIFY,
    "StgCmtSCU": PoolKind.COMMIT,
    "StgCmtSCP": PoolKind.COMMIT,
    RETRIEVE_QUEUE: PoolKind.RETRIEVE,
    INTERACTIVE_QUEUE: PoolKind.RETRIEVE,
    "LeadingCFind": PoolKind.QUERY,
}
"""Queues whose name decides their kind; every other queue is an exporter's."""


def kind_of_queue(name: str) -> PoolKind:
    """Return the kind of pool that serves the queue called `name`."""
    return KIND_BY_QUEUE.get(name, PoolKind.EXPORT)


def parse_kinds(values: Iterable[str]) -> frozenset[PoolKind]:
    """Return the kinds named on the command line; none named means all of them.

    Parameters
    ----------
    values
        Each a kind, several separated by commas, or `all`.

    Raises
    ------
    InvalidValueError
        When a name is not a kind of pool.
    """
    names = [name.strip().lower() for value in values for name in value.split(",")]
    unknown = sorted({name for name in names if name not in {EVERY_KIND, *PoolKind}})
    if unknown:
        known = ", ".join([*PoolKind, EVERY_KIND])
        msg = f"--kind {', '.join(map(repr, unknown))} is not a kind of worker pool; use {known}"
        raise InvalidValueError(msg)
    if not names or EVERY_KIND in names:
        return ALL_KINDS
    return frozenset(PoolKind(name) for name in names)


def configured_queues(snapshot: Snapshot) -> frozenset[str]:
    """Return every queue that the configuration can put a task into.

    These are the dcmQueue entries, the queues that exporters name (with an entry or without),
    and those whose name is fixed by the kind of task.
    """
    device = snapshot.device
    exporters = (exporter.queue_name for exporter in device.exporters.values())
    return frozenset((*device.queues, *exporters, *KIND_BY_QUEUE))


def consumed_queues(
    kinds: Iterable[PoolKind], hinted: Iterable[str], recent: Iterable[str]
) -> frozenset[str]:
    """Return the queues that a pool of `kinds` has to listen to.

    Each hint costs one BRPOP that names all queues listened to, so these are not all that exist:
    the few of fixed name, those with hints, and those that had some a moment ago.

    Parameters
    ----------
    hinted
        Queues with tasks that are handed over and not claimed.
    recent
        Queues that were in use lately.
    """
    wanted = frozenset(kinds)
    names = frozenset((*KIND_BY_QUEUE, *hinted, *recent))
    return frozenset(name for name in names if kind_of_queue(name) in wanted)


class QueueUse:
    """Remembers for how long queues have not been used; for one thread.

    Parameters
    ----------
    keep_s
        Seconds after which an unused queue is forgotten.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._used_at: dict[str, float] = {}

    def note(self, names: Iterable[str], now_s: float) -> None:
        """Note that queues are in use at the monotonic instant `now_s`."""
        self._used_at.update(dict.fromkeys(names, now_s))

    def recent(self, configured: Container[str], now_s: float) -> frozenset[str]:
        """Return the queues in use lately; forget the others, and those configured no more."""
        self._used_at = {
            name: used_at
            for name, used_at in self._used_at.items()
            if name in configured and now_s - used_at < self._keep_s
        }
        return frozenset(self._used_at)
