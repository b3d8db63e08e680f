"""C-MOVE forwarded to other archives: as a proxy, or through this archive (design decision 15).

Proxy: the other archive sends to the original destination; its counters are passed on. Through:
it sends here, the SCPs note what arrives, and this worker passes it on at once. Two retrieves of
the same objects share one C-MOVE; if the worker that sent it gives up, the others ask themselves.
Whatever the other archive does, each forward ends and what did not come has failed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.errors import ConfigurationError, PeerError
from archive.ledger import forwards
from archive.ledger.forwards import Flight, NewForward
from archive.model.retrieval import (
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    comment,
)
from archive.model.retrieval_plan import Forward, ForwardReason, MatchedInstance
from archive.model.status import Service, classify
from workers.arrivals import ArrivalFeed, pass_on
from workers.completing import Fetch
from workers.moving import MoveAssociation, MoveRequest, model_for
from workers.retrieve_job import RetrieveJob
from workers.route import Route, find_route, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import Snapshot

ATTEMPTS = 3
"""How often a C-MOVE that somebody else gave up is asked for again."""

LATE_S = 2.0
"""How long the next of the objects is waited for that the other archive counts, at its end."""

NOTE_EVERY_S = 0.5
"""The other archive's counters are written down at most so often."""

_LATE_LOOK_S = 0.1
_MISSING = "the other archive did not send it"


@dataclass(frozen=True, slots=True)
class ForwardEnd:
    """How a forward ended.

    Attributes
    ----------
    result
        The other archive's last word; None when there was none.
    """

    forward: Forward
    result: RetrieveResult | None


def perform_forward(
    job: RetrieveJob, forward: Forward, sent_from_here: frozenset[str]
) -> ForwardEnd:
    """Perform one forward of a retrieve to its end.

    Parameters
    ----------
    sent_from_here
        Objects that are not passed on when they arrive, because they are sent anyway.

    Raises
    ------
    LedgerError
        When the ledger cannot be used.
    """
    job.progress.expect(forward.remote_aet, len(forward.expected))
    if forward.through_aet is None:
        result = _proxy(job, forward)
    else:
        result = _through(job, forward, sent_from_here)
    if not job.context.cancelled():
        _fail_missing(job, forward)
    return ForwardEnd(forward, result)


def _fail_missing(job: RetrieveJob, forward: Forward) -> None:
    """Count as failed what was expected and did not come."""
    if forward.through_aet is None:
        return
    for match in forward.expected:
        uid = match.instance.sop_instance_uid
        if not job.progress.has_ended(uid):
            job.progress.failed(uid, f"{forward.remote_aet}: {_MISSING}")


# --- proxy


def _proxy(job: RetrieveJob, forward: Forward) -> RetrieveResult | None:
    """Have another archive send to the original destination; return its last word."""
    counts, failed, last = SubOperations(), dict[str, None](), None
    try:
        route = _route(job, forward, job.request.move_originator_aet)
        model = model_for(forward.identifiers[0])
        context = job.context
        association = MoveAssociation(route, model, context.clock)
        with context.on_abort(association.shutdown), association:
            for identifier in forward.identifiers:
                last = None
                request = _proxy_request(job, identifier)
                for response in association.move(request, context.cancelled):
                    failed.update(dict.fromkeys(response.failed_sop_instance_uids))
                    total = RetrieveResult(0, counts.plus(response.counts), tuple(failed))
                    job.progress.elsewhere(forward.remote_aet, total)
                    last = response
                counts = counts.plus(last.counts) if last else counts
                if last is None or context.cancelled():
                    break
    except (PeerError, ConfigurationError) as error:
        job.progress.problem(str(error))
        last = None
    _note_problem(job, forward, last)
    return last


def _proxy_request(job: RetrieveJob, identifier: RetrieveIdentifier) -> MoveRequest:
    request = job.request
    return MoveRequest(
        identifier,
        request.destination_aet,
        request.move_originator_message_id or 1,
        request.priority,
    )


