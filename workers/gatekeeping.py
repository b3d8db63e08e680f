"""Queues and destinations as operators see them: how they stand, pausing and resuming them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from archive.clock import Clock
from archive.configuration.descriptors import Queue, Snapshot
from archive.configuration.source import SnapshotSource
from archive.ledger import gates
from archive.ledger.connection import Ledger, Transaction
from archive.ledger.gates import Gate
from archive.model.gates import DestinationGate, Pause, QueueLoad
from workers.operations import UnknownNameError
from workers.queues import PoolKind, configured_queues, kind_of_queue


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue with its configuration, its tasks and its gate.

    Attributes
    ----------
    opens_time
        When its schedule lets tasks run again; None while it does.
    """

    queue: Queue
    pool: PoolKind
    load: QueueLoad
    pause: Pause | None
    opens_time: datetime | None

    @property
    def state(self) -> str:
        """Why its tasks are not handed over, or `open`."""
        if not self.queue.installed:
            return "not installed"
        if self.pause is not None:
            return "paused"
        return "open" if self.opens_time is None else "closed by schedule"


@dataclass(frozen=True, slots=True)
class DestinationView:
    """A destination with its tasks and its gate.

    Attributes
    ----------
    waiting
        Tasks that wait for it.
    is_configured
        Whether the directory has an AE of that title.
    """

    gate: DestinationGate
    waiting: int
    is_configured: bool
    exporter_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loads:
    """Unfinished tasks: of each queue, and how many wait for each destination."""

    queues: Mapping[str, QueueLoad] = field(default_factory=dict)
    destinations: Mapping[str, int] = field(default_factory=dict)


class Gatekeeper:
    """Looks at queues and destinations of a device, and pauses and resumes them.

    Parameters
    ----------
    device_name
        Device whose tasks are dispatched.
    actor
        Who does it.
    """

    def __init__(
        self, ledger: Ledger, source: SnapshotSource, clock: Clock, *, device_name: str, actor: str
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._device_name = device_name
        self._actor = actor

    def loads(self) -> Loads:
        """Count the unfinished tasks, which takes the longer the more there are."""
        with self._ledger.transaction() as tx:
            return Loads(
                gates.queue_loads(tx, self._device_name),
                gates.destination_loads(tx, self._device_name),
            )

    def queues(self, counted: Loads | None = None) -> list[QueueView]:
        """Return all queues that are configured, hold unfinished tasks or are paused.

        Parameters
        ----------
        counted
            Take these numbers instead of counting now.
        """
        snapshot = self._source.snapshot()
        with self._ledger.transaction() as tx:
            loads = counted.queues if counted else gates.queue_loads(tx, self._device_name)
            pauses = gates.queue_pauses(tx, self._device_name)
        names = sorted({*configured_queues(snapshot), *loads, *pauses})
        now = self._clock.now()
        return [
            _queue_view(snapshot.queue(name), loads.get(name), pauses.get(name), now)
            for name in names
        ]

    def destinations(self, counted: Loads | None = None) -> list[DestinationView]:
        """Return the destinations of exporters and tasks, and those that are paused.

        Parameters
        ----------
        counted
            Take these numbers instead of counting now.
        """
        snapshot = self._source.snapshot()
        with self._ledger.transaction() as tx:
            found = gates.destinations(tx, self._device_name)
            loads = counted.destinations if counted else self._waiting(tx)
        users = exporters_by_destination(snapshot)
        return [
            DestinationView(
                found.get(title, DestinationGate(title)),
                loads.get(title, 0),
                title in snapshot.remote_aes,
                tuple(users.get(title, ())),
            )
            for title in sorted({*users, *found, *loads} - {""})
        ]

    def pause_queues(self, names: Iterable[str], reason: str) -> list[str]:
        """Pause queues; return those that were not paused before.

        Raises
        ------
        UnknownNameError
            When one of them is no queue; nothing is paused then.
        """
        return self._switch(
            self._known_queues(names),
            lambda tx, gate: gates.pause_queue(tx, gate, actor=self._actor, reason=reason),
        )

    def resume_queues(self, names: Iterable[str]) -> list[str]:
        """Resume queues; return those that were paused."""
        return self._switch(self._known_queues(names), gates.resume_queue)

    def pause_destinations(self, titles: Iterable[str], reason: str) -> list[str]:
        """Pause destinations; return those that nobody had paused before.

        Raises
        ------
        UnknownNameError
            When one of them is neither configured nor has tasks; nothing is paused then.
        """
        return self._switch(
            self._known_destinations(titles),
            lambda tx, gate: gates.pause_destination(tx, gate, actor=self._actor, reason=reason),
        )

    def resume_destinations(self, titles: Iterable[str]) -> list[str]:
        """Resume destinations; return those that were paused or are probed at once now."""
        return self._switch(self._known_destinations(titles), gates.resume_destination)

    def _switch(
        self, names: Iterable[str], switch: Callable[[Transaction, Gate], bool]
    ) -> list[str]:
        with self._ledger.transaction() as tx:
            return [name for name in names if switch(tx, Gate(self._device_name, name))]

    def _waiting(self, tx: Transaction) -> Mapping[str, int]:
        return gates.destination_loads(tx, self._device_name)

    def _known_queues(self, names: Iterable[str]) -> list[str]:
        """Return the names; tasks are looked at only for one that is not configured."""
        wanted = list(names)
        known = {view.queue.name for view in self.queues(Loads())}
        if not known.issuperset(wanted):
            known |= {view.queue.name for view in self.queues()}
        return _checked(wanted, known, "queue")

    def _known_destinations(self, titles: Iterable[str]) -> list[str]:
        wanted = list(titles)
        known = {view.gate.remote_aet for view in self.destinations(Loads())}
        known |= set(self._source.snapshot().remote_aes)
        if not known.issuperset(wanted):
            known |= {view.gate.remote_aet for view in self.destinations()}
        return _checked(wanted, known, "destination AE")


def exporters_by_destination(snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the exporter IDs by the AE titles that they send, notify or commit to."""
    users: dict[str, list[str]] = {}
    for exporter in snapshot.device.exporters.values():
        titles = (exporter.remote_aet, *exporter.ian_destinations, exporter.storage_commitment_scp)
        for title in dict.fromkeys(titles):
            if title:
                users.setdefault(title, []).append(exporter.exporter_id)
    return users


def _queue_view(
    queue: Queue, load: QueueLoad | None, pause: Pause | None, now: datetime
) -> QueueView:
    opens = None if queue.schedule.contains(now) else queue.schedule.ceil(now)
    load = load or QueueLoad(queue.name)
    return QueueView(queue, kind_of_queue(queue.name), load, pause, opens)


def _checked(names: Iterable[str], known: set[str], what: str) -> list[str]:
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        msg = (
            f"there is no {what} called {', '.join(unknown)}; known are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
        raise UnknownNameError(msg)
    return wanted
