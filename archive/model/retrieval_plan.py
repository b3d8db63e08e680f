"""Where the objects of a C-MOVE come from: from here, or from which other archive (pure).

An object without a local file is asked for at the archive that its row names, else at
dcmAltCMoveSCP; a request that matches nothing, or of which something may be missing here, goes to
dcmFallbackCMoveSCP (design decision 14). Only what is missing here is asked for, in as few C-MOVE
requests as its place in the hierarchy allows, so that nothing is sent twice; the fallback archive
alone is asked for everything, because nobody knows what is missing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from archive.model.entities import InstanceToSend
from archive.model.retrieval import RetrieveIdentifier, RetrieveLevel

MAX_UIDS_PER_REQUEST = 500
"""UIDs in one list: some archives read identifiers into a buffer of 32 KiB."""


class ForwardReason(StrEnum):
    """Why a C-MOVE is forwarded."""

    EXTERNAL = "objects are held by another archive"
    ALTERNATIVE = "objects lie on storages of another device"
    FALLBACK = "nothing is known of what was asked for, or something may be missing"


@dataclass(frozen=True, slots=True)
class MatchedInstance:
    """An instance that a retrieve asks for.

    Attributes
    ----------
    instance
        Its file is None unless it lies on a storage of this device.
    external_retrieve_aet
        Archive from which it can be fetched.
    is_elsewhere
        It has a file, but on a storage that this device does not have.
    """

    instance: InstanceToSend
    study_instance_uid: str
    external_retrieve_aet: str | None = None
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class ForwardPolicy:
    """What the directory says about forwarding, for the called AE.

    Attributes
    ----------
    external_destination
        dcmExternalRetrieveAEDestination: None forwards with the original destination.
    """

    external_destination: str | None = None
    alt_c_move_scp: str | None = None
    fallback_c_move_scp: str | None = None
    fallback_destination: str | None = None
    fallback_calling_aet: str | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """One other archive that is asked.

    Attributes
    ----------
    identifiers
        C-MOVE requests to be made one after the other.
    through_aet
        Local AE to which the objects are sent, to be passed on from here; None: the other archive
        sends to the original destination itself (proxy).
    expected
        Instances it has to bring; empty when nothing is known of them.
    calling_aet
        Calling AE title that the directory prescribes.
    """

    remote_aet: str
    reason: ForwardReason
    identifiers: tuple[RetrieveIdentifier, ...]
    through_aet: str | None = None
    expected: tuple[MatchedInstance, ...] = ()
    calling_aet: str | None = None


@dataclass(frozen=True, slots=True)
class RetrievePlan:
    """What a retrieve consists of.

    Attributes
    ----------
    local
        Instances to be sent from here.
    unreachable
        Instances that nobody is known to hold, with the reason.
    """

    local: tuple[InstanceToSend, ...] = ()
    forwards: tuple[Forward, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Sub-operations to be expected."""
        expected = sum(len(forward.expected) for forward in self.forwards)
        return len(self.local) + len(self.unreachable) + expected


def plan_retrieve(
    identifier: RetrieveIdentifier,
    matches: Sequence[MatchedInstance],
    policy: ForwardPolicy,
    *,
    requester_aet: str,
    is_incomplete: bool = False,
) -> RetrievePlan:
    """Decide where the objects of a C-MOVE come from.

    Parameters
    ----------
    matches
        Everything in the index that the identifier asks for.
    requester_aet
        Who asks; never asked back, else two archives could send each other in circles.
    is_incomplete
        Some of what is asked for may be missing here; see `archive.model.completeness`.
    """
    fallback = _fallback(identifier, policy, requester_aet)
    if not matches:
        return RetrievePlan(forwards=(fallback,) if fallback else ())
    plan = _plan_known(identifier, matches, policy, requester_aet)
    if fallback is None or fallback.through_aet is None or not is_incomplete:
        return plan
    return _with_fallback(plan, fallback, matches)


def _plan_known(
    identifier: RetrieveIdentifier,
    matches: Sequence[MatchedInstance],
    policy: ForwardPolicy,
    requester_aet: str,
) -> RetrievePlan:
    """Decide where the objects come from that the index knows."""
    local: list[InstanceToSend] = []
    unreachable: dict[str, str] = {}
    groups: defaultdict[str, list[MatchedInstance]] = defaultdict(list)
    for match in matches:
        holder = _holder(match, policy)
        if match.instance.file is not None:
            local.append(match.instance)
        elif holder is None:
            unreachable[match.instance.sop_instance_uid] = _NOBODY
        elif holder != requester_aet:
            groups[holder].append(match)
        elif holder != policy.alt_c_move_scp:
            unreachable[match.instance.sop_instance_uid] = f"it is held by {holder}, which asks"
    forwards = tuple(
        _forward(identifier, holder, group, matches=matches, policy=policy)
        for holder, group in groups.items()
    )
    return RetrievePlan(tuple(local), forwards, unreachable)


