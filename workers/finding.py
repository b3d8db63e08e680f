"""C-FIND as requestor (PS3.4 §C.4.1.2): one request, its matches, the final status."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import NoAcceptedContextError, PeerError
from workers.association import Association
from workers.contexts import EXPLICIT_VR_LE, IMPLICIT_VR_LE, ProposedContext
from workers.route import Route

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_PENDING = frozenset({0xFF00, 0xFF01})
_SUCCESS = 0x0000


class QueryFailedError(PeerError):
    """The remote AE ended a query with another status than success."""


class FindAssociation(Association):
    """An association for queries of one information model."""

    def __init__(
        self, route: Route, sop_class_uid: str = STUDY_ROOT_FIND, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        syntaxes = (EXPLICIT_VR_LE, IMPLICIT_VR_LE)
        super().__init__(route, (ProposedContext(sop_class_uid, syntaxes),), clock)
        self._sop_class_uid = sop_class_uid

    def find(self, identifier: Dataset) -> Iterator[Dataset]:
        """Send a query and yield its matches.

        A match that cannot be decoded is passed over.

        Raises
        ------
        NoAcceptedContextError
            When the remote AE did not accept the information model.
        QueryFailedError
            When it ends the query with a failure.
        PeerTimeoutError
            When no response came within dcmResponseTimeout.
        AssociationAbortedError
            When it aborts or closes the connection before the final response.
        """
        if not self.accepted:
            msg = f"{self.route} did not accept C-FIND of model {self._sop_class_uid}"
            raise NoAcceptedContextError(msg)
        if not self._requestor.is_established:
            raise self.broken_error(when="before the C-FIND request")
        asked = self._clock.monotonic()
        for status, match in self._requestor.send_c_find(identifier, self._sop_class_uid):
            if "Status" not in status:
                waited_s = self._clock.monotonic() - asked
                raise self._no_response(request="C-FIND", waited_s=waited_s)
            if status.Status in _PENDING:
                if match is not None:
                    yield match
                asked = self._clock.monotonic()
            elif status.Status != _SUCCESS:
                comment = str(status.get("ErrorComment", "") or "")
                msg = f"{self.route} ended the query with {status.Status:04X} {comment}".rstrip()
                raise QueryFailedError(msg)
