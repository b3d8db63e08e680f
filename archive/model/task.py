"""Tasks: what has to be done, where it stands, and which changes of status are legal.

Two rules head this file. Everything about transitions is in `TRANSITIONS`; the SQL schema holds
the same pairs and a test compares them. This file does not know who performs a transition.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from archive.errors import IllegalTransitionError


class TaskKind(StrEnum):
    """What a task does; each kind has its own detail table and processor."""

    EXPORT = "EXPORT"
    IAN = "IAN"
    STGCMT_SCU = "STGCMT_SCU"
    STGCMT_SCP = "STGCMT_SCP"
    RETRIEVE = "RETRIEVE"
    LEADING_CFIND = "LEADING_CFIND"


class TaskStatus(StrEnum):
    """Where a task stands, spelt as administrators know it from dcm4chee."""

    SCHEDULED = "SCHEDULED"
    IN_PROCESS = "IN PROCESS"
    COMPLETED = "COMPLETED"
    WARNING = "WARNING"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    SCHEDULED_FOR_RETRY = "SCHEDULED FOR RETRY"

    @property
    def is_final(self) -> bool:
        """Whether nothing but an operator's reschedule leads out of this status."""
        return self in FINAL_STATUSES

    @property
    def is_waiting(self) -> bool:
        """Whether a task in this status is waiting to be claimed by a worker."""
        return self in WAITING_STATUSES


FINAL_STATUSES = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.WARNING, TaskStatus.FAILED, TaskStatus.CANCELED}
)
WAITING_STATUSES = frozenset({TaskStatus.SCHEDULED, TaskStatus.SCHEDULED_FOR_RETRY})


