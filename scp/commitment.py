"""The Storage Commitment Push Model at the listening side (PS3.4 Annex J).

As SCP: an N-ACTION is checked and its task is committed to the ledger before it is answered; a
worker verifies and reports. As SCU: reports of other archives arrive here, on associations that
they open, at any of the processes that share the port.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from archive import telemetry
from archive.configuration.descriptors import Connection, Snapshot
from archive.errors import DatasetError, InvalidValueError
from archive.ledger import commitments, verifications
from archive.ledger.commitments import RecordedReport
from archive.ledger.connection import Ledger
from archive.ledger.verifications import Verification
from archive.model.commitment import (
    REQUEST_COMMITMENT,
    Readable,
    Report,
    SopReference,
    read_report,
    read_request,
)
from archive.telemetry import checkpoint, log_event
from scp.session import Session

COMMITMENT_QUEUE: Final = "StgCmtSCP"
_log = logging.getLogger(__name__)


class NormalizedStatus(IntEnum):
    """Statuses that this SCP answers to N-ACTION, N-EVENT-REPORT, N-CREATE and N-SET."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_SOP_INSTANCE = 0x0117
    MISSING_ATTRIBUTE = 0x0120
    NO_SUCH_ACTION = 0x0123


class RefusedRequestError(DatasetError):
    """A request is refused with a status of its own; the sender has to correct it."""

    def __init__(self, status: NormalizedStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """An N-ACTION-RQ (PS3.7 §10.3.4).

    Attributes
    ----------
    information
        Decodes the Action Information when called.
    """

    action_type: int | None
    information: Callable[[], Readable]


class CommitmentService:
    """Takes requests and reports; one for all associations of a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def request(self, session: Session, request: ActionRequest) -> int:
        """Take a request for commitment; afterwards 0000 may be answered.

        Returns
        -------
        int
            Primary key of the task that verifies and reports.

        Raises
        ------
        RefusedRequestError
            With the status to answer.
        LedgerError
            When the task could not be recorded; nothing will be reported.
        """
        hold_s = session.ae.commitment_terms.same_association_s
        transaction_uid, references = checked_request(request)
        if not hold_s:
            check_report_address(session.snapshot, session.calling_aet)
        with self._ledger.transaction() as tx:
            task_pk = verifications.stage_verification(
                tx,
                Verification(transaction_uid, references, hold_s),
                device_name=session.snapshot.device.name,
                queue_name=COMMITMENT_QUEUE,
                local_aet=session.ae.title,
                remote_aet=session.calling_aet,
            )
        checkpoint(telemetry.CHECKPOINT_COMMITMENT_REQUESTED)
        log_event(
            _log,
            telemetry.COMMITMENT_REQUESTED,
            calling_aet=session.calling_aet,
            transaction=transaction_uid,
            instances=len(references),
            task=task_pk,
        )
        return task_pk

    def report(self, sender: str, information: Callable[[], Readable]) -> RecordedReport | None:
        """Enter a report of another archive into the request that it answers.

        Returns
        -------
        RecordedReport or None
            None when no such request was ever sent, which is the sender's affair: 0000 is
            answered, or it would report again and again.

        Raises
        ------
        RefusedRequestError
            0115 when the report names no transaction.
        LedgerError
            When it could not be recorded; the sender has to report again.
        """
        try:
            report = read_report(information())
        except InvalidValueError as error:
            raise RefusedRequestError(
                NormalizedStatus.INVALID_ARGUMENT_VALUE, str(error)
            ) from error
        with self._ledger.transaction() as tx:
            recorded = commitments.record_report(tx, report, actor=sender)
        checkpoint(telemetry.CHECKPOINT_COMMITMENT_REPORTED)
        _log_report(sender, report, recorded)
        return recorded


def checked_request(request: ActionRequest) -> tuple[str, tuple[SopReference, ...]]:
    """Return Transaction UID and references of an N-ACTION that can be performed.

    Raises
    ------
    RefusedRequestError
        0123 for another action, 0115 when the Action Information lacks something.
    """
    if request.action_type != REQUEST_COMMITMENT:
        msg = f"Action Type ID {request.action_type} is not 1, Request Storage Commitment"
        raise RefusedRequestError(NormalizedStatus.NO_SUCH_ACTION, msg)
    try:
        return read_request(request.information())
    except InvalidValueError as error:
        raise RefusedRequestError(NormalizedStatus.INVALID_ARGUMENT_VALUE, str(error)) from error


def check_report_address(snapshot: Snapshot, calling_aet: str) -> None:
    """Check that the directory says where to report to.

    Raises
    ------
    RefusedRequestError
        0110 when it does not.
    """
    if not _can_be_reached(snapshot, calling_aet):
        msg = (
            f"the report has nowhere to go: give {calling_aet} an AE entry with an installed "
            "connection that has a dicomPort"
        )
        raise RefusedRequestError(NormalizedStatus.PROCESSING_FAILURE, msg)


def _can_be_reached(snapshot: Snapshot, title: str) -> bool:
    ae = snapshot.remote_aes.get(title)
    return ae is not None and ae.installed and any(map(_is_usable, ae.connections))


def _is_usable(connection: Connection) -> bool:
    return connection.installed and connection.port is not None


def _log_report(sender: str, report: Report, recorded: RecordedReport | None) -> None:
    unexpected = recorded is None or recorded.unknown or report.failures
    log_event(
        _log,
        telemetry.COMMITMENT_REPORTED,
        level=logging.WARNING if unexpected else logging.INFO,
        calling_aet=sender,
        transaction=report.transaction_uid,
        status=recorded.status if recorded else "unknown transaction",
        committed=recorded.num_committed if recorded else None,
        failed=recorded.num_failed if recorded else None,
        of=recorded.num_instances if recorded else None,
        not_asked_for=(recorded.unknown or None) if recorded else None,
        late=(recorded.late or None) if recorded else None,
    )
