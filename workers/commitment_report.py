"""Verifies what another AE wants committed and reports to it (PS3.4 Annex J, SCP).

Verification is done anew in every attempt, so that what is reported is true when it is. The
report goes over an association that this side opens, with the role SCP proposed, unless the
association of the request is still held for it (SAME_ASSOCIATION of dcmStgCmtPolicy); it counts
as delivered only when its response says so.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.configuration.descriptors import VerificationPolicy
from archive.errors import ConfigurationError, ObjectUnreadableError, PeerError
from archive.ledger import verifications
from archive.ledger.verifications import HeldInstance, Verification
from archive.model.commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    FailureReason,
    Report,
    ReportedInstance,
    SopReference,
    report_dataset,
)
from archive.model.commitment_encoding import can_encode, encoded_report
from archive.model.entities import StoredFile
from archive.model.status import Service, classify
from archive.model.task import Failure, Outcome, Task, TaskStatus
from archive.storage.verification import Thoroughness, verify_file
from archive.telemetry import checkpoint, log_event
from workers import events
from workers.association import Association, NormalizedResponse
from workers.contexts import IMPLICIT_VR_LE, ProposedContext
from workers.report_offer import sent_where_asked
from workers.route import NotConfiguredError, Route, find_route, local_ae, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import NetworkAE
    from workers.processor import TaskContext

LOGGER = logging.getLogger(__name__)

_CHUNK = 500
_THOROUGHNESS: Mapping[VerificationPolicy, Thoroughness] = {
    VerificationPolicy.DB_RECORD_EXISTS: Thoroughness.ROW,
    VerificationPolicy.OBJECT_EXISTS: Thoroughness.EXISTS,
    VerificationPolicy.OBJECT_SIZE: Thoroughness.SIZE,
    VerificationPolicy.OBJECT_FETCH: Thoroughness.FETCH,
    VerificationPolicy.OBJECT_CHECKSUM: Thoroughness.CHECKSUM,
}


class RoleRefusedError(PeerError):
    """The remote AE does not take this side for the SCP that may report (PS3.7 §D.3.3.4)."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of an instance when it is judged.

    Attributes
    ----------
    committed_downstream
        Whether the commitment SCPs of all exporters that are asked keep it.
    is_sound
        Whether a copy passed verification; None when there is no copy.
    """

    held: HeldInstance | None
    committed_downstream: bool = True
    is_sound: bool | None = None


class ReportProcessor:
    """Performs one attempt of an STGCMT_SCP task."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Verify what was asked for and report.

        Raises
        ------
        NotConfiguredError
            When the local or the remote AE is missing.
        PeerError
            When the remote AE could not be reached or did not answer the report.
        """
        wanted_by = f"the storage commitment report to {task.remote_aet}"
        local = local_ae(context.snapshot, task.local_aet, wanted_by)
        if task.remote_aet is None:
            msg = f"task {task.pk} does not say to whom it reports: cancel it"
            raise NotConfiguredError(msg)
        with context.ledger.transaction() as tx:
            asked = verifications.verification(tx, task.pk)
        instances = _verified(asked, local, context)
        if context.cancelled():
            message = f"{wanted_by}: stopped after {len(instances)} instances, not reported"
            return Outcome(TaskStatus.CANCELED, message)
        report = Report(asked.transaction_uid, instances)
        with context.ledger.transaction() as tx:
            verifications.note_verification(tx, task.pk, report.failures)
        log_event(
            LOGGER,
            events.COMMITMENT_VERIFIED,
            level=logging.WARNING if report.failures else logging.INFO,
            transaction=report.transaction_uid,
            destination=task.remote_aet,
            instances=len(instances),
            failed=report.failures,
        )
        status = sent_where_asked(report, task, context)
        if status is not None:
            subject = f"{wanted_by} on the association of its request"
            return outcome_of(report, NormalizedResponse(status, ""), subject)
        if context.cancelled():
            return Outcome(TaskStatus.CANCELED, f"{wanted_by}: stopped before it was reported")
        route = find_route(local, remote_ae(context.snapshot, task.remote_aet, wanted_by))
        response = _send(report, route, local, context)
        return outcome_of(report, response, f"storage commitment report to {route}")


def judge(reference: SopReference, judgement: Judgement, local_aet: str) -> ReportedInstance:
    """Return what is reported of one instance (reference: commitment SCP).

    Parameters
    ----------
    local_aet
        Retrieve AE Title where the archive knows no other.
    """
    held = judgement.held
    reason: FailureReason | None = None
    if held is None:
        reason = FailureReason.NO_SUCH_OBJECT_INSTANCE
    elif reference.sop_class_uid and held.sop_class_uid != reference.sop_class_uid:
        reason = FailureReason.CLASS_INSTANCE_CONFLICT
    elif not (judgement.committed_downstream and _is_somewhere(judgement, held)):
        reason = FailureReason.PROCESSING_FAILURE
    if held is None or reason is not None:
        return ReportedInstance(reference.sop_class_uid, reference.sop_instance_uid, reason)
    own = held.retrieve_aets[0] if held.retrieve_aets else local_aet
    title = own if judgement.is_sound else held.external_retrieve_aet
    return ReportedInstance(held.sop_class_uid, reference.sop_instance_uid, None, title)


def _is_somewhere(judgement: Judgement, held: HeldInstance) -> bool:
    """Tell whether a good copy is here or, without any copy here, at an external archive."""
    if judgement.is_sound is None:
        return bool(held.external_retrieve_aet)
    return judgement.is_sound


def _verified(
    asked: Verification, local: "NetworkAE", context: "TaskContext"
) -> tuple[ReportedInstance, ...]:
    """Return what is reported of each instance, as far as the task was not stopped."""
    reported: list[ReportedInstance] = []
    exporters = local.commitment_terms.committed_by
    for start in range(0, len(asked.references), _CHUNK):
        references = asked.references[start : start + _CHUNK]
        uids = [each.sop_instance_uid for each in references]
        with context.ledger.transaction() as tx:
            held = verifications.holdings(tx, uids)
            downstream = verifications.committed_by(tx, uids, exporters) if exporters else set(uids)
        for each in references:
            if context.cancelled():
                return tuple(reported)
            uid = each.sop_instance_uid
            judgement = Judgement(held.get(uid), uid in downstream, None)
            if judgement.held is not None:
                sound = _is_sound(judgement.held.files, local, context)
                judgement = Judgement(judgement.held, judgement.committed_downstream, sound)
            reported.append(judge(each, judgement, local.title))
    return tuple(reported)


def _is_sound(
    files: Sequence[StoredFile], local: "NetworkAE", context: "TaskContext"
) -> bool | None:
    """Tell whether one copy on an allowed storage passes; None when there is no copy."""
    allowed = local.storage_verification_storage_ids
    thoroughness = _THOROUGHNESS[local.storage_verification_policy]
    for file in files:
        if allowed and file.storage_id not in allowed:
            continue
        try:
            verify_file(context.storages.get(file.storage_id), file, thoroughness)
        except (ObjectUnreadableError, ConfigurationError) as error:
            log_event(
                LOGGER,
                events.COMMITMENT_VERIFIED,
                level=logging.ERROR,
                storage_id=file.storage_id,
                message=f"{error}; not committed: restore the file or send the object again",
            )
        else:
            return True
    return False if files else None


def _send(
    report: Report, route: Route, local: "NetworkAE", context: "TaskContext"
) -> NormalizedResponse:
    """Send the report over an association of its own and return the response to it."""
    proposal = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, _syntaxes(local), as_scp=True)
    association = Association(route, [proposal], context.clock)
    with context.on_abort(association.shutdown), association:
        is_scp = any(each.as_scp for each in association.accepted)
        if not is_scp and not local.role_selection_negotiation_lenient:
            msg = (
                f"{route} did not accept that {route.calling_aet} is the SCP of storage commitment:"
                " allow it there, or set dcmRoleSelectionNegotiationLenient of the local AE"
            )
            raise RoleRefusedError(msg)
        response = association.report_event(
            STORAGE_COMMITMENT_PUSH_MODEL,
            WELL_KNOWN_INSTANCE,
            report.event_type,
            dataset=_information(report, association),
        )
    checkpoint(events.CHECKPOINT_COMMITMENT_ANSWERED)
    return response


def outcome_of(report: Report, response: NormalizedResponse, subject: str) -> Outcome:
    """Return the outcome for the response to a report (PS3.7 §10.1.1.1.8)."""
    status = classify(Service.N_EVENT_REPORT, response.status)
    counts = f"committed:{len(report.instances) - report.failures} failed:{report.failures}"
    if not status.is_accepted:
        message = f"{subject}: {counts}, answered {status.describe(response.comment)}"
        return Outcome(TaskStatus.FAILED, message, status.failure or Failure.TRANSIENT)
    if report.failures:
        return Outcome(TaskStatus.WARNING, f"{subject}: {counts}", Failure.PERMANENT)
    return Outcome(TaskStatus.COMPLETED, f"{subject}: {counts}")


def _information(report: Report, association: Association) -> Dataset:
    """Return the Event Information in the transfer syntax that the peer accepted."""
    syntax = association.accepted[0].transfer_syntax_uid
    return encoded_report(report, syntax) if can_encode(syntax) else report_dataset(report)


def _syntaxes(local: "NetworkAE") -> tuple[str, ...]:
    """Return the transfer syntaxes of the local SCP capability, else Implicit VR."""
    for each in local.transfer_capabilities:
        if each.sop_class == STORAGE_COMMITMENT_PUSH_MODEL and each.role == "SCP":
            return tuple(syntax for syntax in each.transfer_syntaxes if syntax != "*")
    return (IMPLICIT_VR_LE,)
