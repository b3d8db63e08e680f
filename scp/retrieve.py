"""The C-MOVE service as SCP (PS3.4 §C.4.2): light, because workers carry the sub-operations out.

A request becomes a RETRIEVE task; its progress row is relayed as pending responses, its final
status as the final response. Exactly one final response is sent whatever happens: a worker that
dies leads to another attempt, no worker at all or a lost ledger to A702.
"""

import logging
from dataclasses import dataclass
from typing import Final

from archive.clock import Clock
from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.errors import IllegalTransitionError, LedgerError, NoSuchTaskError
from archive.ledger import retrievals, tasks
from archive.ledger.connection import Ledger
from archive.ledger.retrievals import NewRetrieve, RetrieveProgress, RetrieveRole
from archive.model.retrieval import (
    INTERACTIVE_QUEUE,
    IdentifierError,
    Leniency,
    RetrieveIdentifier,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    check_identifier,
    destination_is_accepted,
)
from archive.model.task import TaskStatus
from archive.telemetry import log_event
from scp.retrieve_exchange import RetrieveExchange, RetrieveRequest
from scp.retrieve_watch import RetrieveWatch
from scp.session import Session

RETRIEVE_REQUESTED: Final = "scp.retrieve-requested"
RETRIEVE_ENDED: Final = "scp.retrieve-ended"
RETRIEVE_REFUSED: Final = "scp.retrieve-refused"
RETRIEVE_UNANSWERED: Final = "scp.retrieve-unanswered"

UNABLE_TO_PROCESS: Final = RetrieveResult(0xC000, SubOperations(), (), "internal error")
_ACTOR: Final = "C-MOVE SCP"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """How long the SCP waits, in seconds.

    Attributes
    ----------
    claim_s
        Until a worker takes a retrieve up.
    cancel_s
        Until a worker has stopped one.
    ledger_s
        Until an unreachable ledger answers again.
    poll_s
        Between two looks without a notification.
    reaction_s
        Until a cancel or the end of the association is noticed.
    """

    claim_s: float = 60.0
    cancel_s: float = 20.0
    ledger_s: float = 60.0
    poll_s: float = 2.0
    reaction_s: float = 0.1


class RefusedRetrieveError(IdentifierError):
    """A retrieve is refused before anything is matched."""

    def __init__(self, status: RetrieveStatus, message: str, tag: int | None = None) -> None:
        super().__init__(tag or 0, message)
        self.status = status
        self.tag = tag


