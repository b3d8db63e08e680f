"""Performs export tasks: `dicom:` sends instances to a storage SCP, `noop:` sends nothing.

What was delivered is recorded per instance while the attempt runs, so an attempt that is
repeated sends only what is missing. The export is completed when every instance got a response
that says so; only then do the notifications follow (PS3.4 Annex B, Annex R).
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from archive.ledger import deliveries
from archive.model.entities import DeliverySummary, InstanceToSend
from archive.model.task import (
    CommitmentDetails,
    Failure,
    IanDetails,
    NewTask,
    Outcome,
    Task,
    TaskKind,
    TaskStatus,
)
from workers.contexts import ContextPlan, ProposedContext, plan_contexts
from workers.delivery import Courier
from workers.payload import NO_FILE
from workers.recorder import Recorder
from workers.route import NotConfiguredError, find_route, local_ae, remote_ae
from workers.storage_commitment import commitment_policy
from workers.tally import Tally, outcome
from workers.transcoding import Transcoder

if TYPE_CHECKING:
    from archive.configuration.descriptors import ArchiveDevice, Exporter, NetworkAE, Snapshot
    from workers.processor import TaskContext

IAN_QUEUE = "IANSCU"
COMMITMENT_QUEUE = "StgCmtSCU"
SCHEMES = ("dicom", "noop")


@dataclass(frozen=True, slots=True)
class _Ends:
    """Between what an export runs."""

    exporter: "Exporter"
    local: "NetworkAE"
    remote: "NetworkAE"


class ExportProcessor:
    """Performs one attempt of an export task."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Export what the task covers and has not delivered yet.

        Raises
        ------
        NotConfiguredError
            When exporter, local AE or destination are missing, or the exporter's scheme is not
            one of those that exist.
        LedgerError
            When results could not be recorded; what was sent since is sent again.
        """
        exporter = _exporter(task, context.snapshot)
        if exporter.scheme == "noop":
            done = Outcome(TaskStatus.COMPLETED, f"NOOP: {entity_words(task)} is sent nowhere")
            return _with_follow_ups(done, task, exporter, context.snapshot)
        if exporter.scheme != "dicom":
            msg = (
                f"exporter {exporter.exporter_id} has the scheme {exporter.scheme!r} in dcmURI; "
                f"this version has {' and '.join(SCHEMES)}: correct {exporter.dn or 'its entry'}"
            )
            raise NotConfiguredError(msg)
        return _export_to_ae(task, exporter, context)


def _exporter(task: Task, snapshot: "Snapshot") -> "Exporter":
    exporter = snapshot.device.exporters.get(task.exporter_id or "")
    if exporter is None:
        msg = (
            f"there is no entry dcmExporterID={task.exporter_id} below "
            f"dicomDeviceName={snapshot.device.name}: add it, or cancel its tasks"
        )
        raise NotConfiguredError(msg)
    return exporter


def _export_to_ae(task: Task, exporter: "Exporter", context: "TaskContext") -> Outcome:
    """Perform an attempt of a `dicom:` export."""
    wanted_by = f"exporter {exporter.exporter_id}"
    ends = _Ends(
        exporter,
        local_ae(context.snapshot, exporter.aet, wanted_by),
        remote_ae(context.snapshot, exporter.destination, wanted_by),
    )
    with context.ledger.transaction() as tx:
        again = context.snapshot.queue(task.queue_name).retry.retry_on_warning
        instances = deliveries.instances_to_send(tx, task, refused_too=again)
        before = deliveries.summary(tx, task)
        deliveries.note_extent(tx, task, len(instances) + before.delivered)
    if not instances:
        return _nothing_to_send(task, exporter, before, context.snapshot)
    recorder = Recorder(task, context)
    try:
        _send_all(instances, ends, recorder, context)
    finally:
        recorder.flush()
    with context.ledger.transaction() as tx:
        summary = deliveries.summary(tx, task)
    subject = f"export of {entity_words(task)} to {exporter.destination}"
    result = outcome(subject, recorder.tally, summary, cancelled=context.cancelled())
    if result.status is TaskStatus.COMPLETED and not summary.delivered:
        return result
    return _with_follow_ups(result, task, exporter, context.snapshot)


def _nothing_to_send(
    task: Task, exporter: "Exporter", before: DeliverySummary, snapshot: "Snapshot"
) -> Outcome:
    """Return the outcome of a task without any instance left."""
    subject = f"export of {entity_words(task)} to {exporter.destination}"
    if before.refused:
        return outcome(subject, Tally(), before, cancelled=False)
    if before.delivered:
        counts = f"completed:{before.delivered - before.warning}"
        warned = f" warning:{before.warning}" if before.warning else ""
        done = Outcome(TaskStatus.COMPLETED, f"{subject}: {counts}{warned}, by earlier attempts")
        return _with_follow_ups(done, task, exporter, snapshot)
    if task.follow_up_only:
        message = f"{subject}: completed:0, the destination has everything already"
        return Outcome(TaskStatus.COMPLETED, message)
    message = f"{subject}: the archive has no such instance"
    return Outcome(TaskStatus.WARNING, message, Failure.PERMANENT)


def _send_all(
    instances: Sequence[InstanceToSend],
    ends: _Ends,
    recorder: Recorder,
    context: "TaskContext",
) -> None:
    """Send instances group by group, each group of contexts on its own associations."""
    source_aet = next((each.sending_aet for each in instances if each.sending_aet), None)
    route = find_route(
        ends.local, ends.remote, source_aet if ends.exporter.export_as_source_ae else None
    )
    stored = [
        (each.sop_class_uid, each.file.transfer_syntax_uid) for each in instances if each.file
    ]
    plan = plan_contexts(stored, ends.local, ends.remote)
    sendable = _set_excluded_aside(instances, plan, recorder, context.snapshot.device)
    lanes = associations_for(ends.remote.title, ends.local, context.snapshot.device)
    with Transcoder() as transcoder:
        courier = Courier(route, plan, transcoder, context)
        for contexts, members in grouped(sendable, plan.groups):
            stopped_by = recorder.tally.stopped_by
            if stopped_by is not None and stopped_by.retryable:
                recorder.tally.remaining += len(members)
            else:
                courier.deliver(contexts, deque(members), recorder, lanes)


def _set_excluded_aside(
    instances: Sequence[InstanceToSend],
    plan: ContextPlan,
    recorder: Recorder,
    device: "ArchiveDevice",
) -> list[InstanceToSend]:
    """Return the instances that may be sent; record the others, or pass over them if so wished."""
    sendable: list[InstanceToSend] = []
    for instance in instances:
        file = instance.file
        if file is None:
            recorder.missing(instance, NO_FILE)
            continue
        reason = plan.excluded.get((instance.sop_class_uid, file.transfer_syntax_uid))
        if reason is None:
            sendable.append(instance)
        elif not device.restrict_retrieve_silently:
            recorder.failed(instance, reason, transient=False)
    return sendable


def grouped(
    instances: Sequence[InstanceToSend], groups: Sequence[tuple[ProposedContext, ...]]
) -> list[tuple[tuple[ProposedContext, ...], list[InstanceToSend]]]:
    """Return each group of contexts with the instances whose SOP class it covers."""
    group_of = {
        context.sop_class_uid: index for index, group in enumerate(groups) for context in group
    }
    members: defaultdict[int, list[InstanceToSend]] = defaultdict(list)
    for instance in instances:
        members[group_of[instance.sop_class_uid]].append(instance)
    return [(groups[index], members[index]) for index in sorted(members)]


def associations_for(remote_aet: str, local: "NetworkAE", device: "ArchiveDevice") -> int:
    """Return how many associations at a time go to a destination (dcmMultipleStoreAssociations).

    A value `AET:n` beats a general `n`; the AE is asked before the device.
    """
    for values in (local.multiple_store_associations, device.multiple_store_associations):
        named = [value.rpartition(":") for value in values]
        specific = [number for title, _, number in named if title == remote_aet]
        general = [value for value in values if ":" not in value]
        for text in (*specific, *general):
            if text.isdecimal() and int(text) > 0:
                return int(text)
    return 1


def entity_words(task: Task) -> str:
    """Return what a task covers, for messages."""
    if task.sop_instance_uid:
        return f"instance {task.sop_instance_uid} of study {task.study_instance_uid}"
    if task.series_instance_uid:
        return f"series {task.series_instance_uid} of study {task.study_instance_uid}"
    return f"study {task.study_instance_uid}"


def _with_follow_ups(
    result: Outcome, task: Task, exporter: "Exporter", snapshot: "Snapshot"
) -> Outcome:
    """Return `result` with what follows a completed export."""
    if result.status is not TaskStatus.COMPLETED:
        return result
    return replace(result, follow_ups=follow_ups(task, exporter, snapshot))


def follow_ups(task: Task, exporter: "Exporter", snapshot: "Snapshot") -> tuple[NewTask, ...]:
    """Return what follows a completed export: notifications in their order, then commitment.

    A notification covers what the destination holds of the study; after `noop:`, which delivers
    nothing, all of it. Retrieve AE Title (0008,0054) is type 1, so it is never empty (PS3.3
    §C.4.23): without dcmRetrieveAET it is the AE that was sent to. With `IANAfter=commitment`
    the notifications wait until everything delivered is committed.
    """
    if task.study_instance_uid is None:
        return ()
    ians = notifications(task, exporter, snapshot)
    if exporter.storage_commitment_scp is None:
        return ians
    waits = commitment_policy(exporter).ian_after_commitment
    request = _commitment(task, exporter, ians if waits else ())
    return (request,) if waits else (*ians, request)


def _commitment(task: Task, exporter: "Exporter", after: tuple[NewTask, ...]) -> NewTask:
    """Return the request for the commitment of what an export delivered."""
    sent = exporter.scheme == "dicom"
    return NewTask(
        kind=TaskKind.STGCMT_SCU,
        queue_name=COMMITMENT_QUEUE,
        device_name=task.device_name,
        local_aet=exporter.aet or task.local_aet or "",
        remote_aet=exporter.storage_commitment_scp or "",
        study_instance_uid=task.study_instance_uid or "",
        series_instance_uid=task.series_instance_uid,
        sop_instance_uid=task.sop_instance_uid,
        exporter_id=exporter.exporter_id,
        batch_id=task.batch_id,
        commitment=CommitmentDetails(
            export_task_pk=task.pk if sent else None,
            export_round=task.round if sent else None,
            after_committed=after,
        ),
    )


def notifications(
    task: Task | NewTask, exporter: "Exporter", snapshot: "Snapshot"
) -> tuple[NewTask, ...]:
    """Return one availability notification per dcmIanDestination."""
    sent = exporter.scheme == "dicom"
    details = IanDetails(
        retrieve_aets=exporter.retrieve_aets or _retrieve_aets(exporter, snapshot, sent=sent),
        instance_availability=exporter.instance_availability,
        retrieve_location_uid=exporter.retrieve_location_uid,
        held_by_exporter=exporter.exporter_id if sent else None,
    )
    return tuple(
        NewTask(
            kind=TaskKind.IAN,
            queue_name=IAN_QUEUE,
            device_name=task.device_name,
            local_aet=exporter.aet or task.local_aet or "",
            remote_aet=destination,
            study_instance_uid=task.study_instance_uid or "",
            exporter_id=exporter.exporter_id,
            batch_id=task.batch_id,
            ian=details,
        )
        for destination in dict.fromkeys(exporter.ian_destinations)
    )


def _retrieve_aets(exporter: "Exporter", snapshot: "Snapshot", *, sent: bool) -> tuple[str, ...]:
    if sent:
        return (exporter.destination,)
    local = snapshot.device.aes.get(exporter.aet or "")
    configured = (local.retrieve_aets if local else ()) or snapshot.device.retrieve_aets
    return configured or (exporter.aet or snapshot.device.name,)
