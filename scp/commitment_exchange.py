"""Reports of storage commitment on the association of their request (PS3.4 §J.3.3.1.2).

After the response to an N-ACTION the association's thread looks for the report that a worker
offers (`archive.ledger.report_offers`), for as long as the AE's terms say and the association is
open. Other requests are served meanwhile; objects are received by the other thread anyhow. Of
pynetdicom is relied on: `Association._serve_request`, `_accepted_cx`, `_is_paused`,
`dimse.msg_queue`, `dul.peek_next_pdu`.
"""

import logging
import queue
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from archive import telemetry
from archive.clock import Clock
from archive.errors import DicomqError
from archive.ledger import report_offers
from archive.ledger.connection import Ledger
from archive.model.commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    Report,
    report_dataset,
)
from archive.model.commitment_encoding import can_encode, encoded_report
from archive.telemetry import checkpoint, log_event
from scp.receiving import StoreAssociation

ANSWER_S: Final = 30.0
"""How long the response to a report is waited for; the worker that offered it waits longer."""

_LOOK_S: Final = 0.1
_MESSAGE_IDS: Final = 0xFFFF
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExpectedReport:
    """A report of storage commitment that may be sent on the association of its request.

    Attributes
    ----------
    until
        When that is too late, on the clock that never goes backwards.
    """

    task_pk: int
    context_id: int
    until: float


class ReportSender:
    """Sends reports on the associations of their requests; one for all of a process."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._expected: WeakKeyDictionary[StoreAssociation, list[ExpectedReport]]
        self._expected = WeakKeyDictionary()

    def expect(self, event: evt.Event, task_pk: int, *, hold_s: float) -> None:
        """Have a task's report sent on the association of its request, if it is there in time.

        Parameters
        ----------
        event
            The request.
        hold_s
            How long the report is waited for; not at all with 0.
        """
        if hold_s > 0:
            until = self._clock.monotonic() + hold_s
            expected = ExpectedReport(task_pk, event.context.context_id or 0, until)
            self._expected[cast("StoreAssociation", event.assoc)].append(expected)

    def attach(self, assoc: StoreAssociation) -> None:
        """Have expected reports sent after the response to the request that causes them."""
        serve_otherwise = assoc._serve_request  # noqa: SLF001
        expected = self._expected[assoc] = []
        is_holding = False

        def serve(message: Any, context_id: int) -> None:  # noqa: ANN401 - any DIMSE primitive
            nonlocal is_holding
            serve_otherwise(message, context_id)
            if expected and not is_holding:
                is_holding = True
                self._hold(assoc, expected)
                is_holding = False

        assoc._serve_request = serve  # type: ignore[method-assign,assignment]  # noqa: SLF001

    def _hold(self, assoc: StoreAssociation, expected: list[ExpectedReport]) -> None:
        """Serve the association until no report is expected on it any more."""
        while expected:
            assoc._is_paused = True  # noqa: SLF001
            for each in tuple(expected):
                if self._is_dealt_with(assoc, each):
                    expected.remove(each)
            if expected:
                _serve_next(assoc)
        assoc._is_paused = False  # noqa: SLF001
        assoc.dul._idle_timer.restart()  # noqa: SLF001

    def _is_dealt_with(self, assoc: StoreAssociation, expected: ExpectedReport) -> bool:
        """Send a report if it is there; return whether nothing more is to be done for it."""
        is_over = not _is_open(assoc) or self._clock.monotonic() >= expected.until
        try:
            with self._ledger.transaction() as tx:
                if is_over:
                    report_offers.end_hold(tx, expected.task_pk)
                    return True
                report = report_offers.take(tx, expected.task_pk)
            if report is None:
                return False
            checkpoint(telemetry.CHECKPOINT_COMMITMENT_REPORT_TAKEN)
            status = self._send(assoc, expected, report)
            with self._ledger.transaction() as tx:
                if status is None:
                    report_offers.end_hold(tx, expected.task_pk)
                else:
                    report_offers.answer(tx, expected.task_pk, status)
        except DicomqError as error:
            _log_sent(assoc, expected, f"{error}; the report goes over a new association")
            return True
        _log_sent(assoc, expected, "no answer" if status is None else f"{status:04X}")
        return True

    def _send(
        self, assoc: StoreAssociation, expected: ExpectedReport, report: Report
    ) -> int | None:
        """Send an N-EVENT-REPORT and return the status of its response, None without one."""
        request = _event_report(assoc, expected, report)
        assoc.dimse.send_msg(request, expected.context_id)
        deadline = self._clock.monotonic() + ANSWER_S
        while _is_open(assoc) and self._clock.monotonic() < deadline:
            message = _serve_next(assoc, request.MessageID)
            if message is not None:
                return int(message.Status or 0)
        return None


def _event_report(
    assoc: StoreAssociation, expected: ExpectedReport, report: Report
) -> N_EVENT_REPORT:
    """Return the request in the transfer syntax of the presentation context."""
    context = assoc._accepted_cx[expected.context_id]  # noqa: SLF001
    syntax = UID(context.transfer_syntax[0])
    dataset = encoded_report(report, syntax) if can_encode(syntax) else report_dataset(report)
    request = N_EVENT_REPORT()
    request.MessageID = expected.task_pk % _MESSAGE_IDS + 1
    request.AffectedSOPClassUID = UID(STORAGE_COMMITMENT_PUSH_MODEL)
    request.AffectedSOPInstanceUID = UID(WELL_KNOWN_INSTANCE)
    request.EventTypeID = int(report.event_type)
    encoded = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    request.EventInformation = BytesIO(encoded or b"")
    return request


def _serve_next(assoc: StoreAssociation, answers: int | None = None) -> N_EVENT_REPORT | None:
    """Serve the next message if one comes soon; return the response to message `answers`."""
    try:
        context_id, message = assoc.dimse.msg_queue.get(timeout=_LOOK_S)
    except queue.Empty:
        return None
    if (
        isinstance(message, N_EVENT_REPORT)
        and message.MessageIDBeingRespondedTo == answers
        and message.is_valid_response
    ):
        return message
    if message is not None:
        assoc._serve_request(message, context_id or 0)  # noqa: SLF001
    return None


def _is_open(assoc: StoreAssociation) -> bool:
    """Tell whether the peer neither releases nor has aborted the association."""
    is_established = assoc.is_established and assoc.dul.is_alive()
    return bool(is_established and assoc.dul.peek_next_pdu() is None)


def _log_sent(assoc: StoreAssociation, expected: ExpectedReport, result: str) -> None:
    log_event(
        _log,
        telemetry.COMMITMENT_REPORT_SENT,
        level=logging.INFO if result == "0000" else logging.WARNING,
        calling_aet=assoc.calling_aet,
        task=expected.task_pk,
        status=result,
    )
