"""Sends Instance Availability Notifications (PS3.4 Annex R): one N-CREATE per task.

SOP Instance UID and data set are fixed in the ledger before the first attempt and the same in
every later one. When the response to an accepted N-CREATE is lost, the repetition is therefore
answered "duplicate SOP instance" (0111), which says that the notification has arrived.
"""

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.errors import InvalidValueError
from archive.ledger import deliveries, notifications
from archive.ledger.connection import Transaction
from archive.model.entities import AnnouncedInstance, FixedNotification
from archive.model.identifiers import new_uid
from archive.model.status import DUPLICATE_SOP_INSTANCE, DimseStatus, Service, StatusClass, classify
from archive.model.task import Failure, IanDetails, Outcome, Task, TaskStatus
from archive.telemetry import checkpoint
from workers.association import Association
from workers.contexts import IMPLICIT_VR_LE, ProposedContext, scu_syntaxes
from workers.notification import build_notification, problems_of
from workers.route import NotConfiguredError, Route, find_route, local_ae, remote_ae

if TYPE_CHECKING:
    from workers.processor import TaskContext

IAN_SOP_CLASS = "1.2.840.10008.5.1.4.33"
CHECKPOINT_CREATE_ANSWERED = "worker.create-answered"


class NotificationProcessor:
    """Performs one attempt of an IAN task."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Announce the instances of the task's study to its remote AE.

        Raises
        ------
        NotConfiguredError
            When the local or the remote AE is missing.
        InvalidValueError
            When the notification would break PS3.3 §C.4.23.
        PeerError
            When the remote AE could not be talked to or did not answer.
        """
        study = f"study {task.study_instance_uid}"
        wanted_by = f"the notification of {study}"
        if task.remote_aet is None:
            msg = f"{wanted_by} names no destination: cancel the task"
            raise NotConfiguredError(msg)
        local = local_ae(context.snapshot, task.local_aet, wanted_by)
        route = find_route(local, remote_ae(context.snapshot, task.remote_aet, wanted_by))
        with context.ledger.transaction() as tx:
            fixed = notifications.load_or_fix(
                tx, task.pk, lambda details: fixed_notification(tx, task, details)
            )
        if fixed is None:
            message = f"nothing to announce to {task.remote_aet}: no instance of {study} is held"
            return Outcome(TaskStatus.COMPLETED, message)
        syntaxes = scu_syntaxes(local, IAN_SOP_CLASS) or (IMPLICIT_VR_LE,)
        status, comment = _send(fixed, route, syntaxes, context)
        checkpoint(CHECKPOINT_CREATE_ANSWERED)
        return outcome_of(status, comment, f"IAN of {study} to {route}")


def fixed_notification(
    tx: Transaction, task: Task, details: IanDetails
) -> FixedNotification | None:
    """Return the N-CREATE for what can be announced now, None when there is nothing."""
    study_instance_uid = task.study_instance_uid or ""
    instances = _announced(tx, task, details)
    if not instances:
        return None
    dataset = build_notification(study_instance_uid, instances, details)
    problems = problems_of(dataset)
    if problems:
        msg = f"notification of study {study_instance_uid} would be invalid: {'; '.join(problems)}"
        raise InvalidValueError(msg)
    return FixedNotification(new_uid(), dataset.to_json())


def _announced(tx: Transaction, task: Task, details: IanDetails) -> list[AnnouncedInstance]:
    """Return the instances to announce.

    After an export all of them are as available as the exporter says (dcmInstanceAvailability),
    else each is as available as it is here.
    """
    if details.held_by_exporter is not None:
        study_instance_uid = task.study_instance_uid or ""
        held = deliveries.held_by(tx, study_instance_uid, details.held_by_exporter)
        return [AnnouncedInstance(each, str(details.instance_availability)) for each in held]
    instances = notifications.announced(tx, task, details)
    if task.exporter_id is None and details.instance_availability == "ONLINE":
        return instances
    availability = str(details.instance_availability)
    return [AnnouncedInstance(each.reference, availability) for each in instances]


def _send(
    fixed: FixedNotification, route: Route, syntaxes: tuple[str, ...], context: "TaskContext"
) -> tuple[DimseStatus, str]:
    """Send the N-CREATE and return the status of its response with the Error Comment."""
    contexts = (ProposedContext(IAN_SOP_CLASS, syntaxes),)
    dataset = Dataset.from_json(fixed.dataset_json)
    response = context.kept.use(
        context,
        (route, contexts),
        make=lambda: Association(route, contexts, context.clock),
        action=lambda peer: peer.create(IAN_SOP_CLASS, fixed.sop_instance_uid, dataset),
    )
    return classify(Service.N_CREATE, response.status), response.comment


def outcome_of(status: DimseStatus, comment: str, subject: str) -> Outcome:
    """Return the outcome for the status of an N-CREATE response (PS3.7 §10.1.5.1.6)."""
    if status.status_class is StatusClass.SUCCESS:
        return Outcome(TaskStatus.COMPLETED, f"{subject}: accepted")
    if status.code == DUPLICATE_SOP_INSTANCE:
        message = f"{subject}: accepted before, the response of an earlier attempt was lost"
        return Outcome(TaskStatus.COMPLETED, message)
    message = f"{subject}: {status.describe(comment)}"
    if status.is_accepted:
        message = f"{message}; the notification was accepted"
        return Outcome(TaskStatus.WARNING, message, Failure.PERMANENT)
    return Outcome(TaskStatus.FAILED, message, status.failure or Failure.TRANSIENT)