def _note_problem(job: RetrieveJob, forward: Forward, last: RetrieveResult | None) -> None:
    """Keep the other archive's own words for a failure."""
    if last is None or last.status in {RetrieveStatus.SUCCESS, RetrieveStatus.CANCELED}:
        return
    words = classify(Service.C_MOVE, last.status).describe(last.error_comment)
    job.progress.problem(f"{forward.remote_aet}: {words}")


def _route(job: RetrieveJob, forward: Forward, calling_aet: str | None) -> Route:
    remote = remote_ae(job.context.snapshot, forward.remote_aet, "a forwarded C-MOVE")
    return find_route(job.local, remote, forward.calling_aet or calling_aet)


# --- through this archive


def _through(
    job: RetrieveJob, forward: Forward, sent_from_here: frozenset[str]
) -> RetrieveResult | None:
    """Have another archive send here and pass on; return its last word."""
    result: RetrieveResult | None = None
    is_fallback = forward.reason is ForwardReason.FALLBACK
    fetch = Fetch.begin(job) if is_fallback else None
    for identifier in forward.identifiers:
        if not job.context.cancelled():
            passage = _Passage(job, forward, identifier, sent_from_here)
            result = passage.run()
            if fetch is not None:
                fetch.end(result, came=passage.came, missing=passage.missing)
    return result