class TaskEvent(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    COMPLETE = "complete"
    WARN = "warn"
    FAIL = "fail"
    RETRY = "retry"
    RELEASE = "release"
    CANCEL = "cancel"
    RESCHEDULE = "reschedule"


_S = TaskStatus
_E = TaskEvent

TRANSITIONS: dict[TaskStatus, dict[TaskEvent, TaskStatus]] = {
    _S.SCHEDULED: {
        _E.CLAIM: _S.IN_PROCESS,
        _E.CANCEL: _S.CANCELED,
        _E.RESCHEDULE: _S.SCHEDULED,
    },
    _S.SCHEDULED_FOR_RETRY: {
        _E.CLAIM: _S.IN_PROCESS,
        _E.CANCEL: _S.CANCELED,
        _E.RESCHEDULE: _S.SCHEDULED,
    },
    _S.IN_PROCESS: {
        _E.COMPLETE: _S.COMPLETED,
        _E.WARN: _S.WARNING,
        _E.FAIL: _S.FAILED,
        _E.RETRY: _S.SCHEDULED_FOR_RETRY,
        _E.RELEASE: _S.SCHEDULED_FOR_RETRY,
        _E.CANCEL: _S.CANCELED,
    },
    _S.COMPLETED: {_E.RESCHEDULE: _S.SCHEDULED},
    _S.WARNING: {_E.RESCHEDULE: _S.SCHEDULED},
    _S.FAILED: {_E.RESCHEDULE: _S.SCHEDULED},
    _S.CANCELED: {_E.RESCHEDULE: _S.SCHEDULED},
}


def next_status(status: TaskStatus, event: TaskEvent) -> TaskStatus:
    """Return the status that `event` leads to.

    Raises
    ------
    IllegalTransitionError
        When the table has no such transition; the task is then left as it is.
    """
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        msg = f"a task that is {status} cannot {event}"
        raise IllegalTransitionError(msg) from None


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the ledger's task table.

    Attributes
    ----------
    attempt
        Fencing number: raised whenever the task is handed to the broker; only the holder of the
        current number may claim, report on or finish the task.
    round
        Raised when a completed task is rescheduled: a new round sends everything again, while
        retries within a round send only what is missing.
    failures
        Unsuccessful attempts so far (`failures` of the reference's JSON).
    follow_up_only
        True for tasks staged by rules: instances that the exporter delivered before are left out.
    series_instance_uid, sop_instance_uid
        None for the whole study (series).
    """

    pk: int
    kind: TaskKind
    queue_name: str
    device_name: str
    status: TaskStatus
    created_time: datetime
    updated_time: datetime
    scheduled_time: datetime
    attempt: int
    failures: int
    round: int
    follow_up_only: bool
    cancel_requested: bool
    start_time: datetime | None = None
    end_time: datetime | None = None
    worker: str | None = None
    batch_id: str | None = None
    local_aet: str | None = None
    remote_aet: str | None = None
    exporter_id: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    error_message: str | None = None
    outcome_message: str | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What travels through the broker: which task, in which attempt."""

    task_pk: int
    attempt: int


@dataclass(frozen=True, slots=True)
class WaitingQueue:
    """A queue with tasks that were not handed to the broker yet.

    Attributes
    ----------
    due_in_s
        Seconds until the earliest of them is due by the database's clock; negative: overdue.
    now
        The present time by that clock.
    """

    name: str
    due_in_s: float
    now: datetime


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of a task's history; `from_status` is None where the status did not change."""

    time: datetime
    from_status: TaskStatus | None
    to_status: TaskStatus
    attempt: int
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be staged.

    Attributes
    ----------
    due_in_s
        Seconds from the database's present time until the task may run.
    ian
        Details of an IAN task; None for other kinds.
    commitment
        Details of an STGCMT_SCU task; None for other kinds.
    """

    kind: TaskKind
    queue_name: str
    device_name: str
    local_aet: str
    remote_aet: str
    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    exporter_id: str | None = None
    batch_id: str | None = None
    due_in_s: float = 0.0
    ian: "IanDetails | None" = None
    commitment: "CommitmentDetails | None" = None


@dataclass(frozen=True, slots=True)
class IanDetails:
    """What an IAN task announces, fixed when it is staged (PS3.3 §C.4.23).

    Attributes
    ----------
    retrieve_aets
        Retrieve AE Title (0008,0054), never empty: it is type 1.
    instance_availability
        ONLINE, NEARLINE, OFFLINE or UNAVAILABLE.
    retrieve_location_uid
        Retrieve Location UID (0040,E011), if configured.
    held_by_exporter
        Announce the instances that this exporter delivered; None: all of the study.
    mpps_sop_instance_uid
        Performed procedure step that the notification refers to.
    unavailable_sop_instance_uids
        Rejected instances, which are announced as UNAVAILABLE beside the others.
    sop_instance_uids
        Announce these instances only; none: all.
    """

    retrieve_aets: tuple[str, ...]
    instance_availability: str
    retrieve_location_uid: str | None = None
    held_by_exporter: str | None = None
    mpps_sop_instance_uid: str | None = None
    unavailable_sop_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitmentDetails:
    """What an STGCMT_SCU task asks for (PS3.4 Annex J).

    Attributes
    ----------
    export_task_pk, export_round
        Ask for what that export delivered in that round.
    held_by_exporter
        Without an export: ask for what this exporter delivered; None: all of the entity.
    again_of
        Ask again for what is open of that request.
    rung
        How far up the ladder of `archive.model.commitment.Rung` this is.
    after_committed
        Tasks that follow once all that the exporter delivered of the study is committed.
    verdict
        Nothing is asked any more: the task fails with these words.
    """

    export_task_pk: int | None = None
    export_round: int | None = None
    held_by_exporter: str | None = None
    again_of: int | None = None
    rung: int = 1
    after_committed: tuple["NewTask", ...] = ()
    verdict: str | None = None


class ExportEntity(StrEnum):
    """What an export rule exports, `dcmEntity` (coarser ones absorb finer ones)."""

    STUDY = "Study"
    SERIES = "Series"
    INSTANCE = "Instance"


@dataclass(frozen=True, slots=True)
class ExportIntent:
    """One export that the rules demand for a received object.

    Attributes
    ----------
    entity
        Study, Series or Instance: how much the staged task covers.
    due_in_s
        Seconds from now until the quiet period (dcmDuration) and the exporter's schedule allow it.
    reoccurred
        dcmExportReoccurredInstances of the rule that demanded it: NEVER, ALWAYS or REPLACE.
    """

    exporter_id: str
    queue_name: str
    device_name: str
    local_aet: str
    remote_aet: str
    entity: ExportEntity
    due_in_s: float
    reoccurred: str = "REPLACE"
    rule_name: str = ""
    previous_entity: bool = False


class Failure(StrEnum):
    """Whether doing the same again can help."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt of a task ended, before the queue's retry policy is applied.

    Attributes
    ----------
    status
        COMPLETED, WARNING, FAILED or CANCELED.
    failure
        For WARNING and FAILED: whether another attempt can help.
    message
        One sentence with counts for the administrator.
    follow_ups
        Tasks to stage in the transaction that makes this outcome final (IAN, commitment).
    unreached
        Nothing was done because the destination could not be reached or did not answer.
    """

    status: TaskStatus
    message: str
    failure: Failure | None = None
    follow_ups: tuple[NewTask, ...] = field(default=())
    unreached: bool = False
