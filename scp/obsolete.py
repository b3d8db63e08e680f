"""Deletes the files of replaced objects; what a crash or an error keeps is deleted by a sweep."""

import logging
from collections.abc import Iterable

from archive import telemetry
from archive.errors import ConfigurationError, LedgerError, ObjectUnreadableError, StorageError
from archive.ledger.connection import Ledger
from archive.ledger.objects import forget_obsolete, obsolete_files
from archive.model.entities import StoredFile
from archive.storage.base import Storages
from archive.storage.verification import Thoroughness, verify_file
from archive.telemetry import log_event

_log = logging.getLogger(__name__)


def delete_replaced(ledger: Ledger, storages: Storages, files: Iterable[StoredFile]) -> None:
    """Delete files right after the commit that made them obsolete; errors are left to the sweep."""
    for file in files:
        try:
            storages.get(file.storage_id).delete(file.storage_path)
            with ledger.statement() as tx:
                forget_obsolete(tx, file)
        except (StorageError, ConfigurationError, LedgerError) as error:
            log_event(
                _log,
                telemetry.OBSOLETE_FILE_KEPT,
                level=logging.WARNING,
                storage_id=file.storage_id,
                storage_path=file.storage_path,
                message=f"{error}; the object was replaced, a later sweep deletes its old file",
            )


def sweep_obsolete(ledger: Ledger, storages: Storages, storage_id: str) -> int:
    """Delete what is left of replaced objects on a storage; return how many files it was.

    A path that another object took in the meantime is only forgotten.

    Raises
    ------
    LedgerUnavailableError, StorageError, ConfigurationError
        When that cannot be done now.
    """
    storage = storages.get(storage_id)
    deleted = 0
    with ledger.statement() as tx:
        files = obsolete_files(tx, storage_id)
    for file in files:
        if storage.is_in_doubt(file.storage_path):
            continue
        try:
            verify_file(storage, file, Thoroughness.CHECKSUM)
        except ObjectUnreadableError:
            pass  # it is gone, or another object's: nothing to delete
        else:
            storage.delete(file.storage_path)
            deleted += 1
        with ledger.statement() as tx:
            forget_obsolete(tx, file)
    return deleted
