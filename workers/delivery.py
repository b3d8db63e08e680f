"""Delivers instances to one destination over one or several associations.

The associations share one queue of instances. A broken association costs the instance that was
under way, not the others: a new one continues behind it, because a destination that falls over
one object must not keep the rest from arriving. Two associations in a row without any answer, a
time-out without any answer, or a refusal end the attempt; the queue's retry policy takes over.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from archive.errors import (
    AssociationAbortedError,
    ConfigurationError,
    DatasetError,
    DicomqError,
    ObjectUnreadableError,
    PeerError,
    PeerTimeoutError,
    StorageError,
)
from archive.model.coercion import CoercionFailedError
from archive.model.entities import InstanceToSend
from archive.telemetry import checkpoint
from workers.association import AcceptedContext, Association
from workers.coercing import Coercer
from workers.contexts import ContextPlan, ProposedContext, choose
from workers.dimse import MoveOriginator
from workers.payload import NO_FILE, Payload, open_payload
from workers.recorder import Recorder
from workers.route import Route
from workers.sending import StoreLoop, StoreRequest
from workers.transcoding import Transcoder

if TYPE_CHECKING:
    from workers.processor import TaskContext

CHECKPOINT_STORE_ANSWERED = "worker.store-answered"

_FRUITLESS_LIMIT = 2


class Supply(Protocol):
    """Instances waiting to be sent: a deque, or what still arrives while others are sent."""

    def popleft(self) -> InstanceToSend:
        """Return the next instance; IndexError when none will come."""
        ...

    def __len__(self) -> int:
        """Return how many wait, at least 1 as long as another one may come."""
        ...


@dataclass(slots=True)
class _Run:
    """What the associations of one delivery share.

    Attributes
    ----------
    first_settled
        Set once the first association was opened or given up; further ones wait for it, so that
        they never take its place at a peer that grants only one.
    granted
        Whether the peer has opened any association.
    returned
        Instances that kept associations did not take because their peer had closed them.
    """

    contexts: tuple[ProposedContext, ...]
    waiting: Supply
    recorder: Recorder
    first_settled: threading.Event = field(default_factory=threading.Event)
    granted: bool = False
    returned: list[InstanceToSend] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.returned) + len(self.waiting)

    def next(self) -> InstanceToSend:
        """Return the next instance; IndexError when none will come."""
        with contextlib.suppress(IndexError):
            return self.returned.pop()
        return self.waiting.popleft()


@dataclass(slots=True)
class _Visit:
    """One association, and how far it came.

    Attributes
    ----------
    accepted
        SOP Class UID to Transfer Syntax UID to context ID.
    kept
        Whether an earlier task opened the association; its peer may have closed it since.
    """

    recorder: Recorder
    originator: MoveOriginator | None
    kept: bool = False
    loop: StoreLoop | None = None
    accepted: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        return self.loop.answered if self.loop else 0

    def was_closed(self, error: DicomqError) -> bool:
        """Tell whether `error` only means that the peer had closed a kept association."""
        return self.kept and not self.answered and isinstance(error, AssociationAbortedError)


class Courier:
    """Sends instances along one route.

    Parameters
    ----------
    route
        How to reach the destination.
    plan
        Contexts and preferences.
    transcoder
        For what the destination does not take as stored.
    originator
        The C-MOVE whose sub-operations the C-STOREs are.
    """

    def __init__(
        self,
        route: Route,
        plan: ContextPlan,
        transcoder: Transcoder,
        context: "TaskContext",
        *,
        originator: MoveOriginator | None = None,
    ) -> None:
        self._route = route
        self._originator = originator
        self._plan = plan
        self._transcoder = transcoder
        self._context = context
        self._coercer = Coercer(route, context)
        self._lock = threading.Lock()
        self._live: set[Association] = set()
        self._cut_off = False

    def deliver(
        self,
        contexts: tuple[ProposedContext, ...],
        instances: Supply,
        recorder: Recorder,
        lanes: int,
    ) -> None:
        """Send `instances` over up to `lanes` associations and record every result.

        Parameters
        ----------
        contexts
            Proposed on each association; they cover the SOP classes of the instances.
        lanes
            Associations at a time, 1 or more.
        """
        run = _Run(contexts, instances, recorder)
        count = max(1, min(lanes, len(instances)))
        with self._context.on_abort(self._cut):
            if count == 1:
                self._first_lane(run)
            else:
                self._side_by_side(run, count)
        recorder.tally.remaining += len(run)

    def _side_by_side(self, run: _Run, count: int) -> None:
        with ThreadPoolExecutor(count, "association") as pool:
            lanes = [pool.submit(self._first_lane, run)]
            lanes += [pool.submit(self._further_lane, run) for _ in range(count - 1)]
        for lane in lanes:
            lane.result()

    def _cut(self) -> None:
        """Break every blocking call; called from another thread."""
        with self._lock:
            self._cut_off = True
            live = tuple(self._live)
        for association in live:
            association.shutdown()
        self._transcoder.stop()

    def _may_go_on(self, run: _Run) -> bool:
        return bool(len(run)) and not self._cut_off and not self._context.cancelled()

    def _first_lane(self, run: _Run) -> None:
        """Send over the association whose failure is the delivery's failure."""
        try:
            run.recorder.tally.stopped_by = self._lane(run) or run.recorder.tally.stopped_by
        finally:
            run.first_settled.set()

    def _further_lane(self, run: _Run) -> None:
        """Help over an additional association; one that the peer refuses is done without."""
        run.first_settled.wait()
        if run.granted:
            self._lane(run)

    def _lane(self, run: _Run) -> PeerError | None:
        """Send until the queue is empty, over one association after the other if they break.

        Returns
        -------
        PeerError or None
            Why it gave up before the queue was empty.
        """
        fruitless = 0
        while self._may_go_on(run):
            visit = _Visit(run.recorder, self._originator)
            try:
                self._visit(run, visit)
            except StorageError:
                continue  # recorded with its instance; it only spoiled the association
            except PeerError as error:
                if visit.was_closed(error):
                    continue
                fruitless = 0 if visit.answered else fruitless + 1
                if _is_hopeless(error, visit, fruitless):
                    return error
        return None

    def _visit(self, run: _Run, visit: _Visit) -> None:
        """Send over one association until the queue is empty or the association ends."""
        with (
            self._opened(run.contexts, visit) as association,
            association.exclusive_socket() as sock,
        ):
            run.granted = True
            run.first_settled.set()
            visit.loop = StoreLoop(association, sock, self._context.clock)
            visit.accepted = _by_sop_class(association.accepted)
            while self._may_go_on(run):
                try:
                    instance = run.next()
                except IndexError:
                    return
                try:
                    self._send(visit, visit.loop, instance)
                except PeerError as error:
                    if visit.was_closed(error):
                        run.returned.append(instance)
                    raise

    @contextlib.contextmanager
    def _opened(
        self, contexts: tuple[ProposedContext, ...], visit: _Visit
    ) -> Iterator[Association]:
        """Open an association that `_cut` can break, also while it is being opened."""
        kept = self._context.kept
        key = (self._route, contexts)
        association = kept.take(key)
        visit.kept = association is not None
        if association is None:
            association = Association(self._route, contexts, self._context.clock)
        kept.keep_after_use(key, association)
        with self._lock:
            self._live.add(association)
            cut_off = self._cut_off
        try:
            if cut_off:
                association.shutdown()
            with association:
                try:
                    yield association
                finally:
                    self._forget(association)  # another task may have it next
        finally:
            self._forget(association)

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._live.discard(association)

    def _send(self, visit: _Visit, loop: StoreLoop, instance: InstanceToSend) -> None:
        """Send one instance and record what came of it.

        Raises
        ------
        PeerError, StorageError
            When the association cannot be used any further; the instance is recorded.
        """
        file = instance.file
        if file is None:
            visit.recorder.missing(instance, NO_FILE)
            return
        offered = visit.accepted.get(instance.sop_class_uid, {})
        preferred = self._plan.preferences.get(instance.sop_class_uid, ())
        syntax = choose(file.transfer_syntax_uid, tuple(offered), preferred)
        if syntax is None:
            reason = (
                f"no accepted presentation context for SOP class {instance.sop_class_uid} "
                f"can carry transfer syntax {file.transfer_syntax_uid}"
            )
            visit.recorder.failed(instance, reason, transient=False)
            return
        with contextlib.ExitStack() as stack:
            try:
                stored = stack.enter_context(
                    open_payload(file, syntax, self._context.storages, self._transcoder)
                )
                payload = stack.enter_context(self._coercer.applied(stored, instance, syntax))
            except (StorageError, DatasetError, ConfigurationError, CoercionFailedError) as error:
                _record_unreadable(visit.recorder, instance, error)
            else:
                _transmit(visit, loop, instance, (offered[syntax], payload))


