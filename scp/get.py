"""The C-GET service as SCP (PS3.4 §C.4.3): objects go back over the requestor's association.

The sub-operations stay here, because only this process has the association; one is under way at
a time. What another archive holds is fetched first, see `scp.get_fetching`.
"""

import contextlib
import logging
import queue
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from types import MappingProxyType
from typing import Final

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from archive.clock import Clock
from archive.errors import (
    AssociationAbortedError,
    DicomqError,
    LedgerError,
    NoAcceptedContextError,
    ObjectUnreadableError,
    PeerTimeoutError,
)
from archive.ledger import retrievals
from archive.ledger.connection import Ledger
from archive.model.entities import InstanceToSend, StoredFile
from archive.model.retrieval import (
    RetrieveIdentifier,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    final_status,
)
from archive.model.retrieval_plan import MatchedInstance
from archive.model.status import Service, StatusClass, classify
from archive.storage.base import Storages
from archive.telemetry import log_event
from scp.coercing_sent import SentCoercer
from scp.get_fetching import Fetcher, Fetching, reason_without_file
from scp.receiving import StoreAssociation
from scp.retrieve import (
    RETRIEVE_ENDED,
    RETRIEVE_REQUESTED,
    RETRIEVE_UNANSWERED,
    RefusedRetrieveError,
    checked_identifier,
    refuse,
)
from scp.retrieve_exchange import RetrieveExchange, RetrieveRequest
from scp.session import Session

DEFAULT_RESPONSE_S: Final = 60.0
_NO_REASONS: Final[Mapping[str, str]] = MappingProxyType({})
_NATIVE: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
_MAX_MESSAGE_ID: Final = 0xFFFF
_log = logging.getLogger(__name__)


@dataclass
class _Tally:
    """Counters of one C-GET."""

    total: int
    completed: int = 0
    warning: int = 0
    failed: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def counts(self) -> SubOperations:
        done = self.completed + self.warning + len(self.failed)
        return SubOperations(self.total - done, self.completed, len(self.failed), self.warning)

    def fail(self, instance: InstanceToSend, reason: str) -> None:
        self.failed.append(instance.sop_instance_uid)
        self.reasons[reason] += 1

    def result(self, *, canceled: bool) -> RetrieveResult:
        counts = self.counts()
        status = final_status(counts, canceled=canceled)
        worst = self.reasons.most_common(1)
        words = worst[0][0] if worst else ""
        return RetrieveResult(status, counts, tuple(self.failed), words)


