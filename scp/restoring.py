"""Whether what the index has of a repeated object is there; else the new copy takes its place.

A copy of a known object is dropped because the archive has one. That is looked at before it is
dropped: who sends an object again often does so because its file was found missing or damaged.
"""

import logging

from archive import telemetry
from archive.errors import ConfigurationError, ObjectUnreadableError, StorageError
from archive.ledger.connection import Ledger
from archive.ledger.objects import instance_files
from archive.model.entities import StoredFile
from archive.storage.base import Storages
from archive.storage.verification import Thoroughness, verify_file
from archive.telemetry import log_event

_log = logging.getLogger(__name__)


def has_lost(ledger: Ledger, storages: Storages, instance_pk: int, *, new: StoredFile) -> bool:
    """Tell whether every copy of an object is missing or has other contents than were stored.

    A storage that cannot be asked says nothing about its files. Files are read to their end.

    Parameters
    ----------
    new
        The file of the copy that was received now; it may have got the path of a missing one.

    Raises
    ------
    LedgerError
        When the ledger cannot be asked.
    """
    files = _files(ledger, instance_pk)
    reasons = [reason for file in files if (reason := _damage(storages, file, new))]
    if not files or len(reasons) < len(files):
        return False
    if _files(ledger, instance_pk) != files:  # replaced meanwhile
        return False
    log_event(
        _log,
        telemetry.OBJECT_RESTORED,
        level=logging.WARNING,
        instance=instance_pk,
        message=f"{'; '.join(reasons)}; the copy that was received now takes its place; find out "
        "why the storage lost it (a fault of this archive or its storage)",
    )
    return True


def _files(ledger: Ledger, instance_pk: int) -> list[StoredFile]:
    with ledger.statement() as tx:
        return instance_files(tx, instance_pk)


def _damage(storages: Storages, file: StoredFile, new: StoredFile) -> str:
    """Return what is wrong with a file; empty when it is sound, or nobody can tell."""
    if (file.storage_id, file.storage_path) == (new.storage_id, new.storage_path):
        return f"storage {file.storage_id}: file {file.storage_path} was missing"
    try:
        verify_file(storages.get(file.storage_id), file, Thoroughness.CHECKSUM)
    except ObjectUnreadableError as error:
        return str(error)
    except (StorageError, ConfigurationError):
        return ""
    return ""
