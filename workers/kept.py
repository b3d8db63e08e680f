"""Associations that are kept open between tasks, for a short idle time.

A task that follows another one to the same place then needs no new connection and no negotiation.
What is kept is bound to the route and the contexts it was opened with, so a changed configuration
never meets an old association. A peer may close an idle association whenever it likes: that is
no failure of the task that finds it closed, which opens a new one.
"""

import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import AssociationAbortedError

if TYPE_CHECKING:  # processes that open no association need no pynetdicom
    from workers.association import Association

A = TypeVar("A", bound="Association")
T = TypeVar("T")

MOST_KEPT = 32


class Attempt(Protocol):
    """What may ask that the use of an association ends."""

    def cancelled(self) -> bool:
        """Tell whether nothing further may be asked of a peer."""
        ...

    def on_abort(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Register what breaks a blocking call, for the time of a ``with`` block."""
        ...


class KeptAssociations:
    """The idle associations of a worker process; may be shared by threads.

    Parameters
    ----------
    idle_s
        Seconds after which an unused association is released; with 0 none is kept.
    """

    def __init__(self, idle_s: float = 0.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._idle_s = idle_s
        self._clock = clock
        self._changed = threading.Condition()
        self._idle: list[tuple[float, Hashable, Association]] = []
        self._releasing: threading.Thread | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """How many associations wait for a task."""
        with self._changed:
            return len(self._idle)

    def take(self, key: Hashable) -> "Association | None":
        """Return an association that was kept under `key` and still stands, or None."""
        while (association := self._pop(key)) is not None:
            if association.resume():
                return association
            association.abandon()
        return None

    def keep_after_use(self, key: Hashable, association: "Association") -> None:
        """Have `association` kept under `key` when its use ends well, instead of released.

        Not where its peer limits how many it accepts.
        """
        if self._idle_s > 0 and association.route.may_idle:
            association.hand_over = partial(self._keep, key)

    def use(
        self,
        attempt: Attempt,
        key: Hashable,
        make: Callable[[], A],
        action: Callable[[A], T],
    ) -> T:
        """Perform `action` over a kept association, or over a new one that `make` returns.

        `action` is repeated over a new association when a kept one proves to be closed, so it
        has to be something that may be done twice.

        Raises
        ------
        PeerError
            Whatever opening a new association or `action` raises.
        """
        while True:
            kept = self.take(key)
            association = make() if kept is None else cast("A", kept)
            self.keep_after_use(key, association)
            try:
                with attempt.on_abort(association.shutdown):
                    association.open()
                with association, attempt.on_abort(association.shutdown):
                    return action(association)
            except AssociationAbortedError:
                if kept is None or attempt.cancelled():
                    raise

    def close(self) -> None:
        """Release what is kept, and keep nothing any more."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for _, _, association in idle:
            association.release()

    def _keep(self, key: Hashable, association: "Association") -> bool:
        """Take an association that is not used any more; False when it is not wanted."""
        with self._changed:
            if self._closed or len(self._idle) >= MOST_KEPT:
                return False
        if not association.park():
            return False
        with self._changed:
            if self._closed:
                return not association.resume()
            self._idle.append((self._clock.monotonic() + self._idle_s, key, association))
            if self._releasing is None:
                name = "idle-associations"
                self._releasing = threading.Thread(target=self._release_idle, name=name)
                self._releasing.daemon = True
                self._releasing.start()
        return True

    def _pop(self, key: Hashable) -> "Association | None":
        with self._changed:
            for index in reversed(range(len(self._idle))):
                if self._idle[index][1] == key:
                    return self._idle.pop(index)[2]
        return None

    def _release_idle(self) -> None:
        """Release what was idle for too long; end when nothing is left."""
        while (association := self._next_idle()) is not None:
            association.release()

    def _next_idle(self) -> "Association | None":
        """Wait for an association to be idle for too long; None when none is kept any more."""
        with self._changed:
            while self._idle:
                wait_s = self._idle[0][0] - self._clock.monotonic()
                if wait_s <= 0:
                    return self._idle.pop(0)[2]
                self._changed.wait(wait_s)
            self._releasing = None
            return None
