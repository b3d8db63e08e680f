"""Queries that are also put to another archive (dcmSpanningCFindSCP)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.configuration.pairs import Pair, best_pair
from archive.errors import ConfigurationError, PeerError
from archive.model.query import UNIQUE_KEYS, Level
from scp.query_coercing import Found
from scp.requestor import Requestor

_PENDING: Final = frozenset({0xFF00, 0xFF01})
_CONNECT_S: Final = 10.0
_RESPONSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """What the other archive is asked.

    Attributes
    ----------
    extended
        Service class application information that the requestor negotiated.
    is_completed
        The unique key of the level was not asked for and is taken out of the answers again.
    """

    identifier: Dataset
    sop_class_uid: str
    level: Level
    extended: bytes = b""
    is_completed: bool = False


def spanned(
    local: Iterator[Found], question: Question, snapshot: Snapshot, ae: NetworkAE
) -> Iterator[Found]:
    """Yield own matches and those of the other archive, each entity once.

    REPLACE returns only the other archive's, MERGE these before the own ones, SUPPLEMENT the own
    ones before them.

    Raises
    ------
    ConfigurationError, PeerError
        When the other archive is not configured or cannot be asked.
    """
    other = ae.spanning_c_find_scp
    if other is None:
        return local
    remote = _remote(question, snapshot, ae)
    tag = UNIQUE_KEYS[question.level].tag
    found: Iterator[Found]
    match ae.spanning_c_find_scp_policy:
        case "MERGE":
            found = _distinct((remote, local), tag)
        case "SUPPLEMENT":
            found = _distinct((local, remote), tag)
        case _:
            found = remote
    return _without(found, tag) if question.is_completed else found


def completed(identifier: Dataset, level: Level) -> Dataset:
    """Return an identifier with the unique key of its level, by which entities are told apart."""
    unique = UNIQUE_KEYS[level]
    if unique.tag in identifier:
        return identifier
    wanted = Dataset()
    wanted.update(identifier)
    wanted.add_new(unique.tag, unique.vr, "")
    return wanted


def _without(found: Iterator[Found], tag: int) -> Iterator[Found]:
    for study, identifier in found:
        identifier.pop(BaseTag(tag), None)
        yield study, identifier


def _distinct(sources: Iterable[Iterator[Found]], tag: int) -> Iterator[Found]:
    seen: set[str] = set()
    for source in sources:
        for study, identifier in source:
            element = identifier.get(tag)
            key = str(element.value) if element is not None else ""
            if key not in seen:
                seen.add(key)
                yield study, identifier


def _remote(question: Question, snapshot: Snapshot, ae: NetworkAE) -> Iterator[Found]:
    """Yield the matches of the other archive."""
    other = ae.spanning_c_find_scp or ""
    for match in _ask(question, (ae, other, _pair(snapshot, ae, other))):
        if ae.spanning_c_find_scp_retrieve_aets:
            match.RetrieveAETitle = list(ae.spanning_c_find_scp_retrieve_aets)
        yield str(match.get("StudyInstanceUID", "") or ""), match


def _ask(question: Question, ends: tuple[NetworkAE, str, Pair]) -> Iterator[Dataset]:
    ae, other, (own, connection) = ends
    requestor = Requestor(ae.title, own.tls, connection.hostname)
    requestor.connection_timeout = own.connect_timeout_s or _CONNECT_S
    requestor.acse_timeout = own.accept_timeout_s or _CONNECT_S
    requestor.dimse_timeout = own.response_timeout_s or _RESPONSE_S
    syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    requestor.add_requested_context(question.sop_class_uid, syntaxes)
    association = requestor.associate(
        connection.hostname,
        connection.port or 0,
        ae_title=other,
        ext_neg=_negotiation(question),
    )
    if not association.is_established:
        msg = f"spanning C-FIND SCP {other} at {connection.hostname} cannot be asked"
        raise PeerError(msg)
    try:
        for status, match in association.send_c_find(question.identifier, question.sop_class_uid):
            if status.get("Status") in _PENDING and match is not None:
                yield match
            elif status.get("Status", -1) != 0:
                msg = f"spanning C-FIND SCP {other} failed: {status.get('Status', 'no response')}"
                raise PeerError(msg)
    finally:
        if association.is_established:
            association.release()


def _negotiation(question: Question) -> list[Any]:
    if not question.extended:
        return []
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = question.sop_class_uid
    item.service_class_application_information = question.extended
    return [item]


def _pair(snapshot: Snapshot, ae: NetworkAE, title: str) -> Pair:
    """Return the connections over which an AE is asked.

    Raises
    ------
    ConfigurationError
        When there is no such AE, or none of its connections can be used.
    """
    remote = snapshot.remote_aes.get(title)
    pair = best_pair(ae, remote) if remote is not None and remote.installed else None
    if pair is None:
        msg = (
            f"spanning C-FIND SCP {title} cannot be reached: it needs an installed AE with a "
            f"connection that has a dicomPort, and that is with TLS or without like one of "
            f"{ae.title}"
        )
        raise ConfigurationError(msg)
    return pair
