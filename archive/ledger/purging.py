"""Purging: local copies of objects that can be had elsewhere are dropped, the index stays."""

from dataclasses import asdict, dataclass

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.entities import StoredFile


@dataclass(frozen=True, slots=True)
class PurgeFilter:
    """Which studies to look at; None restricts nothing.

    Attributes
    ----------
    patient_name
        Beginning of the name, in any case.
    study_date_from, study_date_to
        Study Date (0008,0020) as YYYYMMDD, both included.
    older_than_s
        Seconds since the study's first object came in.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    modality: str | None = None
    study_date_from: str | None = None
    study_date_to: str | None = None
    older_than_s: float | None = None


@dataclass(frozen=True, slots=True)
class PurgedStudy:
    """What became of a study.

    Attributes
    ----------
    refusal
        Why nothing was dropped, None when it was.
    instances
        Number of objects without a local copy now that had one before.
    files
        Files that belong to no object any more, to be deleted once the transaction is committed.
    """

    study_instance_uid: str
    refusal: str | None
    instances: int
    files: tuple[StoredFile, ...]


def try_purge(
    tx: Transaction, study_instance_uid: str, *, external_aet: str | None, force: bool
) -> PurgedStudy:
    """Return what `purge_study` would do, and do nothing."""
    with tx.transaction(force_rollback=True):
        return purge_study(tx, study_instance_uid, external_aet=external_aet, force=force)


def purge_study(
    tx: Transaction, study_instance_uid: str, *, external_aet: str | None, force: bool
) -> PurgedStudy:
    """Drop the local copies of a study's objects.

    Refused when objects are not known to be held by another archive (that committed them, or
    `external_aet`), or exports and retrieves of the study are not done yet, unless `force`.

    Parameters
    ----------
    external_aet
        Archive that holds all of the study; None relies on what is recorded.
    """
    row = tx.execute(
        load_queries("retrievals")["purge_study"],
        {"study": study_instance_uid, "external_aet": external_aet, "force": force},
    ).fetchone()
    assert row is not None  # noqa: S101 - the function always returns a row
    refusal, instances, files = row
    return PurgedStudy(
        study_instance_uid,
        refusal,
        instances,
        tuple(
            StoredFile(
                storage_id=file["storage_id"],
                storage_path=file["storage_path"],
                transfer_syntax_uid=file["transfer_syntax_uid"],
                object_size=file["object_size"],
                dataset_offset=file["dataset_offset"],
                digest=file["digest"],
            )
            for file in files
        ),
    )


def studies_matching(tx: Transaction, wanted: PurgeFilter) -> list[str]:
    """Return the Study Instance UIDs of studies with local files that fit a filter."""
    rows = tx.execute(
        load_queries("retrievals")["studies_matching"],
        asdict(wanted),
    )
    return [uid for (uid,) in rows]
