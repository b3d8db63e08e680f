"""One answer for a study: what was received, and how far it came at every destination. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from archive.model.commitment import reason_words


class Stage(StrEnum):
    """How far an instance came; each one includes those before it."""

    RECEIVED = "received"
    EXPORTED = "exported"
    ACKNOWLEDGED = "acknowledged"
    COMMITTED = "committed"
    NOTIFIED = "notified"


@dataclass(frozen=True, slots=True)
class InstanceProgress:
    """How far an instance came on its way to one exporter's destination.

    Attributes
    ----------
    delivered
        None: not tried.
    committed
        None: not asked for, or not reported.
    commitment_aet
        AE that was asked; None: not asked.
    """

    exporter_id: str
    remote_aet: str
    sop_instance_uid: str
    delivered: bool | None
    dimse_status: int | None
    message: str | None
    commitment_aet: str | None
    committed: bool | None
    failure_reason: int | None
    step: str | None


@dataclass(frozen=True, slots=True)
class LatestTask:
    """The latest task of a kind for an exporter and a destination."""

    exporter_id: str | None
    kind: str
    remote_aet: str | None
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an exporter is configured to see to beyond delivery."""

    commitment_aet: str | None = None
    ian_destinations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lagging:
    """An instance that lacks a stage, and why.

    Attributes
    ----------
    stage
        The first stage that it has not reached.
    aet
        Whose answer is missing.
    """

    sop_instance_uid: str
    stage: Stage
    aet: str
    why: str


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How far a study came at one exporter's destination.

    Attributes
    ----------
    demanded
        Instances that the exporter has to deliver.
    committed, notified
        Counts; None where nothing of the kind is expected or was ever done.
    """

    exporter_id: str
    remote_aet: str
    demanded: int
    exported: int
    acknowledged: int
    committed: int | None
    notified: Mapping[str, int]
    lagging: tuple[Lagging, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.lagging


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The answer for a study.

    Attributes
    ----------
    received
        Instances in use.
    rejected
        Instances hidden by rejection notes.
    """

    study_instance_uid: str
    created_time: datetime
    received: int
    rejected: int
    destinations: tuple[DestinationState, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every destination has all that it should have."""
        return all(each.is_complete for each in self.destinations)


@dataclass(frozen=True, slots=True)
class Records:
    """What the ledger knows beside the progress of the instances.

    Attributes
    ----------
    notified
        (exporter, notified AE) to the SOP Instance UIDs that were announced.
    """

    tasks: Collection[LatestTask]
    notified: Mapping[tuple[str | None, str], Collection[str]]


def destination_states(
    progress: Iterable[InstanceProgress],
    records: Records,
    expectations: Mapping[str, Expectation],
) -> tuple[DestinationState, ...]:
    """Return the state of each exporter's destination."""
    by_exporter: dict[str, list[InstanceProgress]] = {}
    for each in progress:
        by_exporter.setdefault(each.exporter_id, []).append(each)
    return tuple(
        _state(members, records, expectations.get(exporter_id, Expectation()))
        for exporter_id, members in by_exporter.items()
    )


def _state(
    members: list[InstanceProgress], records: Records, expectation: Expectation
) -> DestinationState:
    first = members[0]
    asked = expectation.commitment_aet or next(
        (each.commitment_aet for each in members if each.commitment_aet), None
    )
    aets = _notified_aets(first.exporter_id, records, expectation)
    told = {aet: set(records.notified.get((first.exporter_id, aet), ())) for aet in aets}
    lagging = [
        late
        for each in members
        if (late := _lag(each, asked, told, _Tasks(first.exporter_id, records.tasks)))
    ]
    uids = {each.sop_instance_uid for each in members}
    return DestinationState(
        exporter_id=first.exporter_id,
        remote_aet=first.remote_aet,
        demanded=len(members),
        exported=sum(each.delivered is not None for each in members),
        acknowledged=sum(each.delivered is True for each in members),
        committed=sum(each.committed is True for each in members) if asked else None,
        notified={aet: len(uids & known) for aet, known in told.items()},
        lagging=tuple(lagging),
    )


def _notified_aets(exporter_id: str, records: Records, expectation: Expectation) -> list[str]:
    done = (aet for exporter, aet in records.notified if exporter == exporter_id)
    return list(dict.fromkeys((*expectation.ian_destinations, *done)))


@dataclass(frozen=True, slots=True)
class _Tasks:
    """The latest tasks of an exporter."""

    exporter_id: str
    tasks: Collection[LatestTask]

    def words(self, kind: str, aet: str | None = None) -> str:
        """Return status and message of the latest task of a kind."""
        for each in self.tasks:
            if (each.exporter_id, each.kind) == (self.exporter_id, kind) and (
                aet in {None, each.remote_aet}
            ):
                return f"{each.status}: {each.message}" if each.message else each.status
        return "no task"


def _lag(
    each: InstanceProgress, asked: str | None, told: Mapping[str, set[str]], tasks: _Tasks
) -> Lagging | None:
    """Return the first stage that an instance lacks."""
    uid = each.sop_instance_uid
    if each.delivered is None:
        why = f"export task {tasks.words('EXPORT')}"
        return Lagging(uid, Stage.EXPORTED, each.remote_aet, why)
    if not each.delivered:
        return Lagging(uid, Stage.ACKNOWLEDGED, each.remote_aet, each.message or "refused")
    if asked and not each.committed:
        return Lagging(uid, Stage.COMMITTED, asked, _why_uncommitted(each, tasks))
    for aet, known in told.items():
        if uid not in known:
            return Lagging(uid, Stage.NOTIFIED, aet, f"notification {tasks.words('IAN', aet)}")
    return None


def _why_uncommitted(each: InstanceProgress, tasks: _Tasks) -> str:
    if each.commitment_aet is None:
        return f"not asked for, request {tasks.words('STGCMT_SCU')}"
    done = f"; {each.step.lower()}" if each.step else ""
    return f"{reason_words(each.failure_reason)}{done}"


@dataclass(frozen=True, slots=True)
class IncompleteStudy:
    """A study for which something is not done.

    Attributes
    ----------
    waiting, failed
        Tasks that wait or run, and that ended badly.
    uncommitted
        Instances whose commitment was asked for and has not come.
    """

    study_instance_uid: str
    created_time: datetime
    waiting: int
    failed: int
    uncommitted: int
