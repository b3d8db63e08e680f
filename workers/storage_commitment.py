"""Asks other archives to commit to what they were sent (PS3.4 Annex J, SCU).

A request is remembered in the ledger before it is sent, because its report may be faster than
its response and may come to any process. The response to the request ends the task: COMPLETED
means "asked". The report is entered by whoever receives it: an SCP process, or this one when it
comes on the same association. `workers.deadlines` sees to what stays open.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.errors import DicomqError, InvalidValueError
from archive.ledger import commitments
from archive.ledger.commitments import RecordedReport, RequestedInstance
from archive.model.commitment import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    CommitmentPolicy,
    Report,
    Rung,
    SopReference,
    read_report,
    request_dataset,
)
from archive.model.commitment_encoding import can_encode, encoded_request
from archive.model.identifiers import new_uid
from archive.model.status import DimseStatus, Service, classify
from archive.model.task import CommitmentDetails, Failure, Outcome, Task, TaskStatus
from archive.telemetry import checkpoint, log_event
from workers import events
from workers.association import Association
from workers.contexts import IMPLICIT_VR_LE, ProposedContext, scu_syntaxes
from workers.route import NotConfiguredError, Route, find_route, local_ae, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import Exporter, Snapshot
    from archive.ledger.connection import Ledger
    from workers.processor import TaskContext

LOGGER = logging.getLogger(__name__)

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Plan:
    """How requests are made.

    Attributes
    ----------
    syntaxes
        Transfer syntaxes proposed.
    """

    route: Route
    syntaxes: tuple[str, ...]
    policy: CommitmentPolicy
    retrieve_aet: str | None
    by_hand: bool
    rung: int


class CommitmentProcessor:
    """Performs one attempt of an STGCMT_SCU task."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Ask for the commitment of what the task covers and has not asked for yet.

        Raises
        ------
        NotConfiguredError
            When the local or the remote AE is missing.
        PeerError
            When the remote AE could not be talked to or did not answer. Whether it took the
            request is not known then; the next attempt asks under a new Transaction UID, and a
            report under the old one is accepted all the same.
        """
        with context.ledger.transaction() as tx:
            details = commitments.details(tx, task.pk)
            if details.verdict is not None:
                commitments.clear_verdict(tx, task.pk)
                return Outcome(TaskStatus.FAILED, details.verdict, Failure.PERMANENT)
            instances = commitments.to_request(tx, task)
        subject = f"storage commitment of study {task.study_instance_uid} by {task.remote_aet}"
        if not instances:
            return Outcome(TaskStatus.COMPLETED, f"{subject}: {_nothing(details)}")
        plan = _plan(task, details, context.snapshot)
        asked = requests = 0
        if plan.by_hand:  # it is no step of an earlier request
            instances = [replace(each, resent=False) for each in instances]
        for chunk in split(instances, plan.policy.max_instances):
            if context.cancelled():
                return Outcome(TaskStatus.CANCELED, f"{subject}: requested:{asked}")
            refusal = _request(chunk, plan, task, context)
            if refusal is not None:
                return refused(refusal, f"{subject}: requested:{asked}")
            asked += len(chunk)
            requests += 1
        message = f"{subject}: requested:{asked} transactions:{requests}; the report is awaited"
        return Outcome(TaskStatus.COMPLETED, message)


def _nothing(details: CommitmentDetails) -> str:
    """Return why there is nothing to ask for."""
    if details.held_by_exporter is None or details.again_of is not None:
        return "nothing is left to ask for"
    return (
        f"nothing to ask for, exporter {details.held_by_exporter} has delivered nothing of it: "
        "export it, or ask by an exporter with noop: as its dcmURI for all that is here"
    )


def split(
    instances: Sequence[RequestedInstance], most: int
) -> Iterator[Sequence[RequestedInstance]]:
    """Yield the instances in groups of at most `most`, those sent again apart from the others."""
    for resent in (False, True):
        group = [each for each in instances if each.resent is resent]
        for start in range(0, len(group), most):
            yield group[start : start + most]


def refused(refusal: tuple[DimseStatus, str], subject: str) -> Outcome:
    """Return the outcome of a request that the peer answered with a failure."""
    status, comment = refusal
    message = f"{subject}; N-ACTION was answered {status.describe(comment)}"
    return Outcome(TaskStatus.FAILED, message, status.failure or Failure.TRANSIENT)


def commitment_policy(exporter: "Exporter | None") -> CommitmentPolicy:
    """Return how an exporter's commitments are followed up; the defaults where it has no say.

    Properties that cannot be read were reported when the directory was loaded.
    """
    try:
        return CommitmentPolicy.parse(exporter.properties if exporter else ())
    except InvalidValueError:
        return CommitmentPolicy()


def _plan(task: Task, details: CommitmentDetails, snapshot: "Snapshot") -> _Plan:
    wanted_by = f"the storage commitment of study {task.study_instance_uid}"
    if task.remote_aet is None:
        msg = f"{wanted_by} names no storage commitment SCP: cancel the task"
        raise NotConfiguredError(msg)
    local = local_ae(snapshot, task.local_aet, wanted_by)
    exporter = snapshot.device.exporters.get(task.exporter_id or "")
    return _Plan(
        route=find_route(local, remote_ae(snapshot, task.remote_aet, wanted_by)),
        syntaxes=scu_syntaxes(local, STORAGE_COMMITMENT_PUSH_MODEL) or (IMPLICIT_VR_LE,),
        policy=commitment_policy(exporter),
        retrieve_aet=exporter.retrieve_aets[0] if exporter and exporter.retrieve_aets else None,
        by_hand=details.export_task_pk is None and details.again_of is None,
        rung=details.rung,
    )


def _request(
    chunk: Sequence[RequestedInstance], plan: _Plan, task: Task, context: "TaskContext"
) -> tuple[DimseStatus, str] | None:
    """Send one request; return the status of its response unless it was accepted."""
    transaction_uid = new_uid()
    with context.ledger.transaction() as tx:
        pk = commitments.open_request(
            tx,
            task,
            transaction_uid,
            instances=chunk,
            rung=Rung.RESENT if chunk[0].resent else plan.rung,
            retrieve_aet=plan.retrieve_aet,
        )
    checkpoint(events.CHECKPOINT_COMMITMENT_OPENED)
    references = [SopReference(each.sop_class_uid, each.sop_instance_uid) for each in chunk]
    reports = _Reports(context.ledger, plan.route.remote_aet, transaction_uid)
    proposal = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, plan.syntaxes)
    association = Association(plan.route, [proposal], context.clock)
    association.on_event_report(reports.answer)
    with context.on_abort(association.shutdown), association:
        response = association.action(
            STORAGE_COMMITMENT_PUSH_MODEL,
            WELL_KNOWN_INSTANCE,
            REQUEST_COMMITMENT,
            dataset=_information(transaction_uid, references, association),
        )
        status = classify(Service.N_ACTION, response.status)
        checkpoint(events.CHECKPOINT_COMMITMENT_ANSWERED)
        with context.ledger.transaction() as tx:
            if not status.is_accepted:
                commitments.refuse_request(tx, pk)
            else:
                commitments.accept_request(tx, pk, deadline_s=plan.policy.deadline_s)
        if status.is_accepted:
            reports.linger(plan.policy.linger_s, association)
    return None if status.is_accepted else (status, response.comment)


def _information(
    transaction_uid: str, references: Sequence[SopReference], association: Association
) -> Dataset:
    """Return the Action Information in the transfer syntax that the peer accepted."""
    syntax = association.accepted[0].transfer_syntax_uid
    if can_encode(syntax):
        return encoded_request(transaction_uid, references, syntax)
    return request_dataset(transaction_uid, references)


class _Reports:
    """Takes reports that come on the association of the request (PS3.4 §J.3.3.1.2)."""

    def __init__(self, ledger: "Ledger", remote_aet: str, transaction_uid: str) -> None:
        self._ledger = ledger
        self._remote_aet = remote_aet
        self._transaction_uid = transaction_uid
        self._done = threading.Event()

    def answer(self, information: Dataset) -> int:
        """Enter a report into the ledger; return the status of the response."""
        try:
            report = read_report(information)
            record(self._ledger, report, sender=self._remote_aet)
        except InvalidValueError as error:
            _log_refused(self._remote_aet, str(error))
            return 0x0115
        except DicomqError as error:
            _log_refused(self._remote_aet, str(error))
            return 0x0110
        if report.transaction_uid == self._transaction_uid:
            self._done.set()
        return 0x0000

    def linger(self, seconds: float, association: Association) -> None:
        """Hold the association open until the report came, but not for longer than `seconds`."""
        left = seconds
        while left > 0 and association.is_established and not self._done.wait(min(_POLL_S, left)):
            left -= _POLL_S


def record(ledger: "Ledger", report: Report, *, sender: str) -> RecordedReport | None:
    """Enter a report into the ledger and say what it changed."""
    with ledger.transaction() as tx:
        recorded = commitments.record_report(tx, report, actor=sender)
    log_event(
        LOGGER,
        events.COMMITMENT_REPORTED,
        level=logging.INFO if recorded and not report.failures else logging.WARNING,
        sender=sender,
        transaction=report.transaction_uid,
        status=recorded.status if recorded else "unknown transaction",
        committed=recorded.num_committed if recorded else None,
        failed=recorded.num_failed if recorded else None,
    )
    return recorded


def _log_refused(sender: str, message: str) -> None:
    log_event(
        LOGGER,
        events.COMMITMENT_REPORTED,
        level=logging.WARNING,
        sender=sender,
        message=f"report refused: {message}; the peer may send it again, else it is asked again",
    )
