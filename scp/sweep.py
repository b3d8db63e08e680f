"""Cleans up what a crash left on the storages, and reports files that are missing."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from archive import telemetry
from archive.configuration.descriptors import Snapshot
from archive.errors import ConfigurationError, ObjectUnreadableError, StorageError
from archive.ledger.connection import Ledger
from archive.ledger.objects import known_paths, recent_paths
from archive.storage.base import Storage, Storages
from archive.storage.sweeping import SweepReport
from archive.telemetry import log_event
from scp.obsolete import sweep_obsolete

GRACE_S: Final = 0.0
"""Age from which a file in doubt is looked at: at once, as files of living processes are locked."""

RECENT_S: Final = 3600.0
_log = logging.getLogger(__name__)


def sweep_storages(ledger: Ledger, snapshot: Snapshot, storages: Storages) -> None:
    """Confirm or remove the files in doubt of every storage that can be written.

    Raises
    ------
    LedgerUnavailableError
        When the ledger cannot say which files have a row; nothing was removed then.
    """
    for storage_id, descriptor in snapshot.device.storages.items():
        if not descriptor.installed or descriptor.read_only:
            continue
        try:
            storage = storages.get(storage_id)
            report = storage.sweep(partial(_known, ledger, storage_id), GRACE_S)
            sweep_obsolete(ledger, storages, storage_id)
        except ConfigurationError as error:
            log_event(
                _log, telemetry.CONFIGURATION_PROBLEM, level=logging.WARNING, message=str(error)
            )
        except StorageError as error:
            message = f"{error}; its files in doubt are looked at with the next sweep"
            log_event(
                _log,
                telemetry.STORAGE_UNAVAILABLE,
                level=logging.WARNING,
                storage_id=storage_id,
                message=message,
            )
        else:
            _report(storage_id, report)


def check_recent_files(ledger: Ledger, snapshot: Snapshot, storages: Storages) -> None:
    """Report objects recorded in the last hour whose file is not there.

    Only files of this host are looked at: what the crash of a host loses are its own.
    """
    for storage_id, descriptor in snapshot.device.storages.items():
        if not descriptor.installed or not descriptor.uri.startswith("file:"):
            continue
        with ledger.statement() as tx:
            recent = recent_paths(tx, storage_id, RECENT_S)
        storage = storages.get(storage_id)
        for path, sop_instance_uid in recent:
            if not _exists(storage, path):
                _report_missing(storage_id, path, sop_instance_uid)


def _known(ledger: Ledger, storage_id: str, paths: Sequence[str]) -> set[str]:
    with ledger.statement() as tx:
        return known_paths(tx, storage_id, paths)


def _exists(storage: Storage, path: str) -> bool:
    try:
        storage.open(path).close()
    except ObjectUnreadableError:
        return False
    return True


def _report(storage_id: str, report: SweepReport) -> None:
    if report.removed or report.confirmed:
        log_event(
            _log,
            telemetry.STORAGE_SWEPT,
            storage_id=storage_id,
            removed=len(report.removed),
            confirmed=len(report.confirmed),
        )
    for path in report.missing:
        _report_missing(storage_id, path, None)


def _report_missing(storage_id: str, path: str, sop_instance_uid: str | None) -> None:
    log_event(
        _log,
        telemetry.STORAGE_FILE_MISSING,
        level=logging.ERROR,
        storage_id=storage_id,
        storage_path=path,
        sop=sop_instance_uid,
        message="the ledger has the object but its file is gone; restore it or send it again",
    )
