"""Performs retrieves: the sub-operations of a C-MOVE that came in, or a C-MOVE of our own.

The counters are in the task's detail row while the attempt runs, and so is the final status: the
SCP answers its requestor with it. A retrieve that somebody waits for is therefore not repeated
once it has a final status; one whose worker dies is, because nobody was answered.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from archive.errors import ConfigurationError
from archive.ledger import retrievals
from archive.ledger.retrievals import RetrieveRequest, RetrieveRole
from archive.model.retrieval import (
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    comment,
    final_status,
)
from archive.model.retrieval_plan import (
    Forward,
    ForwardPolicy,
    ForwardReason,
    RetrievePlan,
    plan_retrieve,
)
from archive.model.status import Service, StatusClass, classify
from archive.model.task import Failure, Outcome, Task, TaskStatus
from workers.completing import lacks_something
from workers.contexts import plan_contexts
from workers.move_forward import ForwardEnd, perform_forward
from workers.processor import StopReason
from workers.retrieve_job import RetrieveJob, send_from_here
from workers.retrieve_progress import Progress
from workers.retrieve_request import perform_request
from workers.route import NotConfiguredError, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import NetworkAE, Snapshot
    from workers.processor import TaskContext

_SHOWN_PROBLEMS = 3


class RetrieveProcessor:
    """Performs one attempt of a retrieve."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Perform the retrieve.

        Raises
        ------
        NotConfiguredError
            When an archive that is to be asked is missing in the directory.
        LedgerError
            When counters could not be recorded.
        """
        with context.ledger.transaction() as tx:
            request = retrievals.begin(tx, task)
        if request.role is RetrieveRole.SCU:
            return perform_request(task, request, context)
        return _serve(task, request, context)


def _serve(task: Task, request: RetrieveRequest, context: "TaskContext") -> Outcome:
    """Deliver what a C-MOVE asked for, from here and from elsewhere."""
    try:
        local = serving_ae(context.snapshot, task.local_aet or "")
        destination = remote_ae(context.snapshot, request.destination_aet, "a C-MOVE")
    except ConfigurationError as error:
        refusal = RetrieveResult(
            RetrieveStatus.CANNOT_PERFORM, SubOperations(), (), comment(str(error))
        )
        Progress(task, context, 0).write(refusal, status=refusal.status)
        return Outcome(TaskStatus.FAILED, str(error), Failure.PERMANENT)
    plan = _plan(request, local, context)
    progress = Progress(task, context, len(plan.local) + len(plan.unreachable))
    job = RetrieveJob(task, request, context, local, destination, progress)
    kept = _restricted(job, plan)
    with progress.told():
        ends = _perform(job, kept)
    return _conclude(job, plan, ends)


def serving_ae(snapshot: "Snapshot", called_aet: str) -> "NetworkAE":
    """Return the own AE that answers to a called AE title.

    Raises
    ------
    NotConfiguredError
        When the device has no such AE any more.
    """
    for ae in snapshot.device.aes.values():
        if ae.title == called_aet or called_aet in ae.other_titles or "*" in ae.other_titles:
            return ae
    msg = f"device {snapshot.device.name} has no AE {called_aet} any more"
    raise NotConfiguredError(msg)


def _plan(request: RetrieveRequest, local: "NetworkAE", context: "TaskContext") -> RetrievePlan:
    storage_ids = tuple(context.snapshot.device.storages)
    policy = forward_policy(local)
    with context.ledger.transaction() as tx:
        matches = retrievals.matches(tx, request.identifier, storage_ids)
        may_fetch = bool(matches and policy.fallback_c_move_scp and policy.fallback_destination)
        is_incomplete = may_fetch and lacks_something(tx, request.identifier, local)
    return plan_retrieve(
        request.identifier,
        matches,
        policy,
        requester_aet=request.move_originator_aet or "",
        is_incomplete=is_incomplete,
    )


def forward_policy(local: "NetworkAE") -> ForwardPolicy:
    """Return what the directory says about forwarding for an AE (its device's values included)."""
    return ForwardPolicy(
        external_destination=local.external_retrieve_ae_destination,
        alt_c_move_scp=local.alt_c_move_scp,
        fallback_c_move_scp=local.fallback_c_move_scp,
        fallback_destination=local.fallback_c_move_scp_destination,
        fallback_calling_aet=local.fallback_c_move_scp_calling_aet,
    )


def _restricted(job: RetrieveJob, plan: RetrievePlan) -> RetrievePlan:
    """Return the plan without what the destination's capabilities exclude, where that is silent.

    dcmRestrictRetrieveSilently takes such instances out of the total; otherwise they are counted
    as failed when they are to be sent.
    """
    if not job.local.restrict_retrieve_silently:
        return plan
    stored = [(i.sop_class_uid, i.file.transfer_syntax_uid) for i in plan.local if i.file]
    excluded = plan_contexts(stored, job.local, job.destination).excluded
    kept = tuple(
        each
        for each in plan.local
        if each.file and (each.sop_class_uid, each.file.transfer_syntax_uid) not in excluded
    )
    job.progress.drop(len(plan.local) - len(kept))
    return RetrievePlan(kept, plan.forwards, plan.unreachable)


def _perform(job: RetrieveJob, plan: RetrievePlan) -> list[ForwardEnd]:
    """Send from here and forward side by side; return how the forwards ended."""
    for uid, reason in plan.unreachable.items():
        job.progress.failed(uid, reason)
    for forward in plan.forwards:
        job.progress.expect(forward.remote_aet, len(forward.expected))
    if not plan.forwards:
        send_from_here(job, plan.local)
        return []
    with ThreadPoolExecutor(len(plan.forwards), "forward") as pool:
        running = [
            pool.submit(perform_forward, job, forward, _sent_otherwise(plan, forward))
            for forward in plan.forwards
        ]
        send_from_here(job, plan.local)
        return [each.result() for each in running]


def _sent_otherwise(plan: RetrievePlan, forward: Forward) -> frozenset[str]:
    """Return the objects that are sent from here or brought by another forward."""
    others = (each.expected for each in plan.forwards if each is not forward)
    brought = (match.instance.sop_instance_uid for expected in others for match in expected)
    return frozenset((*(each.sop_instance_uid for each in plan.local), *brought))


def _conclude(job: RetrieveJob, plan: RetrievePlan, ends: Sequence[ForwardEnd]) -> Outcome:
    """Write the final counters down and return the outcome."""
    reason = job.context.stop_signal.reason
    counts = job.progress.counts()
    message = _message(job, counts)
    unfinished = any(_is_unfinished(end) for end in ends)
    if reason is not None and (counts.remaining or unfinished):
        if reason is StopReason.CANCELED:
            result = RetrieveResult(RetrieveStatus.CANCELED, counts, job.progress.failed_uids())
            job.progress.write(result, status=result.status)
        return Outcome(TaskStatus.CANCELED, message)
    result = _relayed(plan, ends, job) or _result(job, counts.settled(), ends)
    job.progress.write(result, status=result.status)
    if not plan.total and not plan.forwards:
        message = f"{message}: nothing of it is known here and {_NO_FALLBACK}"
    status_class = classify(Service.C_MOVE, result.status).status_class
    if status_class is StatusClass.SUCCESS:
        return Outcome(TaskStatus.COMPLETED, message)
    warned = status_class is StatusClass.WARNING
    status = TaskStatus.WARNING if warned else TaskStatus.FAILED
    return Outcome(status, _message(job, result.counts), Failure.PERMANENT)


def _is_unfinished(end: ForwardEnd) -> bool:
    return end.result is None or end.result.status == RetrieveStatus.CANCELED


def _fallback_failed(end: ForwardEnd) -> bool:
    answered = {RetrieveStatus.SUCCESS, RetrieveStatus.SOME_FAILED}
    is_fallback = end.forward.reason is ForwardReason.FALLBACK
    return is_fallback and (end.result is None or end.result.status not in answered)


_NO_FALLBACK = "no dcmFallbackCMoveSCP is configured"


def _result(job: RetrieveJob, counts: SubOperations, ends: Sequence[ForwardEnd]) -> RetrieveResult:
    """Return the final result that the counters lead to.

    When the fallback archive could not be asked for what may be missing here, nobody knows
    whether all was sent: that is no success.
    """
    problems = job.progress.problems
    status = final_status(counts)
    if not counts.done and problems:
        status = RetrieveStatus.CANNOT_PERFORM
    elif status == RetrieveStatus.SUCCESS and any(map(_fallback_failed, ends)):
        status = RetrieveStatus.SOME_FAILED
    words = comment(problems[0]) if problems and status != RetrieveStatus.SUCCESS else ""
    failed = job.progress.failed_uids() if counts.failed else ()
    return RetrieveResult(status, counts, failed, words)


def _relayed(
    plan: RetrievePlan, ends: Sequence[ForwardEnd], job: RetrieveJob
) -> RetrieveResult | None:
    """Return another archive's refusal when nothing but it had to answer (proxy).

    Its word about the requestor's own destination or identifier is the answer then.
    """
    if plan.local or plan.unreachable or len(ends) != 1 or ends[0].result is None:
        return None
    forward: Forward = ends[0].forward
    result = ends[0].result
    if forward.through_aet is not None or result.status not in _REFUSALS:
        return None
    counts = job.progress.counts().settled()
    return RetrieveResult(
        result.status, counts, job.progress.failed_uids(), comment(result.error_comment)
    )


_REFUSALS = frozenset(
    {
        RetrieveStatus.CANNOT_COUNT,
        RetrieveStatus.DESTINATION_UNKNOWN,
        RetrieveStatus.IDENTIFIER_MISMATCH,
    }
)


def _message(job: RetrieveJob, counts: SubOperations) -> str:
    """Return the outcome in one sentence."""
    request = job.request
    subject = (
        f"C-MOVE of {request.identifier.words()} to {request.destination_aet} "
        f"for {request.move_originator_aet}"
    )
    named = (
        ("completed", counts.completed),
        ("warning", counts.warning),
        ("failed", counts.failed),
        ("remaining", counts.remaining),
    )
    numbers = " ".join(f"{name}:{n}" for name, n in named if n or name == "completed")
    return "; ".join((f"{subject}: {numbers}", *job.progress.problems[:_SHOWN_PROBLEMS]))
