"""Storage commitment (PS3.4 Annex J): data sets, failure reasons, and what follows an open end.

Pure. A request lists instances under a Transaction UID of its own; the report that answers it
may come at any time, on any association, more than once, or never. What is still open when the
deadline of a request is over goes up a ladder: asked again, sent again, given up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from pydicom.dataset import Dataset

from archive.errors import InvalidValueError
from archive.model.durations import parse_duration
from archive.model.identifiers import check_ae_title, check_uid

STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 §J.3.2.1.1)."""

DEFAULT_DEADLINE_S = 3600.0
DEFAULT_MAX_INSTANCES = 10_000
DEFAULT_LINGER_S = 1.0


class EventType(IntEnum):
    """Event Type ID of a report (PS3.4 §J.3.3.1.1)."""

    ALL_COMMITTED = 1
    FAILURES_EXIST = 2


class CommitmentStatus(StrEnum):
    """Where a request stands, spelt as the reference does."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    WARNING = "WARNING"
    FAILED = "FAILED"


class Step(StrEnum):
    """What is done about an instance that is not committed when its request is due."""

    ASK_AGAIN = "ASK AGAIN"
    RESEND = "RESEND"
    GIVE_UP = "GIVE UP"


class Rung(IntEnum):
    """How far up the ladder a request is."""

    ASKED = 1
    ASKED_AGAIN = 2
    RESENT = 3


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of a report (PS3.3 §C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


_MEANINGS: Mapping[int, str] = {
    FailureReason.PROCESSING_FAILURE: "processing failure",
    FailureReason.NO_SUCH_OBJECT_INSTANCE: "no such object instance",
    FailureReason.CLASS_INSTANCE_CONFLICT: "class/instance conflict",
    FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    FailureReason.DUPLICATE_TRANSACTION_UID: "duplicate Transaction UID",
    FailureReason.RESOURCE_LIMITATION: "resource limitation",
}
_HOPELESS = frozenset(
    {
        FailureReason.CLASS_INSTANCE_CONFLICT,
        FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED,
    }
)

MAY_PASS = frozenset(
    {
        FailureReason.PROCESSING_FAILURE,
        FailureReason.DUPLICATE_TRANSACTION_UID,
        FailureReason.RESOURCE_LIMITATION,
    }
)
"""Reasons that time alone may remove: nothing is done about them before the deadline."""


def reason_words(reason: int | None) -> str:
    """Return a failure reason for an administrator; None: nothing was reported."""
    if reason is None:
        return "not reported"
    return f"{reason:04X} {_MEANINGS.get(reason, 'reason not defined by the standard')}"


def next_step(rung: int, reason: int | None, *, can_resend: bool) -> Step:
    """Return what follows for an instance that is not committed.

    Parameters
    ----------
    rung
        How far up the ladder its request was.
    reason
        Failure Reason of the report; None when no report named the instance.
    can_resend
        Whether this archive delivered the instance and could do so again.
    """
    if reason in _HOPELESS or rung >= Rung.RESENT:
        return Step.GIVE_UP
    lost = reason == FailureReason.NO_SUCH_OBJECT_INSTANCE
    if rung == Rung.ASKED and not lost:
        return Step.ASK_AGAIN
    return Step.RESEND if can_resend else Step.GIVE_UP


@dataclass(frozen=True, slots=True)
class CommitmentPolicy:
    """Properties of an exporter that say how its commitments are followed up.

    Attributes
    ----------
    deadline_s
        StgCmtDeadline: seconds to wait for a report.
    max_instances
        StgCmtMaxInstances: most instances in one request; a larger study takes several.
    linger_s
        StgCmtSameAssociation: seconds for which the association of the request is held open for
        a report that comes on it.
    ian_after_commitment
        IANAfter=commitment: notifications wait until everything delivered is committed.
    """

    deadline_s: float = DEFAULT_DEADLINE_S
    max_instances: int = DEFAULT_MAX_INSTANCES
    linger_s: float = DEFAULT_LINGER_S
    ian_after_commitment: bool = False

    @classmethod
    def parse(cls, properties: Iterable[tuple[str, str]]) -> "CommitmentPolicy":
        """Read the policy from dcmProperty values; others are left alone.

        Raises
        ------
        InvalidValueError
            When one of the values cannot be read; the message names it.
        """
        values = dict(properties)
        return cls(
            deadline_s=_duration(values, "StgCmtDeadline", DEFAULT_DEADLINE_S),
            max_instances=_count(values, "StgCmtMaxInstances", DEFAULT_MAX_INSTANCES),
            linger_s=_duration(values, "StgCmtSameAssociation", DEFAULT_LINGER_S),
            ian_after_commitment=_choice(
                values, "IANAfter", {"export": False, "commitment": True}, default=False
            ),
        )


def _duration(values: Mapping[str, str], name: str, default: float) -> float:
    if name not in values:
        return default
    try:
        return parse_duration(values[name])
    except ValueError as error:
        msg = f"{name}={values[name]}: {error}"
        raise InvalidValueError(msg) from error


def _count(values: Mapping[str, str], name: str, default: int) -> int:
    text = values.get(name, str(default))
    if text.isdecimal() and int(text) > 0:
        return int(text)
    msg = f"{name}={text}: not a whole number above 0"
    raise InvalidValueError(msg)


def _choice(
    values: Mapping[str, str], name: str, choices: Mapping[str, bool], *, default: bool
) -> bool:
    if name not in values:
        return default
    if values[name].lower() in choices:
        return choices[values[name].lower()]
    msg = f"{name}={values[name]}: not one of {', '.join(choices)}"
    raise InvalidValueError(msg)


@dataclass(frozen=True, slots=True)
class SopReference:
    """An instance as requests and reports name it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class ReportedInstance:
    """What a report says of one instance.

    Attributes
    ----------
    failure_reason
        None: committed.
    retrieve_aet
        Retrieve AE Title of a committed instance, None when the report names none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    failure_reason: int | None = None
    retrieve_aet: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Event Information of an N-EVENT-REPORT (PS3.4 table J.3-2)."""

    transaction_uid: str
    instances: tuple[ReportedInstance, ...]

    @property
    def failures(self) -> int:
        """How many instances are reported as not committed."""
        return sum(each.failure_reason is not None for each in self.instances)

    @property
    def event_type(self) -> EventType:
        """Event Type ID under which the report is sent."""
        return EventType.FAILURES_EXIST if self.failures else EventType.ALL_COMMITTED


