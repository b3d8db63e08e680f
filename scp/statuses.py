"""Statuses of C-STORE responses (PS3.4 §B.2.3, PS3.7 §C.5) and which error leads to which."""

from enum import IntEnum

from archive.errors import DatasetError, LedgerUnavailableError, StorageError


class StoreStatus(IntEnum):
    """Statuses that this SCP answers to C-STORE."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    INVALID_SOP_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC499


class RefusedObjectError(DatasetError):
    """An object is refused with a status of its own; the sender has to correct it."""

    def __init__(self, status: StoreStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: Exception) -> StoreStatus:
    """Return the status for an object that `error` kept from being stored.

    A lack of space or of the ledger is answered with A700, which senders take as a reason to try
    again later; the object is not acknowledged and nothing of it is kept.
    """
    match error:
        case RefusedObjectError():
            return error.status
        case StorageError() | LedgerUnavailableError():
            return StoreStatus.OUT_OF_RESOURCES
        case DatasetError():
            return StoreStatus.CANNOT_UNDERSTAND
        case _:
            return StoreStatus.PROCESSING_FAILURE