class _Passage:
    """One C-MOVE that brings objects here, and their way on.

    Parameters
    ----------
    identifier
        What it asks for.
    sent_from_here
        Objects that are not passed on.

    Attributes
    ----------
    came
        What arrived of what was asked for.
    missing
        How many objects the other archive counts that did not arrive.
    """

    def __init__(
        self,
        job: RetrieveJob,
        forward: Forward,
        identifier: RetrieveIdentifier,
        sent_from_here: frozenset[str],
    ) -> None:
        self._job = job
        self._forward = forward
        self._identifier = identifier
        self._sent_from_here = sent_from_here
        self.came: set[str] = set()
        self.missing = 0

    def run(self) -> RetrieveResult | None:
        """Bring and pass on; return the other archive's last word."""
        result: RetrieveResult | None = None
        for _ in range(ATTEMPTS):
            result = self._bring()
            if result is not None or self._job.context.cancelled():
                break
        _note_problem(self._job, self._forward, result)
        return result

    def _bring(self) -> RetrieveResult | None:
        job = self._job
        try:
            route = _route(job, self._forward, job.local.title)
        except ConfigurationError as error:
            job.progress.problem(str(error))
            return RetrieveResult(RetrieveStatus.CANNOT_PERFORM, SubOperations())
        new = NewForward(
            self._forward.remote_aet,
            self._forward.through_aet or "",
            route.calling_aet,
            self._identifier,
            store_scus(job.context.snapshot, self._forward.remote_aet),
        )
        with job.context.ledger.transaction() as tx:
            flight = forwards.register(tx, job.task, new)
        feed = ArrivalFeed(
            job.context.ledger,
            flight.pk,
            job.context.clock,
            is_wanted=self._is_wanted,
            stopped=job.context.cancelled,
        )
        if not flight.is_leader:
            pass_on(job, feed)
        else:
            with ThreadPoolExecutor(1, "c-move") as pool:
                leading = pool.submit(self._lead, flight, route)
                pass_on(job, feed)
                leading.result()
        return self._account(flight, feed)

    def _is_wanted(self, match: MatchedInstance) -> bool:
        """Note an arrival; tell whether it belongs to this retrieve and is not sent anyway."""
        if not covers(self._identifier, match):
            return False
        uid = match.instance.sop_instance_uid
        self.came.add(uid)
        return uid not in self._sent_from_here

    def _lead(self, flight: Flight, route: Route) -> None:
        """Send the C-MOVE-RQ and keep the ledger informed until it is over."""
        context = self._job.context
        request = MoveRequest(
            self._identifier,
            self._forward.through_aet or "",
            flight.message_id,
            self._job.request.priority,
        )
        last: RetrieveResult | None = None
        noted_at = float("-inf")
        try:
            association = MoveAssociation(route, request.sop_class_uid, context.clock)
            with context.on_abort(association.shutdown), association:
                for response in association.move(request, context.cancelled):
                    last = response
                    if not self._forward.expected:
                        more = last.counts.total - len(self._sent_from_here)
                        self._job.progress.expect(self._forward.remote_aet, max(0, more))
                    noted_at = self._note_sometimes(flight, response.counts, noted_at)
        except PeerError as error:
            self._job.progress.problem(str(error))
            last = _broken(last, error)
        finally:
            self._await_late(flight, last)
            with context.ledger.statement() as tx:
                forwards.end(tx, flight.pk, None if context.cancelled() else last)

    def _note_sometimes(self, flight: Flight, counts: SubOperations, noted_at: float) -> float:
        """Tell those who joined how far it is, not for each of many responses; return when."""
        context = self._job.context
        now = context.clock.monotonic()
        if now - noted_at < NOTE_EVERY_S:
            return noted_at
        with context.ledger.statement() as tx:
            forwards.note(tx, flight.pk, counts)
        return now

    def _await_late(self, flight: Flight, last: RetrieveResult | None) -> None:
        """Wait a little for objects that the other archive counts but that are not here."""
        context = self._job.context
        if last is None or last.status == RetrieveStatus.CANCELED:
            return
        counted = last.counts.completed + last.counts.warning
        arrived, came_at = -1, context.clock.monotonic()
        while not context.cancelled() and context.clock.monotonic() < came_at + LATE_S:
            with context.ledger.statement() as tx:
                found = forwards.count_arrivals(tx, flight.pk)
            if found >= counted:
                return
            if found > arrived:
                arrived, came_at = found, context.clock.monotonic()
            context.wait(_LATE_LOOK_S)

    def _account(self, flight: Flight, feed: ArrivalFeed) -> RetrieveResult | None:
        """Compare what the other archive counted with what arrived."""
        with self._job.context.ledger.statement() as tx:
            state = forwards.state(tx, flight.pk)
        if state.result is None or not state.is_over:
            return None
        result = state.result
        if state.entity_key == self._identifier.entity_key:
            self._count_missing(result, len(feed.arrived))
        elif not self._forward.expected:  # its counters are those of somebody who wants more
            self._job.progress.expect(self._forward.remote_aet, len(feed.arrived))
        return result

    def _count_missing(self, result: RetrieveResult, arrived: int) -> None:
        """Count as failed what the other archive counts and that is not here."""
        progress, counts = self._job.progress, result.counts
        failed = tuple(
            uid
            for uid in result.failed_sop_instance_uids
            if uid not in self.came and uid not in self._sent_from_here
        )
        progress.name_failed(failed)
        done = counts.completed + counts.warning
        self.missing = max(0, done - len(self.came))
        if self._forward.expected:
            return
        unnamed = counts.failed - len(result.failed_sop_instance_uids)
        lost = len(failed) + max(0, unnamed) + self.missing
        progress.expect(self._forward.remote_aet, arrived + lost)
        progress.failed_unnamed(lost)
        if self.missing:
            progress.problem(
                f"{self._forward.remote_aet} counted {done} objects as delivered, "
                f"{len(self.came)} arrived"
            )


def _broken(last: RetrieveResult | None, error: PeerError) -> RetrieveResult:
    """Return what stands for the final response that did not come."""
    counts = last.counts.settled() if last else SubOperations()
    return RetrieveResult(RetrieveStatus.CANNOT_PERFORM, counts, (), comment(str(error)))


def store_scus(snapshot: "Snapshot", move_scp: str) -> tuple[str, ...]:
    """Return the calling AE titles that store for a C-MOVE SCP (dcmCStoreSCUOfCMoveSCP)."""
    pairs = (value.partition("=") for value in snapshot.device.c_store_scu_of_c_move_scp)
    return tuple(calling.strip() for calling, _, scp in pairs if scp.strip() == move_scp)


def covers(identifier: RetrieveIdentifier, match: MatchedInstance) -> bool:
    """Tell whether an identifier asks for an instance, as far as its UIDs tell."""
    checks = (
        (identifier.study_instance_uids, match.study_instance_uid),
        (identifier.series_instance_uids, match.instance.series_instance_uid),
        (identifier.sop_instance_uids, match.instance.sop_instance_uid),
    )
    return identifier.level is RetrieveLevel.PATIENT or all(
        not wanted or uid in wanted for wanted, uid in checks
    )
