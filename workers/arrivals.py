"""Objects that arrive for a forwarded C-MOVE, passed on while others are still on their way.

The SCPs, in whatever process or host, note each arrival in the ledger; here they are read in
order, at once after their notification. One association to the move destination carries all that
it was negotiated for; it is released while nothing arrives for a while, and opened again.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.clock import Clock
from archive.ledger import forwards
from archive.ledger.connection import Ledger, Listener
from archive.ledger.forwards import ARRIVAL_CHANNEL, Arrival, FlightState
from archive.model.entities import InstanceToSend
from archive.model.retrieval_plan import MatchedInstance
from workers.contexts import ContextPlan, ProposedContext
from workers.retrieve_job import RetrieveJob, set_aside
from workers.transcoding import Transcoder

if TYPE_CHECKING:
    from workers.retrieve_progress import MoveRecorder

IDLE_RELEASE_S = 5.0
"""How long an association waits for the next arrival; common idle time-outs are longer."""

GATHER_S = 0.02
"""While objects come one after the other, what arrives in this time is read at once."""

_DENSE_S = 0.1
_REACTION_S = 0.25
_LOOK_S = 1.0
_GONE = "it arrived and was removed again before it could be passed on"


class ArrivalFeed:
    """The arrivals of one forwarded C-MOVE, in order, each once.

    Parameters
    ----------
    flight_pk
        The forwarded C-MOVE.
    is_wanted
        Which of the arrivals belong to this retrieve.
    stopped
        Whether to wait no longer.
    """

    def __init__(
        self,
        ledger: Ledger,
        flight_pk: int,
        clock: Clock,
        *,
        is_wanted: Callable[[MatchedInstance], bool],
        stopped: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._flight_pk = flight_pk
        self._clock = clock
        self._is_wanted = is_wanted
        self._stopped = stopped
        self._listener: Listener | None = None
        self._buffer: deque[InstanceToSend] = deque()
        self._seen: set[int] = set()
        self._last_pk = 0
        self._has_news = True
        self._found_at = self._looked_at = float("-inf")
        self.arrived: set[str] = set()
        self.state = FlightState(is_over=False, result=None)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of arrivals while the block runs."""
        with self._ledger.listen(ARRIVAL_CHANNEL) as listener:
            self._listener = listener
            try:
                yield
            finally:
                self._listener = None

    def peek(self, timeout_s: float | None = None) -> InstanceToSend | None:
        """Return the next arrival without taking it.

        Parameters
        ----------
        timeout_s
            How long to wait; None waits until there is one or none can come any more.

        Returns
        -------
        InstanceToSend or None
            None when there is none in time, none will come, or nobody wants it any more.
        """
        began = self._clock.monotonic()
        while not self._buffer and not self._stopped():
            self._look()
            waited_s = self._clock.monotonic() - began
            if self._buffer or self.state.is_over:
                break
            if timeout_s is not None and waited_s >= timeout_s:
                break
            self._wait()
        return self._buffer[0] if self._buffer else None

    def take(self) -> InstanceToSend:
        """Take what `peek` returned."""
        return self._buffer.popleft()

    def _look(self) -> None:
        """Read what is new; without news only now and then, as a safety net."""
        now = self._clock.monotonic()
        if not self._has_news and now - self._looked_at < _LOOK_S:
            return
        self._has_news, self._looked_at = False, now
        with self._ledger.statement() as tx:
            if not self.state.is_over:
                self.state = forwards.state(tx, self._flight_pk)
            found = forwards.arrivals(tx, self._flight_pk, after=self._last_pk)
            self._add(found)
            if self.state.is_over and forwards.count_arrivals(tx, self._flight_pk) > len(
                self._seen
            ):
                # Numbers may be committed out of order.
                self._add(forwards.arrivals(tx, self._flight_pk))

    def _add(self, found: Sequence[Arrival]) -> None:
        for arrival in found:
            self._last_pk = max(self._last_pk, arrival.pk)
            instance = arrival.match.instance
            if arrival.pk in self._seen:
                continue
            self._seen.add(arrival.pk)
            if self._is_wanted(arrival.match):
                self.arrived.add(instance.sop_instance_uid)
                self._buffer.append(instance)

    def _wait(self) -> None:
        """Wait for a notification; more that come close behind it are taken with it."""
        assert self._listener is not None  # noqa: S101 - used inside `listening`
        heard = self._listener.wait(_REACTION_S)
        now = self._clock.monotonic()
        if heard and now - self._found_at < _DENSE_S:
            self._clock.sleep(GATHER_S)
            heard += self._listener.wait(0)
        own = str(self._flight_pk)
        if any(payload == own for _, payload in heard):
            self._has_news, self._found_at = True, now


class _Batch:
    """The arrivals that one association can carry, without a long pause between them."""

    def __init__(self, feed: ArrivalFeed, carried: frozenset[tuple[str, str]]) -> None:
        self._feed = feed
        self._carried = carried
        self._is_open = True

    def popleft(self) -> InstanceToSend:
        """Return the next arrival; IndexError when it needs another association."""
        instance = self._feed.peek(IDLE_RELEASE_S)
        if instance is None or _pair(instance) not in self._carried:
            self._is_open = False
            raise IndexError
        return self._feed.take()

    def __len__(self) -> int:
        return int(self._is_open)


@dataclass(slots=True)
class _Negotiated:
    """What has been met so far, to be proposed again."""

    pairs: dict[tuple[str, str], None]
    plan: ContextPlan


def pass_on(job: RetrieveJob, feed: ArrivalFeed) -> None:
    """Send what arrives to the move destination until the forwarded C-MOVE is over."""
    recorder = job.recorder()
    met = _Negotiated({}, ContextPlan(()))
    with feed.listening(), Transcoder() as transcoder:
        while (instance := feed.peek()) is not None:
            stopped_by = recorder.tally.stopped_by
            if instance.file is None or stopped_by is not None:
                reason = str(stopped_by) if stopped_by else _GONE
                job.progress.failed(feed.take().sop_instance_uid, reason)
                continue
            met.pairs[_pair(instance)] = None
            met.plan = job.plan(met.pairs)
            if set_aside(job, met.plan, instance):
                feed.take()
                continue
            _send_batch(job, feed, met, transcoder=transcoder, recorder=recorder)


def _send_batch(
    job: RetrieveJob,
    feed: ArrivalFeed,
    met: _Negotiated,
    *,
    transcoder: Transcoder,
    recorder: "MoveRecorder",
) -> None:
    """Send over one association from the arrival that is next."""
    next_one = feed.peek(0)
    if next_one is None:
        return
    contexts = _group_of(met.plan, next_one.sop_class_uid)
    classes = {context.sop_class_uid for context in contexts}
    carried = frozenset(
        pair for pair in met.pairs if pair[0] in classes and pair not in met.plan.excluded
    )
    courier = job.courier(met.plan, transcoder)
    courier.deliver(contexts, _Batch(feed, carried), recorder, 1)


def _group_of(plan: ContextPlan, sop_class_uid: str) -> tuple[ProposedContext, ...]:
    return next(
        group
        for group in plan.groups
        if any(context.sop_class_uid == sop_class_uid for context in group)
    )


def _pair(instance: InstanceToSend) -> tuple[str, str]:
    syntax = instance.file.transfer_syntax_uid if instance.file else ""
    return instance.sop_class_uid, syntax
