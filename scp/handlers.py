"""What pynetdicom's events lead to; no error leaves it without an answer."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from archive import telemetry
from archive.errors import DicomqError, InvalidValueError
from archive.model.commitment import Readable
from archive.model.commitment_encoding import UnusualEncodingError, decode_elements
from archive.telemetry import log_event
from scp.acceptance import Acceptance, association_request
from scp.commitment import (
    ActionRequest,
    CommitmentService,
    NormalizedStatus,
    RefusedRequestError,
)
from scp.commitment_exchange import ReportSender
from scp.get import GetService
from scp.matching import FindStatus
from scp.mpps import ProcedureStepService
from scp.negotiation import Rejection, RejectResult, RejectSource
from scp.query import QueryService, Response, accepted_negotiation, failure, find_request
from scp.receivers import Receivers
from scp.receiving import StoreAssociation
from scp.retrieve import UNABLE_TO_PROCESS, MoveService
from scp.retrieve_exchange import (
    RetrieveExchange,
    RetrieveRequest,
    RetrieveServices,
    accepted_retrieve_negotiation,
    attach,
)
from scp.session import Session
from scp.statuses import StoreStatus
from scp.unrecognized import answer_unrecognized

_DEFECT: Final = Rejection(
    RejectResult.TRANSIENT,
    RejectSource.PRESENTATION,
    1,
    "the association could not be judged because of a defect in dicomq; it may be tried again",
)
_log = logging.getLogger(__name__)


class Handlers:
    """Connects associations with the service."""

    def __init__(
        self,
        acceptance: Acceptance,
        receivers: Receivers,
        queries: QueryService,
        *,
        retrieves: RetrieveServices,
        normalized: "GuardedNormalizedServices",
    ) -> None:
        self._acceptance = acceptance
        self._receivers = receivers
        self._queries = queries
        self._retrieves = retrieves
        self._normalized = normalized

    def bound(self) -> list[tuple[evt.EventType, Callable[[evt.Event], object]]]:
        """Return pynetdicom's events with their handlers."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_SOP_EXTENDED, self.on_extended_negotiation),
            (evt.EVT_C_FIND, self.on_find),
            (evt.EVT_N_ACTION, self._normalized.on_action),
            (evt.EVT_N_EVENT_REPORT, self._normalized.on_event_report),
            (evt.EVT_N_CREATE, self._normalized.on_create),
            (evt.EVT_N_SET, self._normalized.on_set),
            (evt.EVT_RELEASED, self.on_ended),
            (evt.EVT_ABORTED, self.on_ended),
        ]

    def on_requested(self, event: evt.Event) -> None:
        """Accept or reject an association; it is rejected when that cannot be decided."""
        assoc = cast("StoreAssociation", event.assoc)
        assoc.requestor.ae_title = association_request(assoc).calling_ae_title
        try:
            decision = self._acceptance.decide(assoc)
        except DicomqError as error:
            reason = _DEFECT.reason
            decision = Rejection(_DEFECT.result, _DEFECT.source, reason, str(error))
        except Exception:  # noqa: BLE001 - rejecting is the only safe answer
            _log.exception("defect while an association was being judged")
            decision = _DEFECT
        if isinstance(decision, Rejection):
            _reject(assoc, decision)
        else:
            self._accept(assoc, decision)

    def on_echo(self, _event: evt.Event) -> int:
        """Answer a C-ECHO (PS3.4 Annex A)."""
        return StoreStatus.SUCCESS

    def on_extended_negotiation(self, event: evt.Event) -> dict[UID, bytes]:
        """Answer SOP Class Extended Negotiation (PS3.7 §D.3.3.5)."""
        requested = cast("Any", event).app_info
        return accepted_negotiation(requested) | accepted_retrieve_negotiation(requested)

    def on_find(self, event: evt.Event) -> Iterator[Response]:
        """Answer a C-FIND (PS3.4 §C.4.1)."""
        session = cast("StoreAssociation", event.assoc).session
        if session is None:
            yield FindStatus.UNABLE_TO_PROCESS, None
            return
        request = find_request(event, _identifier(event))
        try:
            yield from self._queries.find(request, session.snapshot, session.ae)
        except Exception:  # noqa: BLE001 - every error has to be answered
            _log.exception("defect while a C-FIND was being answered")
            yield failure(FindStatus.UNABLE_TO_PROCESS, "internal error"), None

    def on_ended(self, event: evt.Event) -> None:
        """Say that an association ended."""
        assoc = cast("StoreAssociation", event.assoc)
        log_event(
            _log,
            telemetry.ASSOCIATION_ENDED,
            level=logging.DEBUG,
            calling_aet=assoc.calling_aet,
            peer=assoc.peer_address,
            released=event.event is evt.EVT_RELEASED,
        )

    def _accept(self, assoc: StoreAssociation, session: Session) -> None:
        assoc.session = session
        assoc.begin_object = partial(self._receivers.begin, session)
        assoc.lane = partial(self._receivers.lane, session)
        assoc.settle = partial(self._receivers.settle, session)
        attach(assoc, self._retrieves)
        answer_unrecognized(assoc)
        self._normalized.reports.attach(assoc)
        log_event(
            _log,
            telemetry.ASSOCIATION_ACCEPTED,
            level=logging.DEBUG,
            calling_aet=assoc.calling_aet,
            peer=assoc.peer_address,
            called_aet=session.called_aet,
        )


def _identifier(event: evt.Event) -> Dataset | None:
    """Return the identifier of a query, None when it cannot be decoded."""
    try:
        return event.identifier
    except Exception as error:  # noqa: BLE001 - decoding raises anything for hostile bytes
        _log.warning("identifier of %s: %s", event.assoc.requestor.ae_title, error)
        return None


