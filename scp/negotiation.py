"""Which associations and presentation contexts are accepted (PS3.8 §9.3.4, PS3.7 §D.3).

Pure: from the configuration and a request to a decision.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from archive.configuration.descriptors import (
    NetworkAE,
    Snapshot,
    TransferCapability,
    TransferRole,
)
from archive.model.commitment import STORAGE_COMMITMENT_PUSH_MODEL

DEFAULT_PDU_LENGTH: Final = 131072
"""What is offered when the directory only has the toolkit's default: the most that dcmtk sends."""

_TOOLKIT_DEFAULTS: Final = frozenset({16378, 16384})
_SMALLEST_PDU_LENGTH: Final = 4096
_GREATEST_PDU_LENGTH: Final = 1 << 20
_ANY: Final = "*"


class RejectResult(IntEnum):
    """Result of an A-ASSOCIATE-RJ."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(IntEnum):
    """Source of an A-ASSOCIATE-RJ."""

    USER = 1
    ACSE = 2
    PRESENTATION = 3


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is rejected.

    Attributes
    ----------
    reason
        Reason/Diag. of PS3.8 Table 9-21 for the source.
    message
        For the log: what and what to do.
    """

    result: RejectResult
    source: RejectSource
    reason: int
    message: str


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What is known of an A-ASSOCIATE-RQ.

    Attributes
    ----------
    calling_addresses
        Address of the peer and what its host is called, lower case.
    port
        Port at which it arrived.
    """

    calling_aet: str
    called_aet: str
    calling_addresses: frozenset[str] = frozenset()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class OpenAssociations:
    """Other associations that are open in this process."""

    total: int = 0
    by_calling_aet: Mapping[str, int] | None = None

    def of(self, calling_aet: str) -> int:
        """Return how many the peer `calling_aet` has open."""
        return (self.by_calling_aet or {}).get(calling_aet, 0)


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context that the requestor proposes (PS3.8 §9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class ContextResult(IntEnum):
    """Result of a presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class ContextDecision:
    """What becomes of a proposed presentation context."""

    context_id: int
    result: ContextResult
    transfer_syntax: str | None = None


def _permanent(reason: int, message: str) -> Rejection:
    return Rejection(RejectResult.PERMANENT, RejectSource.USER, reason, message)


def _local_limit(message: str) -> Rejection:
    return Rejection(RejectResult.TRANSIENT, RejectSource.PRESENTATION, 2, message)


_CALLING_AET_NOT_RECOGNIZED: Final = 3
_CALLED_AET_NOT_RECOGNIZED: Final = 7


def decide_association(
    snapshot: Snapshot, request: AssociationRequest, others: OpenAssociations
) -> NetworkAE | Rejection:
    """Return the AE that is called, or why the association is rejected.

    Parameters
    ----------
    others
        Open associations, this one not counted.
    """
    ae = called_ae(snapshot.device.aes.values(), request)
    if ae is None:
        return _permanent(
            _CALLED_AET_NOT_RECOGNIZED,
            f"no installed AE {request.called_aet} accepts associations on port {request.port}; "
            "check dicomAETitle, dcmOtherAETitle, dicomAssociationAcceptor",
        )
    return _unwelcome(snapshot, ae, request) or _over_limit(snapshot, request, others) or ae


def called_ae(aes: Iterable[NetworkAE], request: AssociationRequest) -> NetworkAE | None:
    """Return the AE that answers to the called title on the port; `*` answers to any."""
    listening = [
        ae for ae in aes if ae.installed and ae.association_acceptor and _listens(ae, request.port)
    ]
    for matches in (
        lambda ae: ae.title == request.called_aet,
        lambda ae: request.called_aet in ae.other_titles,
        lambda ae: ae.title == _ANY or _ANY in ae.other_titles,
    ):
        for ae in listening:
            if matches(ae):
                return ae
    return None


def _listens(ae: NetworkAE, port: int | None) -> bool:
    """Tell whether one of the AE's connections is on `port` (None: whatever the port)."""
    if port is None:
        return True
    return any(each.installed and each.port == port for each in ae.connections)


