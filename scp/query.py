"""The C-FIND service as SCP (PS3.4 §C.4.1, PS3.7 §9.1.2).

Matches are sent as they come from the index: memory does not depend on their number, because no
more responses are made while the peer is slow to take those that wait for it. A C-CANCEL ends
the query before the next response.
"""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from archive.clock import Clock
from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.errors import DicomqError, LedgerError, LedgerUnavailableError
from archive.ledger import query as index
from archive.ledger.connection import Ledger
from archive.model.coercion import CoercionFailedError
from archive.model.conditions import AssociationFacts
from archive.model.query import STUDY_INSTANCE_UID, Match
from scp.matching import (
    MODELS,
    FindPlan,
    FindStatus,
    RefusedQueryError,
    Terms,
    plan_find,
)
from scp.query_coercing import AnswerCoercer
from scp.query_response import Identity, build_response
from scp.query_spanning import Question, completed, spanned

RELATIONAL: Final = 0
COMBINED_DATE_TIME: Final = 1
_SUPPORTED: Final = (1, 1)
_COMMENT_LENGTH: Final = 64
_MOST_WAITING: Final = 64
_PAUSE_S: Final = 0.005
_log = logging.getLogger(__name__)

Response = tuple[int | Dataset, Dataset | None]
"""Status, alone or with Error Comment and Offending Element, and identifier."""


@dataclass(frozen=True, slots=True)
class FindRequest:
    """A C-FIND-RQ and the association it came over.

    Attributes
    ----------
    identifier
        None when it is missing or cannot be decoded.
    extended
        Service class application information that was negotiated for the SOP class.
    is_cancelled
        Whether a C-CANCEL for this request has come.
    waiting
        How many messages wait to be taken by the peer.
    """

    identifier: Dataset | None
    sop_class_uid: str
    calling_aet: str
    calling_host: str = ""
    extended: bytes = b""
    is_implicit: bool = False
    is_little_endian: bool = True
    is_cancelled: Callable[[], bool] = lambda: False
    is_open: Callable[[], bool] = lambda: True
    waiting: Callable[[], int] = lambda: 0


def find_request(event: Any, identifier: Dataset | None) -> FindRequest:  # noqa: ANN401 - pynetdicom's
    """Return the request of an EVT_C_FIND with its decoded identifier."""
    association = event.assoc
    sop_class_uid = str(event.context.abstract_syntax)
    return FindRequest(
        identifier=identifier,
        sop_class_uid=sop_class_uid,
        calling_aet=str(association.requestor.ae_title).strip(),
        calling_host=str(association.requestor.address or ""),
        extended=association.requestor.sop_class_extended.get(sop_class_uid, b""),
        is_implicit=str(event.context.transfer_syntax) == "1.2.840.10008.1.2",
        is_little_endian=str(event.context.transfer_syntax) != "1.2.840.10008.1.2.2",
        is_cancelled=lambda: bool(event.is_cancelled),
        is_open=lambda: bool(association.is_established),
        waiting=association.dul.to_provider_queue.qsize,
    )


def accepted_negotiation(requested: Mapping[UID, bytes]) -> dict[UID, bytes]:
    """Return the answer to SOP Class Extended Negotiation of queries (PS3.4 §C.5.1.1).

    Relational queries and combined date-time matching are granted, fuzzy matching and time zone
    adjustment are not.
    """
    return {
        uid: bytes(
            int(byte == 1 and position < len(_SUPPORTED)) for position, byte in enumerate(info)
        )
        for uid, info in requested.items()
        if uid in MODELS and info
    }


def terms_of(extended: bytes, ae: NetworkAE) -> Terms:
    """Return on what terms an association queries an AE."""
    granted = [position < len(extended) and extended[position] == 1 for position in (0, 1)]
    return Terms(
        relational=granted[RELATIONAL] or ae.relational_query_negotiation_lenient,
        combined=granted[COMBINED_DATE_TIME],
        limit=max(0, ae.query_max_number_of_results),
    )


