"""What a processor is given and what it owes: the seam between the engine and the DIMSE work.

A processor performs one attempt of one task. It returns an `Outcome`, or raises a `DicomqError`
whose `retryable` and `blame` the runner turns into a FAILED outcome. It never touches the status
of its task: claiming, retrying and finishing are the runner's.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from workers.kept import KeptAssociations

if TYPE_CHECKING:
    from archive.clock import Clock
    from archive.configuration.descriptors import Snapshot
    from archive.configuration.settings import Settings
    from archive.ledger.connection import Ledger
    from archive.model.task import Outcome, Task
    from archive.storage.base import Storages


class StopReason(StrEnum):
    """Why a running task is asked to stop."""

    CANCELED = "canceled by an operator"
    SHUTDOWN = "the worker is shutting down"
    CLAIM_LOST = "another attempt of the task took over"


class StopSignal:
    """Tells a running task to stop, and breaks its blocking calls when it does not listen.

    Raised by the lease keeper's thread, read by the task's thread. The first reason stands,
    except that a lost claim outranks the others: nothing may be reported any more then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._reason: StopReason | None = None
        self._aborted = False
        self._concluded = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def reason(self) -> StopReason | None:
        """Why the task is asked to stop, None while it may run on."""
        return self._reason

    @property
    def concluded(self) -> bool:
        """Whether the processor has returned and nothing is left to be stopped."""
        return self._concluded

    def conclude(self) -> None:
        """Note that the processor has returned."""
        self._concluded = True

    def stop(self, reason: StopReason) -> None:
        """Ask the task to stop before its next sub-operation."""
        with self._lock:
            if self._reason is None or reason is StopReason.CLAIM_LOST:
                self._reason = reason
        self._event.set()

    def abort(self) -> None:
        """Break whatever the task is blocked in, now and from now on."""
        with self._lock:
            self._aborted = True
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; return whether the task is asked to stop."""
        return self._event.wait(timeout_s)

    @contextlib.contextmanager
    def on_abort(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called by `abort` while the block runs; at once if it came before."""
        with self._lock:
            self._callbacks.append(callback)
            aborted = self._aborted
        try:
            if aborted:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a processor may use while it performs one attempt.

    Attributes
    ----------
    snapshot
        The configuration as it was when the attempt started; it stays the same throughout.
    kept
        Associations that earlier tasks left open.
    """

    ledger: "Ledger"
    snapshot: "Snapshot"
    storages: "Storages"
    clock: "Clock"
    settings: "Settings"
    stop_signal: StopSignal = field(default_factory=StopSignal)
    kept: KeptAssociations = field(default_factory=KeptAssociations)

    def cancelled(self) -> bool:
        """Tell whether no further sub-operation may start.

        To be asked before each one. True after a cancel, when the worker shuts down and when
        the claim was lost. The processor then ends its association in an orderly way, records
        what was delivered and returns an outcome of CANCELED with its counts; the runner alone
        knows the reason and cancels, releases or drops the task accordingly.
        """
        return self.stop_signal.reason is not None

    def wait(self, timeout_s: float) -> bool:
        """Pause for `timeout_s` seconds; return early, with True, when the task has to stop."""
        return self.stop_signal.wait(timeout_s)

    def on_abort(self, callback: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Register what breaks a blocking call, for the time of a ``with`` block.

        `callback` is called from another thread when a task that was asked to stop did not do
        so within the grace period, or at once when its claim was lost. It must not block and
        must not raise: typically it shuts the association's socket down. The blocked call may
        then raise any `PeerError`; the runner knows that it was asked for.
        """
        return self.stop_signal.on_abort(callback)


class Processor(Protocol):
    """Performs tasks of one kind."""

    def perform(self, task: "Task", context: TaskContext) -> "Outcome":
        """Perform one attempt of `task`.

        Safe to run twice: what an earlier attempt achieved is recorded in the ledger and left
        out or repeated with the same bytes.

        Raises
        ------
        DicomqError
            When the attempt came to nothing; `retryable` tells whether another one may help.
        """
        ...