def _unwelcome(snapshot: Snapshot, ae: NetworkAE, request: AssociationRequest) -> Rejection | None:
    """Return a rejection when the calling AE may not call this AE."""
    calling = request.calling_aet
    if ae.accepted_calling_titles and calling not in ae.accepted_calling_titles:
        return _permanent(
            _CALLING_AET_NOT_RECOGNIZED,
            f"{calling} is not among dcmAcceptedCallingAETitle of {ae.title}",
        )
    validates = ae.validate_calling_hostname
    if validates is None:
        validates = snapshot.device.validate_calling_hostname
    if validates and not _comes_from_its_host(snapshot, request):
        return _permanent(
            _CALLING_AET_NOT_RECOGNIZED,
            f"{calling} does not call from a host that the directory gives it "
            "(dcmValidateCallingAEHostname)",
        )
    return None


def _comes_from_its_host(snapshot: Snapshot, request: AssociationRequest) -> bool:
    remote = snapshot.remote_aes.get(request.calling_aet)
    if remote is None:
        return False
    return any(each.hostname.lower() in request.calling_addresses for each in remote.connections)


def _over_limit(
    snapshot: Snapshot, request: AssociationRequest, others: OpenAssociations
) -> Rejection | None:
    """Return a rejection when one more association would exceed a limit."""
    device = snapshot.device
    limit = device.limit_open_associations
    if 0 < limit <= others.total:
        return _local_limit(f"{others.total} associations are open (dcmLimitOpenAssociations)")
    initiated = dict(device.limit_associations_initiated_by).get(request.calling_aet, 0)
    if 0 < initiated <= others.of(request.calling_aet):
        return _local_limit(
            f"{request.calling_aet} has {initiated} associations open "
            "(dcmLimitAssociationsInitiatedBy)"
        )
    return None


def decide_contexts(
    capabilities: Collection[TransferCapability], proposed: Iterable[ProposedContext]
) -> tuple[ContextDecision, ...]:
    """Return what becomes of each proposed context, by the AE's capabilities as SCP.

    Of the transfer syntaxes that both sides know, the capability's preferred one is taken, else
    the first that the requestor names. An AE that asks for storage commitment as SCU takes the
    reports on associations that the SCP opens, whether or not it proposes roles (PS3.4 §J.3.3).
    """
    by_class = {each.sop_class: each for each in capabilities if each.role is TransferRole.SCP}
    for each in capabilities:
        if each.sop_class == STORAGE_COMMITMENT_PUSH_MODEL:
            by_class.setdefault(each.sop_class, each)
    return tuple(_decide_context(by_class, context) for context in proposed)


def _decide_context(
    by_class: Mapping[str, TransferCapability], context: ProposedContext
) -> ContextDecision:
    capability = by_class.get(context.abstract_syntax) or by_class.get(_ANY)
    if capability is None:
        return ContextDecision(context.context_id, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED)
    common = [
        each
        for each in context.transfer_syntaxes
        if each in capability.transfer_syntaxes or _ANY in capability.transfer_syntaxes
    ]
    if not common:
        return ContextDecision(context.context_id, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED)
    preferred = [each for each in capability.preferred_transfer_syntaxes if each in common]
    return ContextDecision(context.context_id, ContextResult.ACCEPTANCE, (preferred or common)[0])


def sends(capabilities: Iterable[TransferCapability], sop_class: str) -> bool:
    """Tell whether the AE is an SCU of a class, so that a C-GET may ask it to send."""
    return any(
        each.role is TransferRole.SCU and each.sop_class in {sop_class, _ANY}
        for each in capabilities
    )


def offered_pdu_length(configured: int) -> int:
    """Return the Maximum Length to offer for P-DATA-TF PDUs (PS3.8 §D.1), bytes.

    A value that was set on purpose is kept between 4 KiB and 1 MiB; no limit (0) becomes 1 MiB,
    because a whole PDU is held in memory.
    """
    if configured in _TOOLKIT_DEFAULTS:
        return DEFAULT_PDU_LENGTH
    if configured <= 0:
        return _GREATEST_PDU_LENGTH
    return min(max(configured, _SMALLEST_PDU_LENGTH), _GREATEST_PDU_LENGTH)
