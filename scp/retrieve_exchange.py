"""The seam to pynetdicom for C-MOVE and C-GET: requests taken, responses sent, cancels noticed.

pynetdicom's own service classes for these open associations and send objects by themselves; here
the association's thread hands the request to `RetrieveServices` instead. What is relied on of
pynetdicom (3.0): `Association._serve_request`, `_accepted_cx`, `_is_paused`, `dimse.cancel_req`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Protocol

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from archive.model.retrieval import (
    LEVELS,
    MAX_SUB_OPERATIONS,
    RetrieveResult,
    RetrieveStatus,
    SubOperations,
    comment,
)
from scp.receiving import StoreAssociation

_RELATIONAL: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """A C-MOVE-RQ or C-GET-RQ (PS3.7 §9.1.4.1, §9.1.3.1).

    Attributes
    ----------
    identifier
        None when it is missing or cannot be decoded.
    destination_aet
        Move Destination; empty for C-GET.
    relational
        Whether relational retrieval was negotiated.
    """

    sop_class_uid: str
    message_id: int
    priority: int
    identifier: Dataset | None
    relational: bool
    destination_aet: str = ""


class RetrieveServices(Protocol):
    """Serves requests; answers for all errors and raises none."""

    def move(self, exchange: "RetrieveExchange") -> None:
        """Serve a C-MOVE-RQ with exactly one final response."""
        ...

    def get(self, exchange: "RetrieveExchange") -> None:
        """Serve a C-GET-RQ with exactly one final response."""
        ...


class RetrieveExchange:
    """One request on one association, and how it is answered."""

    def __init__(
        self, assoc: StoreAssociation, message: C_MOVE | C_GET, context: PresentationContext
    ) -> None:
        self.assoc = assoc
        self._message = message
        self._context = context
        syntax = UID(context.transfer_syntax[0])
        self._is_implicit = syntax.is_implicit_VR
        self._is_little_endian = syntax.is_little_endian

    @property
    def session(self) -> Any:  # noqa: ANN401 - what the handlers put there
        """What is known of the association."""
        return self.assoc.session

    @property
    def is_open(self) -> bool:
        """Whether the requestor can still be answered."""
        return bool(self.assoc.is_established and self.assoc.dul.is_alive())

    @property
    def is_canceled(self) -> bool:
        """Whether a C-CANCEL for this request has come (PS3.7 §9.3.2.3)."""
        return self._message.MessageID in self.assoc.dimse.cancel_req

    def request(self, identifier: Dataset | None) -> RetrieveRequest:
        """Return what is asked for.

        Parameters
        ----------
        identifier
            What `identifier` returned, None when it could not be decoded.
        """
        message = self._message
        sop_class_uid = str(message.AffectedSOPClassUID)
        negotiated = self.assoc.requestor.sop_class_extended.get(UID(sop_class_uid), b"")
        destination = message.MoveDestination if isinstance(message, C_MOVE) else ""
        return RetrieveRequest(
            sop_class_uid=sop_class_uid,
            message_id=message.MessageID or 0,
            priority=message.Priority or 0,
            identifier=identifier,
            relational=negotiated[:1] == _RELATIONAL,
            destination_aet=(destination or "").strip(),
        )

    def identifier(self) -> Dataset | None:
        """Return the decoded identifier, None without one; for hostile bytes anything is raised."""
        if self._message.Identifier is None:
            return None
        return decode(self._message.Identifier, self._is_implicit, self._is_little_endian)

    def pending(self, counts: SubOperations) -> None:
        """Send a pending response."""
        response = self._response(RetrieveStatus.PENDING, counts)
        response.NumberOfRemainingSuboperations = _us(counts.remaining)
        self._send(response)

    def final(self, result: RetrieveResult, offending_tag: int | None = None) -> None:
        """Send the final response (PS3.4 §C.4.2.1.6 to §C.4.2.1.10)."""
        response = self._response(result.status, result.counts)
        if result.status == RetrieveStatus.CANCELED:
            response.NumberOfRemainingSuboperations = _us(result.counts.remaining)
        if result.error_comment:
            setattr(response, "ErrorComment", comment(result.error_comment))  # noqa: B010 - typed None
        if offending_tag is not None:
            setattr(response, "OffendingElement", [offending_tag])  # noqa: B010 - typed None
        if result.failed_sop_instance_uids:
            response.Identifier = BytesIO(self._failed_list(result.failed_sop_instance_uids))
        self._send(response)

    def _failed_list(self, sop_instance_uids: tuple[str, ...]) -> bytes:
        dataset = Dataset()
        dataset.FailedSOPInstanceUIDList = list(sop_instance_uids)
        return encode(dataset, self._is_implicit, self._is_little_endian) or b""

    def _response(self, status: int, counts: SubOperations) -> C_MOVE | C_GET:
        response = type(self._message)()
        response.MessageIDBeingRespondedTo = self._message.MessageID
        response.AffectedSOPClassUID = self._message.AffectedSOPClassUID
        response.Status = status
        response.NumberOfCompletedSuboperations = _us(counts.completed)
        response.NumberOfFailedSuboperations = _us(counts.failed)
        response.NumberOfWarningSuboperations = _us(counts.warning)
        return response

    def _send(self, response: C_MOVE | C_GET) -> None:
        if self.is_open:
            self.assoc.dimse.send_msg(response, self._context.context_id or 0)


def _us(number: int) -> int:
    return min(number, MAX_SUB_OPERATIONS)


def accepted_retrieve_negotiation(requested: Mapping[UID, bytes]) -> dict[UID, bytes]:
    """Return the answer to SOP Class Extended Negotiation: relational retrieval is granted."""
    return {
        uid: bytes([int(info[:1] == _RELATIONAL)])
        for uid, info in requested.items()
        if uid in LEVELS and info
    }


def attach(assoc: StoreAssociation, services: RetrieveServices) -> None:
    """Have the retrieve requests of an association served by `services`."""
    serve_otherwise = assoc._serve_request  # noqa: SLF001

    def serve(message: Any, context_id: int) -> None:  # noqa: ANN401 - any DIMSE primitive
        context = assoc._accepted_cx.get(context_id)  # noqa: SLF001
        is_retrieve = isinstance(message, (C_MOVE, C_GET)) and message.is_valid_request
        if not is_retrieve or context is None or not _fits(message, context):
            serve_otherwise(message, context_id)
            return
        assoc.dimse.cancel_req = {}
        assoc._is_paused = True  # noqa: SLF001
        serve_one = services.move if isinstance(message, C_MOVE) else services.get
        serve_one(RetrieveExchange(assoc, message, context))
        assoc._is_paused = False  # noqa: SLF001
        assoc.dimse.cancel_req = {}
        assoc.dul._idle_timer.restart()  # noqa: SLF001

    assoc._serve_request = serve  # type: ignore[method-assign,assignment]  # noqa: SLF001


def _fits(message: C_MOVE | C_GET, context: PresentationContext) -> bool:
    sop_class_uid = str(message.AffectedSOPClassUID)
    return sop_class_uid in LEVELS and sop_class_uid == context.abstract_syntax