_NOBODY = "no copy is left here and no other archive is known to hold it"


def _fallback(
    identifier: RetrieveIdentifier, policy: ForwardPolicy, requester_aet: str
) -> Forward | None:
    """Return the forward to the fallback archive, None when there is none to be asked."""
    if policy.fallback_c_move_scp in {None, requester_aet}:
        return None
    return Forward(
        policy.fallback_c_move_scp or "",
        ForwardReason.FALLBACK,
        (identifier,),
        through_aet=policy.fallback_destination,
        calling_aet=policy.fallback_calling_aet,
    )


def _with_fallback(
    plan: RetrievePlan, fallback: Forward, matches: Sequence[MatchedInstance]
) -> RetrievePlan:
    """Return a plan that also asks the fallback archive, for everything.

    What nobody else is known to hold, and what it is known to hold, is expected of it.
    """
    others = tuple(each for each in plan.forwards if each.remote_aet != fallback.remote_aet)
    placed = {each.sop_instance_uid for each in plan.local}
    placed |= {match.instance.sop_instance_uid for each in others for match in each.expected}
    rest = tuple(match for match in matches if match.instance.sop_instance_uid not in placed)
    return RetrievePlan(plan.local, (*others, replace(fallback, expected=rest)))


def _holder(match: MatchedInstance, policy: ForwardPolicy) -> str | None:
    if match.is_elsewhere:
        return policy.alt_c_move_scp or match.external_retrieve_aet
    return match.external_retrieve_aet or policy.alt_c_move_scp


def _forward(
    identifier: RetrieveIdentifier,
    holder: str,
    group: Sequence[MatchedInstance],
    *,
    matches: Sequence[MatchedInstance],
    policy: ForwardPolicy,
) -> Forward:
    is_alternative = holder == policy.alt_c_move_scp
    return Forward(
        holder,
        ForwardReason.ALTERNATIVE if is_alternative else ForwardReason.EXTERNAL,
        narrowed(identifier, group, matches),
        through_aet=None if is_alternative else policy.external_destination,
        expected=tuple(group),
    )


def narrowed(
    identifier: RetrieveIdentifier,
    group: Sequence[MatchedInstance],
    matches: Sequence[MatchedInstance],
) -> tuple[RetrieveIdentifier, ...]:
    """Return the identifiers that ask for the instances of `group` and, of `matches`, no others.

    The original one when it asks for nothing else; else one per study, of whole series where
    possible.
    """
    if len(group) == len(matches):
        return (identifier,)
    wanted = {match.instance.sop_instance_uid for match in group}
    identifiers: list[RetrieveIdentifier] = []
    for study, members in _by(matches, lambda match: match.study_instance_uid).items():
        if not _uids(members) & wanted:
            continue
        if identifier.level in _WHOLE_STUDIES and _uids(members) <= wanted:
            identifiers.append(RetrieveIdentifier(RetrieveLevel.STUDY, (study,)))
        else:
            identifiers.extend(_within_study(identifier, study, members, wanted=wanted))
    return tuple(identifiers)


_WHOLE_STUDIES = frozenset({RetrieveLevel.PATIENT, RetrieveLevel.STUDY})


def _within_study(
    identifier: RetrieveIdentifier,
    study: str,
    members: Sequence[MatchedInstance],
    *,
    wanted: set[str],
) -> Iterable[RetrieveIdentifier]:
    whole: list[str] = []
    parts: list[RetrieveIdentifier] = []
    series = _by(members, lambda match: match.instance.series_instance_uid)
    for series_uid, instances in series.items():
        missing = [uid for uid in _ordered_uids(instances) if uid in wanted]
        if missing and len(missing) == len(instances) and identifier.level != RetrieveLevel.IMAGE:
            whole.append(series_uid)
        else:
            for chunk in _chunks(missing):
                level = RetrieveLevel.IMAGE
                parts.append(RetrieveIdentifier(level, (study,), (series_uid,), chunk))
    for chunk in _chunks(whole):
        yield RetrieveIdentifier(RetrieveLevel.SERIES, (study,), chunk)
    yield from parts


def _chunks(uids: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for start in range(0, len(uids), MAX_UIDS_PER_REQUEST):
        yield tuple(uids[start : start + MAX_UIDS_PER_REQUEST])


def _by(
    matches: Iterable[MatchedInstance], key: Callable[[MatchedInstance], str]
) -> dict[str, list[MatchedInstance]]:
    groups: defaultdict[str, list[MatchedInstance]] = defaultdict(list)
    for match in matches:
        groups[key(match)].append(match)
    return groups


def _uids(matches: Iterable[MatchedInstance]) -> set[str]:
    return {match.instance.sop_instance_uid for match in matches}


def _ordered_uids(matches: Iterable[MatchedInstance]) -> list[str]:
    return [match.instance.sop_instance_uid for match in matches]