class GetService:
    """Serves C-GET requests; one for all associations of a process."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        leading_wait_s: float = 30.0,
        claim_s: float = 60.0,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._leading_wait_s = leading_wait_s
        self._fetcher = Fetcher(ledger, clock, claim_s)

    def get(self, exchange: RetrieveExchange, request: RetrieveRequest) -> None:
        """Serve a request with exactly one final response."""
        session: Session = exchange.session
        try:
            identifier = checked_identifier(request, session.ae)
            matches = self._matches(session, identifier)
            fetching = self._fetcher.begin(session, identifier, matches)
        except RefusedRetrieveError as error:
            refuse(exchange, error)
            return
        except LedgerError as error:
            refuse(exchange, RefusedRetrieveError(RetrieveStatus.CANNOT_COUNT, f"ledger: {error}"))
            return
        log_event(
            _log,
            RETRIEVE_REQUESTED,
            calling_aet=session.calling_aet,
            what=identifier.words(),
            matches=len(matches),
            fetched=len(fetching.holders) or None,
        )
        sender = _Sender(
            exchange.assoc,
            session.storages,
            _response_limit_s(session),
            clock=self._clock,
            coercer=SentCoercer(self._ledger, self._clock, session, self._leading_wait_s),
        )
        here = [match for match in matches if not fetching.brings(match)]
        serving = _Serving(exchange, sender, _Tally(len(matches)), fetching)
        try:
            serving.send_each(here)
            if fetching.holders and not exchange.is_canceled:
                reasons = self._fetcher.wait(fetching, exchange, serving.tell)
                serving.send_each(self._fetched(session, identifier, matches, fetching), reasons)
        except (AssociationAbortedError, PeerTimeoutError) as error:
            log_event(
                _log,
                RETRIEVE_UNANSWERED,
                level=logging.WARNING,
                calling_aet=session.calling_aet,
                message=f"{error}; it may ask again",
            )
            exchange.assoc.abort(block=False)
            return
        serving.conclude()

    def _matches(self, session: Session, identifier: RetrieveIdentifier) -> list[MatchedInstance]:
        with self._ledger.transaction() as tx:
            return retrievals.matches(tx, identifier, tuple(session.snapshot.device.storages))

    def _fetched(
        self,
        session: Session,
        identifier: RetrieveIdentifier,
        matches: Sequence[MatchedInstance],
        fetching: Fetching,
    ) -> list[MatchedInstance]:
        """Return what was to be fetched, with its files; without them if the ledger is lost."""
        with contextlib.suppress(LedgerError):
            matches = self._matches(session, identifier)
        return [match for match in matches if fetching.brings(match)]


@dataclass(frozen=True, slots=True)
class _Serving:
    """One C-GET while its objects are sent."""

    exchange: RetrieveExchange
    sender: "_Sender"
    tally: _Tally
    fetching: Fetching

    def tell(self) -> None:
        """Send a pending response if the directory says so (dcmSendPendingCGet)."""
        if self.exchange.session.ae.send_pending_c_get:
            self.exchange.pending(self.tally.counts())

    def send_each(
        self, matches: Sequence[MatchedInstance], reasons: Mapping[str, str] = _NO_REASONS
    ) -> None:
        """Send objects until the C-GET is canceled.

        Parameters
        ----------
        reasons
            By archive why it may not have brought an object.

        Raises
        ------
        AssociationAbortedError, PeerTimeoutError
            When the requestor has gone or does not answer.
        """
        for match in matches:
            if self.exchange.is_canceled:
                break
            self.tell()
            if match.instance.file is None:
                reason = reason_without_file(match, self.fetching, reasons)
                self.tally.fail(match.instance, reason)
            else:
                _send_one(self.sender, match.instance, match.instance.file, self.tally)

    def conclude(self) -> None:
        """Send the final response."""
        result = self.tally.result(canceled=self.exchange.is_canceled)
        self.exchange.final(result)
        log_event(
            _log,
            RETRIEVE_ENDED,
            calling_aet=self.exchange.session.calling_aet,
            status=f"{result.status:04X}",
            completed=result.counts.completed,
            failed=result.counts.failed,
            warning=result.counts.warning,
            message=result.error_comment or None,
        )


def _response_limit_s(session: Session) -> float:
    limits = [each.response_timeout_s for each in session.ae.connections]
    return next((limit for limit in limits if limit), DEFAULT_RESPONSE_S)


def _send_one(sender: "_Sender", instance: InstanceToSend, file: StoredFile, tally: _Tally) -> None:
    """Perform one sub-operation and count it.

    Raises
    ------
    AssociationAbortedError, PeerTimeoutError
        When the requestor has gone or does not answer.
    """
    try:
        code = sender.send(instance, file)
    except (AssociationAbortedError, PeerTimeoutError):
        raise
    except DicomqError as error:
        tally.fail(instance, str(error))
        return
    status = classify(Service.C_STORE, code)
    if status.status_class is StatusClass.SUCCESS:
        tally.completed += 1
    elif status.is_accepted:
        tally.warning += 1
    else:
        tally.fail(instance, status.describe())


class _Sender:
    """C-STORE requests over the association that asked for them (PS3.7 §9.1.1)."""

    def __init__(
        self,
        assoc: StoreAssociation,
        storages: Storages,
        response_s: float,
        *,
        clock: Clock,
        coercer: SentCoercer,
    ) -> None:
        self._assoc = assoc
        self._coercer = coercer
        self._storages = storages
        self._response_s = response_s
        self._clock = clock
        self._message_id = 0
        self._contexts: dict[tuple[str, str], PresentationContext] = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): context
            for context in assoc.accepted_contexts
            if context.as_scu
        }

    def send(self, instance: InstanceToSend, file: StoredFile) -> int:
        """Send an object and return the status of the response.

        Raises
        ------
        CoercionFailedError
            When a coercion rule fails that must not.
        NoAcceptedContextError
            When no context fits the object as stored, or as it can be encoded anew.
        ObjectUnreadableError, ConfigurationError
            When its file cannot be read.
        AssociationAbortedError, PeerTimeoutError
            When the requestor has gone or does not answer.
        """
        context, syntax = self._context_for(instance, file)
        request = C_STORE()
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = instance.sop_class_uid
        request.AffectedSOPInstanceUID = instance.sop_instance_uid
        request.Priority = 0
        encoded = self._coercer.applied(self._encoded(file, syntax), instance, syntax)
        request.DataSet = BytesIO(encoded)
        self._assoc.dimse.send_msg(request, context.context_id or 0)
        return self._response(instance)

    def _context_for(
        self, instance: InstanceToSend, file: StoredFile
    ) -> tuple[PresentationContext, str]:
        stored = file.transfer_syntax_uid
        syntaxes = (stored, *_NATIVE) if stored in _NATIVE else (stored,)
        for syntax in syntaxes:
            context = self._contexts.get((instance.sop_class_uid, syntax))
            if context is not None:
                return context, syntax
        msg = f"no context accepted to send {instance.sop_class_uid} as {stored}"
        raise NoAcceptedContextError(msg)

    def _encoded(self, file: StoredFile, syntax: str) -> bytes:
        """Return the data set of a stored file in a transfer syntax."""
        with self._storages.get(file.storage_id).open(file.storage_path) as source:
            if syntax == file.transfer_syntax_uid:
                source.seek(file.dataset_offset)
                encoded = source.read()
                if len(encoded) != file.object_size - file.dataset_offset:
                    msg = f"the stored file {file.storage_path} has not the size it had"
                    raise ObjectUnreadableError(msg)
                return encoded
            dataset = dcmread(source)
        target = DicomBytesIO()
        target.is_implicit_VR = UID(syntax).is_implicit_VR
        target.is_little_endian = True
        write_dataset(target, dataset)
        return bytes(target.getvalue())

    def _response(self, instance: InstanceToSend) -> int:
        """Wait for the response to the latest request."""
        deadline = self._clock.monotonic() + self._response_s
        while True:
            left_s = deadline - self._clock.monotonic()
            try:
                _, message = self._assoc.dimse.msg_queue.get(timeout=max(0.01, left_s))
            except queue.Empty:
                msg = f"no response to the C-STORE of {instance.sop_instance_uid}"
                raise PeerTimeoutError(msg) from None
            if message is None:
                msg = f"the requestor ended the association at {instance.sop_instance_uid}"
                raise AssociationAbortedError(msg)
            if (
                isinstance(message, C_STORE)
                and message.MessageIDBeingRespondedTo == self._message_id
            ):
                return int(message.Status or 0)