def request_dataset(transaction_uid: str, references: Sequence[SopReference]) -> Dataset:
    """Return the Action Information of a request (PS3.4 table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [
        _item(each.sop_class_uid, each.sop_instance_uid) for each in references
    ]
    return dataset


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


class Readable(Protocol):
    """A data set, or what can be asked like one."""

    def get(self, name: str, default: Any, /) -> Any:  # noqa: ANN401 - as Dataset.get
        """Return the value of an element by its keyword."""
        ...


def read_request(dataset: Readable) -> tuple[str, tuple[SopReference, ...]]:
    """Return Transaction UID and references of an Action Information.

    Raises
    ------
    InvalidValueError
        When the Transaction UID or a reference is missing or no UID.
    """
    transaction_uid = check_uid(str(dataset.get("TransactionUID", "") or ""), "Transaction UID")
    references = tuple(
        SopReference(
            str(item.get("ReferencedSOPClassUID", "") or ""),
            check_uid(
                str(item.get("ReferencedSOPInstanceUID", "") or ""), "Referenced SOP Instance UID"
            ),
        )
        for item in dataset.get("ReferencedSOPSequence", None) or ()
    )
    if not references:
        msg = "Referenced SOP Sequence (0008,1199) is missing or empty"
        raise InvalidValueError(msg)
    return transaction_uid, references


def report_dataset(report: Report) -> Dataset:
    """Return the Event Information of a report; both sequences together name every reference."""
    dataset, common = event_head(report)
    committed = [each for each in report.instances if each.failure_reason is None]
    if committed:
        dataset.ReferencedSOPSequence = [_committed_item(each, common) for each in committed]
    failed = [_failed_item(each) for each in report.instances if each.failure_reason is not None]
    if failed:
        dataset.FailedSOPSequence = failed
    return dataset


def event_head(report: Report) -> tuple[Dataset, str | None]:
    """Return an Event Information without its sequences, and the title that stands in it.

    Retrieve AE Title stands once for all when it is the same for all committed instances.
    """
    dataset = Dataset()
    dataset.TransactionUID = report.transaction_uid
    titles = {each.retrieve_aet for each in report.instances if each.failure_reason is None}
    common = next(iter(titles)) if len(titles) == 1 else None
    if common:
        dataset.RetrieveAETitle = common
    return dataset, common


def _committed_item(instance: ReportedInstance, common: str | None) -> Dataset:
    item = _item(instance.sop_class_uid, instance.sop_instance_uid)
    if instance.retrieve_aet and instance.retrieve_aet != common:
        item.RetrieveAETitle = instance.retrieve_aet
    return item


def _failed_item(instance: ReportedInstance) -> Dataset:
    item = _item(instance.sop_class_uid, instance.sop_instance_uid)
    item.FailureReason = instance.failure_reason
    return item


def read_report(dataset: Readable) -> Report:
    """Return what an Event Information says; lenient, because every report has to be used.

    An instance that both sequences name counts as failed. A failure without a reason counts as
    processing failure.

    Raises
    ------
    InvalidValueError
        When it has no Transaction UID.
    """
    transaction_uid = check_uid(str(dataset.get("TransactionUID", "") or ""), "Transaction UID")
    common = _title(dataset)
    instances: dict[str, ReportedInstance] = {}
    for item in dataset.get("ReferencedSOPSequence", None) or ():
        sop_class, uid = _names(item)
        instances[uid] = ReportedInstance(sop_class, uid, None, _title(item) or common)
    for item in dataset.get("FailedSOPSequence", None) or ():
        sop_class, uid = _names(item)
        reason = item.get("FailureReason", None)
        code = FailureReason.PROCESSING_FAILURE if reason is None else int(reason)
        instances[uid] = ReportedInstance(sop_class, uid, code)
    instances.pop("", None)
    return Report(transaction_uid, tuple(instances.values()))


def _names(item: Readable) -> tuple[str, str]:
    sop_class = str(item.get("ReferencedSOPClassUID", "") or "")
    return sop_class, str(item.get("ReferencedSOPInstanceUID", "") or "").rstrip("\0 ")


def _title(dataset: Readable) -> str | None:
    """Return the first Retrieve AE Title, None when there is none that can be used."""
    value = dataset.get("RetrieveAETitle", None)
    first = value if isinstance(value, str) or not value else value[0]
    try:
        return check_ae_title(str(first), "Retrieve AE Title") if first else None
    except InvalidValueError:
        return None


@dataclass(frozen=True, slots=True)
class OpenInstance:
    """An instance of a due request that nobody has committed."""

    instance_pk: int
    sop_instance_uid: str
    failure_reason: int | None


def escalation(
    rung: int, instances: Iterable[OpenInstance], *, can_resend: bool
) -> dict[Step, list[OpenInstance]]:
    """Return what is done about each instance of a request whose deadline is over."""
    steps: dict[Step, list[OpenInstance]] = {step: [] for step in Step}
    for instance in instances:
        step = next_step(rung, instance.failure_reason, can_resend=can_resend)
        steps[step].append(instance)
    return steps


def reasons_text(instances: Iterable[OpenInstance]) -> str:
    """Return how many instances have which reason, for messages."""
    counts: dict[str, int] = {}
    for instance in instances:
        words = reason_words(instance.failure_reason)
        counts[words] = counts.get(words, 0) + 1
    return ", ".join(f"{words}: {count}" for words, count in sorted(counts.items()))
