"""Drops local copies of studies that another archive holds; the index keeps knowing them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.errors import ConfigurationError, InvalidValueError, StorageError
from archive.ledger import purging
from archive.ledger.purging import PurgedStudy

if TYPE_CHECKING:
    from archive.configuration.descriptors import Snapshot
    from archive.ledger.connection import Ledger
    from archive.model.entities import StoredFile
    from archive.storage.base import Storages


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What became of one study.

    Attributes
    ----------
    kept_files
        Files that could not be deleted, with the reason; they belong to no object any more, and
        the sweep at the next start of the SCP deletes them.
    """

    study: PurgedStudy
    kept_files: tuple[str, ...]


def check_external_aet(snapshot: "Snapshot", external_aet: str) -> None:
    """Check that objects can be fetched from an AE again.

    Raises
    ------
    InvalidValueError
        When the directory has no such AE, or it is one of this archive.
    """
    if external_aet in snapshot.device.aes:
        msg = f"{external_aet} is an AE of this archive, which cannot hold what it drops"
        raise InvalidValueError(msg)
    if external_aet not in snapshot.remote_aes:
        msg = (
            f"the directory has no AE {external_aet}, so nothing could be fetched from it again: "
            "add its device, connection and AE"
        )
        raise InvalidValueError(msg)


def purge_studies(
    ledger: "Ledger",
    storages: "Storages",
    study_instance_uids: Iterable[str],
    *,
    external_aet: str | None,
    force: bool,
    dry_run: bool = False,
) -> Iterator[PurgeReport]:
    """Purge studies one by one, each in a transaction of its own; yield what became of it.

    Files are deleted only after the commit: a crash in between leaves files without a row.

    Parameters
    ----------
    external_aet
        Archive that holds all of them; None relies on what is recorded with the objects.
    force
        Purge also what nobody else is known to hold.
    dry_run
        Only say what would become of it.

    Raises
    ------
    LedgerError
        When the ledger cannot be used; studies yielded before are done.
    """
    purge = purging.try_purge if dry_run else purging.purge_study
    for uid in study_instance_uids:
        with ledger.transaction() as tx:
            study = purge(tx, uid, external_aet=external_aet, force=force)
        if dry_run:
            yield PurgeReport(study, ())
            continue
        kept = tuple(reason for file in study.files if (reason := _delete(storages, file)))
        yield PurgeReport(study, kept)


def _delete(storages: "Storages", file: "StoredFile") -> str | None:
    try:
        storages.get(file.storage_id).delete(file.storage_path)
    except (StorageError, ConfigurationError) as error:
        return f"{file.storage_path} on {file.storage_id}: {error}"
    return None
