"""What a peer means by the status of a DIMSE response, and whether asking again can help.

The general codes are those of PS3.7 Annex C; the service tables add PS3.4 §B.2.3 (C-STORE),
§C.4.2.1.5 (C-MOVE); Annex J (N-ACTION and N-EVENT-REPORT of a storage commitment) and Annex R
(N-CREATE of an Instance Availability Notification) know the general codes only.
"""

from dataclasses import dataclass
from enum import StrEnum

from archive.model.task import Failure

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111
SOP_CLASS_NOT_SUPPORTED = 0x0122


class Service(StrEnum):
    """DIMSE services whose statuses are told apart."""

    C_STORE = "C-STORE"
    C_MOVE = "C-MOVE"
    N_CREATE = "N-CREATE"
    N_ACTION = "N-ACTION"
    N_EVENT_REPORT = "N-EVENT-REPORT"


class StatusClass(StrEnum):
    """Class of a status (PS3.7 §C.1 to §C.5)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class DimseStatus:
    """A status code as a service means it.

    Attributes
    ----------
    failure
        For failures: whether another attempt can help; None for every other class.
    """

    code: int
    status_class: StatusClass
    meaning: str
    failure: Failure | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the peer did what it was asked: success or warning."""
        return self.status_class in {StatusClass.SUCCESS, StatusClass.WARNING}

    def describe(self, comment: str = "") -> str:
        """Return code, meaning and the peer's Error Comment (0000,0902) for an administrator."""
        words = f"{self.code:04X} {self.meaning}"
        return f'{words}: "{comment}"' if comment else words


@dataclass(frozen=True, slots=True)
class _Meaning:
    status_class: StatusClass
    words: str
    failure: Failure | None = None


def _warning(words: str) -> _Meaning:
    return _Meaning(StatusClass.WARNING, words)


def _transient(words: str) -> _Meaning:
    return _Meaning(StatusClass.FAILURE, words, Failure.TRANSIENT)


def _permanent(words: str) -> _Meaning:
    return _Meaning(StatusClass.FAILURE, words, Failure.PERMANENT)


_GENERAL: dict[int, _Meaning] = {
    SUCCESS: _Meaning(StatusClass.SUCCESS, "success"),
    0x0001: _warning("requested optional attributes are not supported"),
    0x0105: _permanent("no such attribute"),
    0x0106: _permanent("invalid attribute value"),
    0x0107: _warning("attribute list error"),
    0x0110: _transient("processing failure"),
    DUPLICATE_SOP_INSTANCE: _permanent("duplicate SOP instance"),
    0x0112: _permanent("no such SOP instance"),
    0x0113: _permanent("no such event type"),
    0x0114: _permanent("no such argument"),
    0x0115: _permanent("invalid argument value"),
    0x0116: _warning("attribute value out of range"),
    0x0117: _permanent("invalid SOP instance"),
    0x0118: _permanent("no such SOP class"),
    0x0119: _permanent("class-instance conflict"),
    0x0120: _permanent("missing attribute"),
    0x0121: _permanent("missing attribute value"),
    SOP_CLASS_NOT_SUPPORTED: _permanent("refused: SOP class not supported"),
    0x0123: _permanent("no such action"),
    0x0124: _permanent("refused: not authorized"),
    0x0210: _transient("duplicate invocation"),
    0x0211: _permanent("unrecognized operation"),
    0x0212: _permanent("mistyped argument"),
    0x0213: _transient("resource limitation"),
    0xFE00: _Meaning(StatusClass.CANCEL, "canceled"),
}

# (mask, value, meaning), the first that fits wins
_Range = tuple[int, int, _Meaning]

_STORE: tuple[_Range, ...] = (
    (0xFF00, 0xA700, _transient("refused: out of resources")),
    (0xFF00, 0xA900, _permanent("error: data set does not match SOP class")),
    (0xF000, 0xC000, _permanent("error: cannot understand")),
    (0xFFFF, 0xB000, _warning("coercion of data elements")),
    (0xFFFF, 0xB006, _warning("elements discarded")),
    (0xFFFF, 0xB007, _warning("data set does not match SOP class")),
)

_MOVE: tuple[_Range, ...] = (
    (0xFFFF, 0xA701, _transient("refused: out of resources, cannot count the matches")),
    (0xFFFF, 0xA702, _transient("refused: out of resources, cannot perform sub-operations")),
    (0xFFFF, 0xA801, _permanent("refused: move destination unknown")),
    (0xFFFF, 0xA900, _permanent("identifier does not match SOP class")),
    (0xFFFF, 0xAA00, _permanent("none of the frames requested were found")),
    (0xFFFF, 0xAA01, _permanent("unable to create new object for this SOP class")),
    (0xFFFF, 0xAA02, _permanent("unable to extract frames")),
    (0xFFFF, 0xAA03, _permanent("time-based request for a non-time-based instance")),
    (0xFFFF, 0xAA04, _permanent("invalid request")),
    (0xF000, 0xC000, _transient("failed: unable to process")),
    (0xFFFF, 0xB000, _warning("sub-operations complete, one or more failures")),
    (0xFFFF, 0xFF00, _Meaning(StatusClass.PENDING, "sub-operations are continuing")),
)

_RANGES: dict[Service, tuple[_Range, ...]] = {
    Service.C_STORE: _STORE,
    Service.C_MOVE: _MOVE,
    Service.N_CREATE: (),
    Service.N_ACTION: (),
    Service.N_EVENT_REPORT: (),
}

# An unassigned code cannot be told permanent, so the queue's limit of retries decides.
_UNASSIGNED: tuple[_Range, ...] = (
    (0xF000, 0xB000, _warning("warning not defined by the standard")),
    (0x0000, 0x0000, _transient("status not defined by the standard")),
)


def classify(service: Service, code: int) -> DimseStatus:
    """Return what `code` means in a response of `service`.

    Parameters
    ----------
    service
        The service whose response carried it.
    code
        Status (0000,0900), 0 to FFFF hexadecimal.
    """
    meaning = _GENERAL.get(code)
    if meaning is None:
        ranges = (*_RANGES[service], *_UNASSIGNED)
        meaning = next(words for mask, value, words in ranges if code & mask == value)
    return DimseStatus(code, meaning.status_class, meaning.words, meaning.failure)