def _transmit(
    visit: _Visit, loop: StoreLoop, instance: InstanceToSend, parcel: tuple[int, Payload]
) -> None:
    """Send one data set in a context and record the response."""
    context_id, payload = parcel
    request = StoreRequest(
        context_id,
        instance.sop_class_uid,
        instance.sop_instance_uid,
        payload.length,
        visit.originator,
    )
    try:
        response = loop.send(request, payload.source)
    except (PeerError, StorageError) as error:
        if not visit.was_closed(error):
            visit.recorder.failed(instance, str(error), transient=error.retryable)
        raise
    checkpoint(CHECKPOINT_STORE_ANSWERED)
    visit.recorder.answered(instance, response.status, response.comment)


def _record_unreadable(recorder: Recorder, instance: InstanceToSend, error: DicomqError) -> None:
    """Record that an object could not be read or transcoded: a fault on our side of the wire."""
    if isinstance(error, ObjectUnreadableError):
        recorder.missing(instance, str(error))
    else:
        recorder.failed(
            instance, f"{instance.sop_instance_uid}: {error}", transient=error.retryable
        )


def _is_hopeless(error: PeerError, visit: _Visit, fruitless: int) -> bool:
    """Tell whether another association in this attempt would only fail like this one."""
    if not error.retryable or visit.loop is None:
        return True
    if isinstance(error, PeerTimeoutError):
        return not visit.answered
    return fruitless >= _FRUITLESS_LIMIT


def _by_sop_class(contexts: Sequence[AcceptedContext]) -> dict[str, dict[str, int]]:
    """Return SOP Class UID to Transfer Syntax UID to context ID."""
    table: dict[str, dict[str, int]] = {}
    for context in contexts:
        syntaxes = table.setdefault(context.sop_class_uid, {})
        syntaxes.setdefault(context.transfer_syntax_uid, context.context_id)
    return table
