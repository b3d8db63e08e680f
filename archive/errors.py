"""The error tree of dicomq.

Every error says whose fault it is (`blame`) and whether trying the same again can help
(`retryable`). Seams (ledger, directory, storage, association) translate foreign exceptions into
these classes with ``raise ... from``; nothing above a seam catches a library's exception.
"""

from enum import StrEnum


class Blame(StrEnum):
    """Who has to act to make an error go away."""

    OURS = "ours"
    PEER = "peer"
    OPERATOR = "operator"


class DicomqError(Exception):
    """Root of all errors raised by dicomq.

    Parameters
    ----------
    message
        What happened, to which object or entry, and what to do, in one sentence for an
        administrator.
    """

    retryable: bool = False
    blame: Blame = Blame.OURS


class InvalidValueError(DicomqError, ValueError):
    """A value does not have the form that the standard or the configuration demands."""

    blame = Blame.OPERATOR


class ConfigurationError(DicomqError):
    """The configuration lacks or contradicts something a task or an association needs."""

    blame = Blame.OPERATOR


class TlsMaterialError(ConfigurationError):
    """A file with keys or trusted certificates cannot be used; it may be replaced at any time."""

    retryable = True


class DirectoryUnavailableError(ConfigurationError):
    """The directory (LDAP server or LDIF file) cannot be read now; the last snapshot stands."""

    retryable = True


class LedgerError(DicomqError):
    """The ledger refused a statement: a defect of ours."""


class LedgerUnavailableError(LedgerError):
    """PostgreSQL cannot be reached or dropped the connection; the same call may succeed later."""

    retryable = True


class LedgerConflictError(LedgerError):
    """Two transactions got in each other's way (deadlock); the same call repeated succeeds."""

    retryable = True


class IllegalTransitionError(LedgerError):
    """A task may not go from its present status to the wanted one; nothing was changed."""

    blame = Blame.OPERATOR


class NoSuchTaskError(LedgerError):
    """There is no task with that primary key."""

    blame = Blame.OPERATOR


class StorageError(DicomqError):
    """A storage cannot be written or read."""

    retryable = True


class StorageFullError(StorageError):
    """No space is left on the storage (C-STORE status A700)."""

    blame = Blame.OPERATOR


class ObjectUnreadableError(StorageError):
    """A stored file is missing, truncated or does not match its recorded digest."""

    retryable = False


class DatasetError(DicomqError):
    """Received bytes are not a data set that can be stored (C-STORE status Cxxx or A9xx)."""

    blame = Blame.PEER


class PeerError(DicomqError):
    """A remote AE could not be talked to or did not do what it was asked."""

    retryable = True
    blame = Blame.PEER


class PeerUnreachableError(PeerError):
    """The TCP connection to the remote AE failed, timed out or broke."""


class TlsHandshakeError(PeerUnreachableError):
    """TLS did not come about: certificates, suites or versions of the two sides do not fit.

    Retried like any failure to connect, as certificates are renewed and trust is added without
    the task being touched; the destination's pause keeps the attempts few meanwhile.
    """

    blame = Blame.OPERATOR


class AssociationRejectedError(PeerError):
    """The remote AE rejected the association transiently (PS3.8 §9.3.4, result 2)."""


class AssociationRejectedPermanentlyError(PeerError):
    """The remote AE rejected the association permanently (PS3.8 §9.3.4, result 1)."""

    retryable = False


class AssociationAbortedError(PeerError):
    """The remote AE aborted the association or closed the connection."""


class PeerTimeoutError(PeerError):
    """The remote AE did not answer within the configured time."""


CONNECTION_FAILURES: tuple[type[PeerError], ...] = (
    PeerUnreachableError,
    AssociationRejectedError,
    AssociationAbortedError,
    PeerTimeoutError,
)
"""What makes a destination count as unreachable when nothing was done over the association."""


class NoAcceptedContextError(PeerError):
    """The remote AE accepted no presentation context that could carry the object."""

    retryable = False
