"""Which presentation contexts an export proposes, and in which one an instance is sent.

Pure. One context per (SOP class, transfer syntax) (PS3.8 §9.3.2.2): a context names the single
syntax that an acceptor picked, so a class stored in three syntaxes needs three of them. What the
destination's SCP transfer capabilities exclude is not proposed; an AE entry without any such
capability is taken as able to receive everything.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from archive.configuration.descriptors import NetworkAE, TransferCapability, TransferRole

IMPLICIT_VR_LE = "1.2.840.10008.1.2"
EXPLICIT_VR_LE = "1.2.840.10008.1.2.1"
NATIVE_SYNTAXES = (EXPLICIT_VR_LE, IMPLICIT_VR_LE)
"""What anything but video can be transcoded to, best first."""

MAX_PRESENTATION_CONTEXTS = 128
"""Context IDs are the odd numbers 1 to 255."""

_ANY = "*"
# MPEG-2, MPEG-4 and HEVC, fragmentable or not (PS3.6 table A-1)
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?")


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """An abstract syntax with the transfer syntaxes proposed for it.

    Attributes
    ----------
    as_scp
        Propose to be the SCP and not the SCU, by role selection (PS3.7 §D.3.3.4).
    """

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]
    as_scp: bool = False


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """What to propose.

    Attributes
    ----------
    groups
        Each group fits one association; all contexts of a SOP class are in one group.
    preferences
        Per SOP class the syntaxes that the destination's entry prefers, best first.
    excluded
        Per (SOP class, stored syntax) that is not even proposed: the reason, for messages.
    """

    groups: tuple[tuple[ProposedContext, ...], ...]
    preferences: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: Mapping[tuple[str, str], str] = field(default_factory=dict)


def is_video(transfer_syntax_uid: str) -> bool:
    """Tell whether a syntax holds video, which is sent as stored or not at all."""
    return _VIDEO.fullmatch(transfer_syntax_uid) is not None


def plan_contexts(
    stored: Iterable[tuple[str, str]],
    local: NetworkAE,
    remote: NetworkAE,
    limit: int = MAX_PRESENTATION_CONTEXTS,
) -> ContextPlan:
    """Return the contexts for objects to be sent.

    Parameters
    ----------
    stored
        (SOP Class UID, Transfer Syntax UID) of the objects, repetitions allowed.
    local
        Its SCU capabilities say which classes may be sent and which native syntaxes.
    remote
        Its SCP capabilities, if it has any, restrict classes and syntaxes.
    limit
        Contexts per association.
    """
    wanted: dict[str, dict[str, None]] = {}
    for sop_class, syntax in stored:
        wanted.setdefault(sop_class, {})[syntax] = None
    restricted = any(c.role is TransferRole.SCP for c in remote.transfer_capabilities)
    proposals: list[tuple[ProposedContext, ...]] = []
    preferences: dict[str, tuple[str, ...]] = {}
    excluded: dict[tuple[str, str], str] = {}
    for sop_class, syntaxes in wanted.items():
        own = _capability(local, TransferRole.SCU, sop_class)
        peer = _capability(remote, TransferRole.SCP, sop_class) if restricted else None
        reason = _exclusion(sop_class, local, remote, (own is None, restricted and peer is None))
        offered = () if own is None or reason else _syntaxes(tuple(syntaxes), own, peer)
        unable = reason or (
            f"the SCP transfer capability of {remote.title} for SOP class {sop_class} has no "
            f"transfer syntax that the stored objects can be sent in"
        )
        excluded |= {
            (sop_class, syntax): unable for syntax in syntaxes if choose(syntax, offered) is None
        }
        preferences[sop_class] = peer.preferred_transfer_syntaxes if peer else ()
        if offered:
            proposals.append(tuple(ProposedContext(sop_class, (syntax,)) for syntax in offered))
    return ContextPlan(_groups(proposals, limit), preferences, excluded)


def choose(
    stored_syntax: str, accepted: Sequence[str], preferred: Sequence[str] = ()
) -> str | None:
    """Return the syntax in which an object goes out, None when no accepted one can carry it.

    The destination's preferred syntax if it can be produced, else the bytes as stored, else
    Explicit and then Implicit VR Little Endian.

    Parameters
    ----------
    stored_syntax
        Transfer Syntax UID of the file.
    accepted
        Transfer Syntax UIDs accepted for the object's SOP class.
    preferred
        dcmPreferredTransferSyntax of the destination's transfer capability, best first.
    """
    natives = () if is_video(stored_syntax) else NATIVE_SYNTAXES
    producible = (stored_syntax, *natives)
    wishes = (syntax for syntax in preferred if syntax in producible)
    return next((syntax for syntax in (*wishes, *producible) if syntax in accepted), None)


def scu_syntaxes(local: NetworkAE, sop_class_uid: str) -> tuple[str, ...]:
    """Return the transfer syntaxes of the local SCU capability for a class; none without one."""
    capability = _capability(local, TransferRole.SCU, sop_class_uid)
    if capability is None:
        return ()
    return tuple(syntax for syntax in capability.transfer_syntaxes if syntax != _ANY)


def _capability(ae: NetworkAE, role: TransferRole, sop_class: str) -> TransferCapability | None:
    """Return the capability for a class, or the one for any class, in that role."""
    of_role = [c for c in ae.transfer_capabilities if c.role is role]
    return next((c for wanted in (sop_class, _ANY) for c in of_role if c.sop_class == wanted), None)


def _exclusion(
    sop_class: str, local: NetworkAE, remote: NetworkAE, missing: tuple[bool, bool]
) -> str | None:
    own_missing, peer_missing = missing
    if own_missing:
        return (
            f"local AE {local.title} has no SCU transfer capability for SOP class {sop_class}: "
            f"add one to {local.dn or local.title}"
        )
    if peer_missing:
        return (
            f"the SCP transfer capabilities of {remote.title} leave out SOP class {sop_class}: "
            f"add it to {remote.dn or remote.title} if the destination takes it"
        )
    return None


def _syntaxes(
    stored: tuple[str, ...], own: TransferCapability, peer: TransferCapability | None
) -> tuple[str, ...]:
    """Return the syntaxes proposed for one class: stored ones, then the native ones."""
    natives = () if all(is_video(syntax) for syntax in stored) else NATIVE_SYNTAXES
    allowed = [syntax for syntax in natives if _covers(own, syntax)]
    offered = dict.fromkeys((*stored, *allowed))
    return tuple(syntax for syntax in offered if peer is None or _covers(peer, syntax))


def _covers(capability: TransferCapability, syntax: str) -> bool:
    return syntax in capability.transfer_syntaxes or _ANY in capability.transfer_syntaxes


def _groups(
    proposals: Iterable[tuple[ProposedContext, ...]], limit: int
) -> tuple[tuple[ProposedContext, ...], ...]:
    """Pack the contexts of whole classes into as few groups of at most `limit` as simply fit."""
    groups: list[list[ProposedContext]] = []
    for contexts in proposals:
        for start in range(0, len(contexts), limit):
            part = contexts[start : start + limit]
            if not groups or len(groups[-1]) + len(part) > limit:
                groups.append([])
            groups[-1].extend(part)
    return tuple(tuple(group) for group in groups)