class QueryService:
    """Answers C-FIND requests; one for all associations of a process."""

    def __init__(self, ledger: Ledger, clock: Clock, *, leading_wait_s: float = 30.0) -> None:
        self._ledger = ledger
        self._clock = clock
        self._leading_wait_s = leading_wait_s

    def find(
        self, request: FindRequest, snapshot: Snapshot, ae: NetworkAE
    ) -> Generator[Response, None, None]:
        """Yield the responses to a request; the final one of success is left to the caller.

        Parameters
        ----------
        snapshot, ae
            The configuration, and the AE that is asked.
        """
        try:
            yield from self._responses(request, snapshot, ae)
        except RefusedQueryError as error:
            _report(request, str(error), logging.WARNING)
            yield failure(error.status, str(error), error.offending), None
        except LedgerUnavailableError as error:
            _report(request, str(error), logging.ERROR)
            yield failure(FindStatus.OUT_OF_RESOURCES, "the index cannot be read now"), None
        except LedgerError as error:
            _report(request, str(error), logging.ERROR)
            yield failure(FindStatus.UNABLE_TO_PROCESS, "the index refused the query"), None
        except CoercionFailedError as error:
            _report(request, str(error), logging.ERROR)
            yield failure(FindStatus.PROCESSING_FAILURE, "a coercion rule failed"), None
        except DicomqError as error:
            _report(request, str(error), logging.ERROR)
            yield failure(FindStatus.UNABLE_TO_PROCESS, str(error)), None

    def _responses(
        self, request: FindRequest, snapshot: Snapshot, ae: NetworkAE
    ) -> Iterator[Response]:
        if request.identifier is None:
            msg = "the identifier is missing or cannot be decoded"
            raise RefusedQueryError(FindStatus.UNABLE_TO_PROCESS, msg)
        terms = terms_of(request.extended, ae)
        plan = plan_find(request.identifier, request.sop_class_uid, terms)
        asked = request.identifier
        if ae.spanning_c_find_scp is not None:
            asked = completed(request.identifier, plan.level)
            plan = plan_find(asked, request.sop_class_uid, terms)
        self._check_limit(plan)
        identity = Identity(
            ae.return_retrieve_aets or snapshot.device.return_retrieve_aets,
            is_implicit=request.is_implicit,
            is_little_endian=request.is_little_endian,
        )
        own = (
            (
                str(match.values.get(STUDY_INSTANCE_UID.tag) or ""),
                build_response(plan, match, identity),
            )
            for match in self._matches(plan)
        )
        question = Question(
            asked,
            request.sop_class_uid,
            plan.level,
            request.extended,
            is_completed=asked is not request.identifier,
        )
        found = spanned(own, question, snapshot, ae)
        coercer = AnswerCoercer(
            self._ledger,
            self._clock,
            configuration=(snapshot, ae),
            facts=AssociationFacts(request.calling_aet, ae.title, request.calling_host),
            wait_s=self._leading_wait_s,
        )
        sent = 0
        for identifier in coercer.applied(found):
            if request.is_cancelled():
                yield int(FindStatus.CANCEL), None
                return
            yield int(FindStatus.PENDING), identifier
            sent += 1
            if not self._has_room(request):
                return
        _report(request, f"{sent} matches at level {plan.level}", logging.INFO)

    def _matches(self, plan: FindPlan) -> Iterator[Match]:
        with contextlib.closing(index.find(self._ledger, plan.query)) as matches:
            yield from matches

    def _check_limit(self, plan: FindPlan) -> None:
        """Refuse what would give more matches than are allowed without a unique key."""
        limit = plan.query.limit
        if limit and index.count(self._ledger, replace(plan.query, returned=()), limit) > limit:
            msg = f"Request entity too large: more than {limit} matches"
            raise RefusedQueryError(FindStatus.UNABLE_TO_PROCESS, msg)

    def _has_room(self, request: FindRequest) -> bool:
        """Wait until the peer has taken most responses; False when the association ended."""
        while request.is_open() and request.waiting() > _MOST_WAITING:
            self._clock.sleep(_PAUSE_S)
        return request.is_open()


def failure(status: FindStatus, comment: str, offending: tuple[int, ...] = ()) -> Dataset:
    """Return a status with Error Comment and Offending Element (PS3.7 §C.4.2)."""
    dataset = Dataset()
    dataset.Status = int(status)
    text = comment.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    dataset.ErrorComment = text[:_COMMENT_LENGTH]
    if offending:
        dataset.OffendingElement = list(offending) if len(offending) > 1 else offending[0]
    return dataset


def _report(request: FindRequest, what: str, level: int) -> None:
    _log.log(level, "C-FIND of %s (%s): %s", request.calling_aet, request.calling_host, what)
