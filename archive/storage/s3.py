"""A storage that is a bucket of an S3 server, or a part of one (dcmURI ``s3:``).

Several hosts share it. Nobody can hold a lock on an object, so a sweep knows abandoned ones by
their age: what has been in doubt for an hour has no owner any more, as its owner would have given
it up long before.
"""

from pathlib import Path
from typing import BinaryIO, Final, cast

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import ObjectUnreadableError, StorageError
from archive.storage.filesystem import digest_of, path_format_of
from archive.storage.marks import INCOMING, final_path_of
from archive.storage.path_format import check_path
from archive.storage.s3_access import S3Descriptor, access_of
from archive.storage.s3_client import S3Client
from archive.storage.s3_incoming import IncomingS3Object, S3Layout
from archive.storage.s3_stream import S3Stream
from archive.storage.sweeping import KnownPaths, SweepReport

SPOOL: Final = "spool"
OWNERLESS_AGE_S: Final = 3600.0
"""What has been in doubt for so long has no owner any more."""


class S3Storage:
    """Objects in a bucket; see `archive.storage.base.Storage`.

    Parameters
    ----------
    ownerless_age_s
        Seconds after which what is in doubt has no owner any more.
    """

    def __init__(
        self,
        descriptor: S3Descriptor,
        data_dir: Path,
        clock: Clock = SYSTEM_CLOCK,
        *,
        ownerless_age_s: float = OWNERLESS_AGE_S,
    ) -> None:
        self._ownerless_age_s = ownerless_age_s
        self._access = access_of(descriptor)
        self._read_only = descriptor.read_only
        self._clock = clock
        self._layout = S3Layout(
            storage_id=descriptor.storage_id,
            client=S3Client(descriptor.storage_id, self._access),
            path_format=path_format_of(descriptor),
            digest_algorithm=digest_of(descriptor),
            spool=data_dir / SPOOL,
            clock=clock,
        )

    @property
    def storage_id(self) -> str:
        """The identifier that rows of the ledger carry (dcmStorageID)."""
        return self._layout.storage_id

    @property
    def is_local(self) -> bool:
        """Whether it is written through the file system of this host."""
        return False

    def create(self, file_header: bytes, transfer_syntax_uid: str) -> IncomingS3Object:
        """Start an object with `file_header` (PS3.10 §7.1)."""
        if self._read_only:
            msg = f"storage {self.storage_id} is read-only (dcmReadOnly): configure another one"
            raise StorageError(msg)
        self._layout.spool.mkdir(parents=True, exist_ok=True)
        return IncomingS3Object(self._layout, file_header, transfer_syntax_uid)

    def open(self, path: str) -> BinaryIO:
        """Open a stored object for reading."""
        stream = S3Stream(
            self._layout.client,
            check_path(path),
            attempts=self._access.attempts,
            delay_s=self._access.retry_delay_s,
            clock=self._clock,
        )
        return cast("BinaryIO", stream)

    def local_path(self, path: str) -> Path | None:  # noqa: ARG002 - as the protocol has it
        """Return None: no object lies on this host."""
        return None

    def delete(self, path: str) -> None:
        """Delete a stored object; one that is gone already is no error."""
        self._layout.client.delete(check_path(path))

    def is_in_doubt(self, path: str) -> bool:
        """Tell whether an object is being stored under `path`."""
        marks = self._layout.client.keys(f"{INCOMING}/")
        return any(final_path_of(each.key) == path for each in marks)

    def sweep(self, known: KnownPaths, older_than_s: float) -> SweepReport:
        """Delete objects in doubt that have no row, their marks, and unfinished uploads."""
        age_s = max(older_than_s, self._ownerless_age_s)
        client = self._layout.client
        marks = {
            each.key: final_path_of(each.key)
            for each in client.keys(f"{INCOMING}/")
            if each.age_s >= age_s
        }
        paths = [path for path in marks.values() if path is not None]
        rows = known(paths) if paths else set()
        report = self._swept(marks, rows)
        return SweepReport(
            (*report.removed, *client.abort_uploads(age_s)), report.confirmed, report.missing
        )

    def _swept(self, marks: dict[str, str | None], rows: set[str]) -> SweepReport:
        removed: list[str] = []
        confirmed: list[str] = []
        missing: list[str] = []
        for mark, path in marks.items():
            if path is None:
                removed.append(mark)
            elif path not in rows:
                self.delete(path)
                removed.append(path)
            elif self._exists(path):
                confirmed.append(path)
            else:
                missing.append(path)
                continue
            self._layout.client.delete(mark)
        return SweepReport(tuple(removed), tuple(confirmed), tuple(missing))

    def _exists(self, path: str) -> bool:
        try:
            self._layout.client.size(path)
        except ObjectUnreadableError:
            return False
        return True