class MoveService:
    """Serves C-MOVE requests; one for all associations of a process."""

    def __init__(self, ledger: Ledger, clock: Clock, config: RelayConfig | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._config = config or RelayConfig()
        self._watch = RetrieveWatch(ledger)

    def move(self, exchange: RetrieveExchange, request: RetrieveRequest) -> None:
        """Serve a request with exactly one final response."""
        session: Session = exchange.session
        try:
            identifier = checked_identifier(request, session.ae)
            check_destination(request, session.snapshot, session.ae)
            task_pk, matches = self._stage(session, request, identifier)
        except RefusedRetrieveError as error:
            refuse(exchange, error)
        except LedgerError as error:
            refusal = RefusedRetrieveError(RetrieveStatus.CANNOT_COUNT, f"ledger: {error}")
            refuse(exchange, refusal)
        else:
            self._answer(exchange, request, task_pk, matches=matches)

    def _stage(
        self, session: Session, request: RetrieveRequest, identifier: RetrieveIdentifier
    ) -> tuple[int, int]:
        """Record the retrieve; return its task's primary key and the number of matches."""
        with self._ledger.transaction() as tx:
            matches = retrievals.count_matches(tx, identifier)
            new = NewRetrieve(
                RetrieveRole.SCP,
                identifier,
                queue_name=INTERACTIVE_QUEUE,
                device_name=session.snapshot.device.name,
                local_aet=session.called_aet,
                remote_aet=request.destination_aet,
                destination_aet=request.destination_aet,
                move_originator_aet=session.calling_aet,
                move_originator_message_id=request.message_id,
                priority=request.priority if request.priority in {0, 1, 2} else 0,
                remaining=matches,
            )
            reason = f"C-MOVE from {session.calling_aet}"
            task_pk = retrievals.stage(tx, new, actor=_ACTOR, reason=reason)
        log_event(
            _log,
            RETRIEVE_REQUESTED,
            calling_aet=session.calling_aet,
            destination=request.destination_aet,
            what=identifier.words(),
            matches=matches,
            task=task_pk,
        )
        return task_pk, matches

    def _answer(
        self, exchange: RetrieveExchange, request: RetrieveRequest, task_pk: int, *, matches: int
    ) -> None:
        """Relay the progress of a task and send the final response."""
        interval_s = exchange.session.ae.send_pending_c_move_interval_s
        relay = _Relay(exchange, task_pk, self._ledger, self._clock, config=self._config)
        result = relay.run(self._watch, SubOperations(matches), interval_s)
        if result is None:
            log_event(
                _log,
                RETRIEVE_UNANSWERED,
                level=logging.WARNING,
                calling_aet=exchange.session.calling_aet,
                task=task_pk,
                message="the requestor ended the association; its objects are sent all the same",
            )
            return
        exchange.final(result)
        log_event(
            _log,
            RETRIEVE_ENDED,
            calling_aet=exchange.session.calling_aet,
            destination=request.destination_aet,
            task=task_pk,
            status=f"{result.status:04X}",
            completed=result.counts.completed,
            failed=result.counts.failed,
            warning=result.counts.warning,
            message=_explanation(result),
        )


def _explanation(result: RetrieveResult) -> str | None:
    if result.error_comment:
        return result.error_comment
    if result.status == RetrieveStatus.SUCCESS and not result.counts.total:
        return (
            "nothing of it is known here, and no dcmFallbackCMoveSCP is configured to be asked"
            " or it has nothing either"
        )
    return None


def checked_identifier(request: RetrieveRequest, ae: NetworkAE) -> RetrieveIdentifier:
    """Return what a request asks for.

    Raises
    ------
    RefusedRetrieveError
        When the identifier does not fit its model (A900).
    """
    if request.identifier is None:
        msg = "the identifier is missing or cannot be decoded"
        raise RefusedRetrieveError(RetrieveStatus.IDENTIFIER_MISMATCH, msg)
    relational = request.relational or ae.relational_retrieve_negotiation_lenient
    try:
        return check_identifier(request.sop_class_uid, request.identifier, Leniency(relational))
    except IdentifierError as error:
        status = RetrieveStatus.IDENTIFIER_MISMATCH
        raise RefusedRetrieveError(status, str(error), error.offending_tag) from error


def check_destination(request: RetrieveRequest, snapshot: Snapshot, ae: NetworkAE) -> None:
    """Check the Move Destination; before anything is matched (design decision 18).

    Raises
    ------
    RefusedRetrieveError
        A801 when it is not allowed, unknown or switched off.
    """
    destination = request.destination_aet
    unknown = RetrieveStatus.DESTINATION_UNKNOWN
    if not destination_is_accepted(destination, ae.accepted_move_destinations):
        msg = f"Move Destination {destination} is not in dcmAcceptedMoveDestination"
        raise RefusedRetrieveError(unknown, msg)
    remote = snapshot.remote_aes.get(destination)
    if remote is None:
        msg = f"Move Destination {destination} is not in the directory"
        raise RefusedRetrieveError(unknown, msg)
    if not remote.installed:
        raise RefusedRetrieveError(unknown, f"Move Destination {destination} is switched off")


def refuse(exchange: RetrieveExchange, error: RefusedRetrieveError) -> None:
    """Send the final response of a request that is refused, and say so."""
    log_event(
        _log,
        RETRIEVE_REFUSED,
        level=logging.WARNING,
        calling_aet=exchange.session.calling_aet,
        status=f"{error.status:04X}",
        message=str(error),
    )
    result = RetrieveResult(error.status, SubOperations(), (), str(error))
    exchange.final(result, error.tag)


class _Relay:
    """Waits for one task on behalf of a requestor."""

    def __init__(
        self,
        exchange: RetrieveExchange,
        task_pk: int,
        ledger: Ledger,
        clock: Clock,
        *,
        config: RelayConfig,
    ) -> None:
        self._exchange = exchange
        self._task_pk = task_pk
        self._ledger = ledger
        self._clock = clock
        self._config = config
        self._counts = SubOperations()
        self._waiting_since = self._reached_at = clock.monotonic()
        self._canceled_at: float | None = None

    def run(
        self, watch: RetrieveWatch, counts: SubOperations, interval_s: float | None
    ) -> RetrieveResult | None:
        """Return the final result; None when nobody can be answered any more.

        Parameters
        ----------
        counts
            Counters of the first pending response.
        interval_s
            Seconds between pending responses, the first one at once; None: there are none.
        """
        self._counts = counts
        next_pending = self._clock.monotonic() if interval_s else float("inf")
        next_look = 0.0
        with watch.watching(self._task_pk) as changed:
            while self._exchange.is_open:
                now = self._clock.monotonic()
                if changed.is_set() or now >= next_look:
                    changed.clear()
                    next_look = now + self._config.poll_s
                    if (result := self._look()) is not None:
                        return result
                self._pass_cancel_on()
                if (result := self._overdue()) is not None:
                    return result
                if interval_s and now >= next_pending:
                    next_pending += interval_s
                    if self._counts.remaining:
                        self._exchange.pending(self._counts)
                changed.wait(self._config.reaction_s)
        return None

    def _look(self) -> RetrieveResult | None:
        """Read the progress row; return the final result if there is one."""
        try:
            with self._ledger.statement() as tx:
                progress = retrievals.progress(tx, self._task_pk)
        except NoSuchTaskError as error:
            return self._given_up(str(error))
        except LedgerError as error:
            return self._ledger_lost(error)
        self._reached_at = self._clock.monotonic()
        if progress.task_status is TaskStatus.IN_PROCESS:
            self._waiting_since = self._reached_at
            if progress.result.counts.total:
                self._counts = progress.result.counts
        return _final(progress, self._counts)

    def _ledger_lost(self, error: LedgerError) -> RetrieveResult | None:
        if self._clock.monotonic() - self._reached_at < self._config.ledger_s:
            return None
        return self._given_up(f"ledger: {error}")

    def _pass_cancel_on(self) -> None:
        """Cancel the task once its requestor has sent a C-CANCEL."""
        if self._canceled_at is not None or not self._exchange.is_canceled:
            return
        self._canceled_at = self._clock.monotonic()
        self._cancel("C-CANCEL")

    def _cancel(self, reason: str) -> None:
        try:
            with self._ledger.transaction() as tx:
                tasks.cancel(tx, self._task_pk, actor=_ACTOR, reason=reason)
        except (IllegalTransitionError, NoSuchTaskError):
            return  # it is done: the next look tells how
        except LedgerError as error:
            log_event(
                _log,
                RETRIEVE_UNANSWERED,
                level=logging.WARNING,
                task=self._task_pk,
                message=f"it could not be canceled and goes on: {error}",
            )

    def _overdue(self) -> RetrieveResult | None:
        """Return a result when nobody takes the task up or stops it in time."""
        now, config = self._clock.monotonic(), self._config
        if self._canceled_at is not None:
            if now - self._canceled_at < config.cancel_s:
                return None
            return RetrieveResult(RetrieveStatus.CANCELED, self._counts)
        if now - self._waiting_since < config.claim_s:
            return None
        reason = f"no retrieve worker took it up within {config.claim_s:g} s: start one"
        self._cancel(reason)
        return self._given_up(reason)

    def _given_up(self, reason: str) -> RetrieveResult:
        counts = self._counts.settled()
        return RetrieveResult(RetrieveStatus.CANNOT_PERFORM, counts, (), reason)


def _final(progress: RetrieveProgress, counts: SubOperations) -> RetrieveResult | None:
    """Return the final result that a progress row holds, if any."""
    if progress.is_settled:
        return progress.result
    if not progress.task_status.is_final:
        return None
    if progress.task_status is TaskStatus.CANCELED:
        return RetrieveResult(RetrieveStatus.CANCELED, counts)
    reason = progress.error_message or "the retrieve ended without a result"
    return RetrieveResult(RetrieveStatus.CANNOT_PERFORM, counts.settled(), (), reason)
