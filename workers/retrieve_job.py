"""What the parts of a retrieve share, and sending to its move destination."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.ledger.retrievals import RetrieveRequest
from archive.model.entities import InstanceToSend
from archive.model.task import Task
from workers.contexts import ContextPlan, plan_contexts
from workers.delivery import Courier, Supply
from workers.dimse import MoveOriginator
from workers.export import associations_for, grouped
from workers.retrieve_progress import MoveRecorder, Progress
from workers.route import Route, find_route
from workers.transcoding import Transcoder

if TYPE_CHECKING:
    from archive.configuration.descriptors import NetworkAE
    from workers.processor import TaskContext


@dataclass(frozen=True, slots=True)
class RetrieveJob:
    """A retrieve being performed.

    Attributes
    ----------
    local, destination
        Between which AEs the C-STORE sub-operations run.
    """

    task: Task
    request: RetrieveRequest
    context: "TaskContext"
    local: "NetworkAE"
    destination: "NetworkAE"
    progress: Progress

    @property
    def originator(self) -> MoveOriginator | None:
        """The C-MOVE that came in, for its sub-operations (PS3.4 §C.4.2.3.1)."""
        aet, message_id = (
            self.request.move_originator_aet,
            self.request.move_originator_message_id,
        )
        if aet is None or message_id is None:
            return None
        return MoveOriginator(aet, message_id, self.request.priority)

    @property
    def route(self) -> Route:
        """Way to the move destination; the requestor's word for us is the calling AE title."""
        return find_route(self.local, self.destination, self.task.local_aet)

    def recorder(self) -> MoveRecorder:
        """Return a recorder that feeds the counters."""
        return MoveRecorder(self.task, self.context, self.progress)

    def courier(self, plan: ContextPlan, transcoder: Transcoder) -> Courier:
        """Return what sends to the move destination."""
        return Courier(self.route, plan, transcoder, self.context, originator=self.originator)

    def plan(self, stored: Iterable[tuple[str, str]]) -> ContextPlan:
        """Return the presentation contexts for (SOP class, transfer syntax) pairs."""
        return plan_contexts(stored, self.local, self.destination)


def send_from_here(job: RetrieveJob, instances: Sequence[InstanceToSend]) -> None:
    """Send instances with a local file to the move destination; every result is counted.

    What could not be tried because the destination does not answer has failed; what was left
    because of a cancel remains.
    """
    if not instances:
        return
    plan = job.plan(
        (each.sop_class_uid, each.file.transfer_syntax_uid) for each in instances if each.file
    )
    sendable = [each for each in instances if not set_aside(job, plan, each)]
    recorder = job.recorder()
    lanes = associations_for(job.destination.title, job.local, job.context.snapshot.device)
    with Transcoder() as transcoder:
        courier = job.courier(plan, transcoder)
        for contexts, members in grouped(sendable, plan.groups):
            if recorder.tally.stopped_by is None:
                waiting: Supply = deque(members)
                courier.deliver(contexts, waiting, recorder, lanes)
    stopped_by = recorder.tally.stopped_by
    if stopped_by is not None:
        fail_rest(job, sendable, str(stopped_by))


def set_aside(job: RetrieveJob, plan: ContextPlan, instance: InstanceToSend) -> bool:
    """Tell whether an instance cannot be sent as negotiated; it is counted then."""
    if instance.file is None:
        return False
    key = (instance.sop_class_uid, instance.file.transfer_syntax_uid)
    reason = plan.excluded.get(key)
    if reason is None:
        return False
    job.progress.failed(instance.sop_instance_uid, reason)
    return True


def fail_rest(job: RetrieveJob, instances: Iterable[InstanceToSend], reason: str) -> None:
    """Count what has not come to an end as failed."""
    for instance in instances:
        if not job.progress.has_ended(instance.sop_instance_uid):
            job.progress.failed(instance.sop_instance_uid, reason)