def _reject(assoc: StoreAssociation, rejection: Rejection) -> None:
    """Send an A-ASSOCIATE-RJ (PS3.8 §9.3.4) and end the association's thread."""
    log_event(
        _log,
        telemetry.ASSOCIATION_REJECTED,
        level=logging.WARNING,
        calling_aet=assoc.calling_aet,
        peer=assoc.peer_address,
        called_aet=str(association_request(assoc).called_ae_title).strip(),
        result=rejection.result.name,
        message=rejection.message,
    )
    assoc.acse.send_reject(rejection.result, rejection.source, rejection.reason)
    assoc.is_rejected = True
    assoc.kill()


class GuardedRetrieves:
    """Serves C-MOVE and C-GET and answers for every error; see `RetrieveServices`."""

    def __init__(self, moves: MoveService, gets: GetService) -> None:
        self._moves = moves
        self._gets = gets

    def move(self, exchange: RetrieveExchange) -> None:
        """Serve a C-MOVE (PS3.4 §C.4.2)."""
        self._serve(exchange, self._moves.move)

    def get(self, exchange: RetrieveExchange) -> None:
        """Serve a C-GET (PS3.4 §C.4.3)."""
        self._serve(exchange, self._gets.get)

    def _serve(
        self,
        exchange: RetrieveExchange,
        service: Callable[[RetrieveExchange, RetrieveRequest], None],
    ) -> None:
        try:
            identifier = exchange.identifier()
        except Exception as error:  # noqa: BLE001 - decoding raises anything for hostile bytes
            _log.warning("identifier of %s: %s", exchange.session.calling_aet, error)
            identifier = None
        try:
            service(exchange, exchange.request(identifier))
        except Exception:  # noqa: BLE001 - every request has to be answered
            _log.exception("defect while a retrieve was being served")
            exchange.final(UNABLE_TO_PROCESS)


class GuardedNormalizedServices:
    """Serves DIMSE-N requests and answers for every error."""

    def __init__(
        self, commitments: CommitmentService, reports: ReportSender, steps: ProcedureStepService
    ) -> None:
        self._commitments = commitments
        self.reports = reports
        self._steps = steps

    def on_action(self, event: evt.Event) -> tuple[int, None]:
        """Answer the N-ACTION that requests storage commitment (PS3.4 §J.3.2)."""
        request = ActionRequest(
            event.action_type,
            partial(_information, event, "ActionInformation", "action_information"),
        )

        def take(session: Session) -> None:
            task_pk = self._commitments.request(session, request)
            hold_s = session.ae.commitment_terms.same_association_s
            self.reports.expect(event, task_pk, hold_s=hold_s)

        return self._answer(event, take), None

    def on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """Answer the N-EVENT-REPORT of a storage commitment SCP (PS3.4 §J.3.3)."""
        information = partial(_information, event, "EventInformation", "event_information")

        def enter(session: Session) -> None:
            self._commitments.report(session.calling_aet, information)

        return self._answer(event, enter), None

    def on_create(self, event: evt.Event) -> tuple[int, None]:
        """Answer the N-CREATE of a performed procedure step (PS3.4 §F.7.2.1)."""
        uid = str(cast("Any", event.request).AffectedSOPInstanceUID or "")
        attributes = partial(_decoded, event, "attribute_list")
        status = self._answer(event, lambda session: self._steps.create(session, uid, attributes))
        return status, None

    def on_set(self, event: evt.Event) -> tuple[int, None]:
        """Answer the N-SET of a performed procedure step (PS3.4 §F.7.2.2)."""
        uid = str(cast("Any", event.request).RequestedSOPInstanceUID or "")
        changes = partial(_decoded, event, "modification_list")
        return self._answer(event, lambda session: self._steps.change(session, uid, changes)), None

    def _answer(self, event: evt.Event, serve: Callable[[Session], object]) -> int:
        """Serve a request and return the status of its response."""
        session: Session | None = cast("StoreAssociation", event.assoc).session
        try:
            if session is not None:
                serve(session)
                return NormalizedStatus.SUCCESS
        except RefusedRequestError as error:
            return _refused(event, error.status, str(error))
        except DicomqError as error:
            return _refused(event, NormalizedStatus.PROCESSING_FAILURE, str(error))
        except Exception:  # noqa: BLE001 - every error has to be answered
            _log.exception("defect while a DIMSE-N request was being answered")
        return NormalizedStatus.PROCESSING_FAILURE


def _information(event: evt.Event, parameter: str, name: str) -> Readable:
    """Return the data set of a commitment message, quickly if it is encoded as usual.

    Raises
    ------
    InvalidValueError
        When it cannot be decoded.
    """
    encoded = getattr(event.request, parameter)
    try:
        return decode_elements(encoded.getvalue(), str(event.context.transfer_syntax))
    except (UnusualEncodingError, AttributeError):
        return _decoded(event, name)


def _decoded(event: evt.Event, name: str) -> Dataset:
    """Return a data set of a request.

    Raises
    ------
    InvalidValueError
        When it cannot be decoded.
    """
    try:
        return cast("Dataset", getattr(event, name))
    except Exception as error:
        msg = f"the data set of the request cannot be decoded: {error}"
        raise InvalidValueError(msg) from error


def _refused(event: evt.Event, status: NormalizedStatus, message: str) -> int:
    log_event(
        _log,
        telemetry.REQUEST_REFUSED,
        level=logging.WARNING,
        request=type(event.request).__name__,
        calling_aet=cast("StoreAssociation", event.assoc).calling_aet,
        status=f"{status:04X}",
        message=message,
    )
    return status
