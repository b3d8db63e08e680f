"""Carries out the decisions of `negotiation` on associations of pynetdicom."""

import threading
from collections import Counter, defaultdict

from pydicom.uid import UID
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_context

from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.storage.base import Storages
from scp.hosts import asks_for_host, host_name, names_among
from scp.negotiation import (
    AssociationRequest,
    ContextResult,
    OpenAssociations,
    ProposedContext,
    Rejection,
    decide_association,
    decide_contexts,
    sends,
)
from scp.receiving import StoreAssociation
from scp.session import Session


class Acceptance:
    """Accepts or rejects associations by the configuration of the moment."""

    def __init__(self, source: ConfigurationSource, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._lock = threading.Lock()
        self._accepted: list[StoreAssociation] = []
        self._storages: tuple[str, Storages] | None = None

    def open_associations(self) -> list[StoreAssociation]:
        """Return the accepted associations that have not ended."""
        with self._lock:
            self._accepted = [each for each in self._accepted if _is_open(each)]
            return list(self._accepted)

    def storages(self, snapshot: Snapshot) -> Storages:
        """Return the storages of `snapshot`, the same ones as long as it does not change."""
        with self._lock:
            if self._storages is None or self._storages[0] != snapshot.fingerprint:
                self._storages = (snapshot.fingerprint, Storages(snapshot, self._settings))
            return self._storages[1]

    def decide(self, assoc: StoreAssociation) -> Session | Rejection:
        """Decide on the association `assoc` requests, and count it when it is accepted."""
        snapshot = self._source.snapshot()
        request = self._request(assoc, snapshot)
        others = _count(self.open_associations())
        decision = decide_association(snapshot, request, others)
        if isinstance(decision, Rejection):
            return decision
        narrow_contexts(assoc, decision)
        with self._lock:
            self._accepted.append(assoc)
        peer = assoc.peer_address
        return Session(
            snapshot=snapshot,
            ae=decision,
            storages=self.storages(snapshot),
            calling_aet=request.calling_aet,
            called_aet=request.called_aet,
            calling_host=host_name(peer) if asks_for_host(snapshot, decision) else peer,
        )

    def _request(self, assoc: StoreAssociation, snapshot: Snapshot) -> AssociationRequest:
        primitive = association_request(assoc)
        calling = str(primitive.calling_ae_title).strip()
        remote = snapshot.remote_aes.get(calling)
        names = [each.hostname for each in remote.connections] if remote else []
        address = assoc.peer_address
        return AssociationRequest(
            calling_aet=calling,
            called_aet=str(primitive.called_ae_title).strip(),
            calling_addresses=names_among(address, names if _validates(snapshot) else ()),
            port=assoc.configured_port,
        )


def association_request(assoc: StoreAssociation) -> A_ASSOCIATE:
    """Return the A-ASSOCIATE-RQ of an association that was requested."""
    primitive = assoc.requestor.primitive
    assert primitive is not None  # noqa: S101 - EVT_REQUESTED comes after it was set
    return primitive


def _validates(snapshot: Snapshot) -> bool:
    """Tell whether any AE of the device checks the host of its callers."""
    device = snapshot.device
    return device.validate_calling_hostname or any(
        ae.validate_calling_hostname for ae in device.aes.values()
    )


def _is_open(assoc: StoreAssociation) -> bool:
    ended = assoc.is_aborted or assoc.is_released or assoc.is_rejected
    return assoc.dul.is_alive() and not ended


def _count(associations: list[StoreAssociation]) -> OpenAssociations:
    by_aet = Counter(each.session.calling_aet for each in associations if each.session)
    return OpenAssociations(total=len(associations), by_calling_aet=by_aet)


def narrow_contexts(assoc: StoreAssociation, ae: NetworkAE) -> None:
    """Leave pynetdicom no choice but that of `decide_contexts`.

    The proposal of each accepted context is reduced to the transfer syntax chosen for it, so that
    contexts of one SOP class can get different ones.
    """
    proposed = association_request(assoc).presentation_context_definition_list
    decisions = decide_contexts(
        ae.transfer_capabilities,
        [
            ProposedContext(
                each.context_id or 0,
                str(each.abstract_syntax),
                tuple(map(str, each.transfer_syntax)),
            )
            for each in proposed
        ],
    )
    supported: dict[str, set[str]] = defaultdict(set)
    for context, decision in zip(proposed, decisions, strict=True):
        if decision.transfer_syntax is not None:
            context.transfer_syntax = [UID(decision.transfer_syntax)]
            supported[str(context.abstract_syntax)].add(decision.transfer_syntax)
        elif decision.result is ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED:
            supported.setdefault(str(context.abstract_syntax), set())
    assoc.acceptor.supported_contexts = [
        _supported(abstract, sorted(transfer) or [_NOT_PROPOSED], ae)
        for abstract, transfer in supported.items()
    ]


def _supported(
    abstract_syntax: str, transfer_syntaxes: list[str], ae: NetworkAE
) -> PresentationContext:
    """Return a supported context; of a class that the AE sends, both roles (PS3.7 §D.3.3.4)."""
    context = build_context(abstract_syntax, transfer_syntaxes)
    if sends(ae.transfer_capabilities, abstract_syntax):
        context.scu_role = context.scp_role = True
    return context


_NOT_PROPOSED = "2.25.1"
"""A transfer syntax nobody proposes, where a SOP class is known but none of its syntaxes is."""
