"""A storage that is a directory of this host (dcmURI ``file:``)."""

import urllib.parse
from pathlib import Path
from typing import BinaryIO, Protocol

from archive.clock import SYSTEM_CLOCK, Clock
from archive.errors import (
    ConfigurationError,
    InvalidValueError,
    ObjectUnreadableError,
    StorageError,
)
from archive.model.digests import DEFAULT_DIGEST, DIGESTS
from archive.storage.directories import DurableDirectories
from archive.storage.incoming import IncomingLocalFile, Layout, storage_error
from archive.storage.leftovers import Leftovers
from archive.storage.marks import final_path_of
from archive.storage.path_format import DEFAULT_PATH_FORMAT, PathFormat, check_path
from archive.storage.sweeping import KnownPaths, SweepReport


class StorageDescriptor(Protocol):
    """The part of a dcmStorage entry that a file storage needs."""

    @property
    def storage_id(self) -> str:
        """The dcmStorageID."""
        ...

    @property
    def uri(self) -> str:
        """The dcmURI with variables expanded."""
        ...

    @property
    def path_format(self) -> str:
        """The dcmStoragePathFormat."""
        ...

    @property
    def digest_algorithm(self) -> str | None:
        """The dcmDigestAlgorithm; None takes `DEFAULT_DIGEST`."""
        ...

    @property
    def check_mount_file(self) -> str | None:
        """The dcmCheckMountFilePath: a file that is only there while nothing is mounted."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written."""
        ...


class FileStorage:
    """Objects as files below one root directory; see `archive.storage.base.Storage`."""

    def __init__(
        self, descriptor: StorageDescriptor, data_dir: Path, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        root = root_of(descriptor.uri, data_dir)
        self._descriptor = descriptor
        self._clock = clock
        self._layout = Layout(
            storage_id=descriptor.storage_id,
            root=root,
            path_format=path_format_of(descriptor),
            digest_algorithm=digest_of(descriptor),
            directories=DurableDirectories(root),
            clock=clock,
        )

    @property
    def storage_id(self) -> str:
        """The identifier that rows of the ledger carry (dcmStorageID)."""
        return self._layout.storage_id

    @property
    def root(self) -> Path:
        """The directory below which everything lies."""
        return self._layout.root

    @property
    def is_local(self) -> bool:
        """Whether it is written through the file system of this host."""
        return True

    def create(self, file_header: bytes, transfer_syntax_uid: str) -> IncomingLocalFile:
        """Start a file with `file_header` (PS3.10 §7.1)."""
        if self._descriptor.read_only:
            msg = f"storage {self.storage_id} is read-only (dcmReadOnly): configure another one"
            raise StorageError(msg)
        marker = self._descriptor.check_mount_file
        if marker and (self.root / marker).exists():
            msg = (
                f"storage {self.storage_id} is not mounted: {self.root / marker} is visible "
                "(dcmCheckMountFilePath); mount it, senders will try again"
            )
            raise StorageError(msg)
        return IncomingLocalFile(self._layout, file_header, transfer_syntax_uid)

    def open(self, path: str) -> BinaryIO:
        """Open a stored file for reading."""
        try:
            return self.local_path(path).open("rb")
        except OSError as error:
            msg = f"storage {self.storage_id}: file {path} cannot be opened: {error.strerror}"
            raise ObjectUnreadableError(msg) from error

    def local_path(self, path: str) -> Path:
        """Return where `path` lies on this host."""
        return self.root / check_path(path)

    def delete(self, path: str) -> None:
        """Delete a stored file; one that is gone already is no error."""
        try:
            self.local_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.storage_id, f"delete {path}", error) from error

    def is_in_doubt(self, path: str) -> bool:
        """Tell whether a file is being stored under `path`."""
        incoming = self._layout.incoming
        return incoming.is_dir() and any(
            final_path_of(entry.name) == path for entry in incoming.iterdir()
        )

    def sweep(self, known: KnownPaths, older_than_s: float) -> SweepReport:
        """Delete temporary files and files in doubt that have no row."""
        try:
            return Leftovers(self.root, self._clock, older_than_s).sweep(known)
        except OSError as error:
            raise storage_error(self.storage_id, "sweep", error) from error


def root_of(uri: str, data_dir: Path) -> Path:
    """Return the directory that a ``file:`` URI names; a relative one lies below `data_dir`.

    Raises
    ------
    ConfigurationError
        When the URI has another scheme, a host, or an unexpanded variable.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != "file" or "${" in rest or not rest:
        msg = f"dcmURI {uri!r} is not a usable file: URI, for example file:///srv/dicom/"
        raise ConfigurationError(msg)
    if rest.startswith("//"):
        host, _, rest = rest.removeprefix("//").partition("/")
        if host not in {"", "localhost"}:
            msg = f"dcmURI {uri!r} names the host {host}: only directories of this host can be used"
            raise ConfigurationError(msg)
        rest = f"/{rest}"
    return (data_dir / urllib.parse.unquote(rest)).absolute()


def digest_of(descriptor: StorageDescriptor) -> str:
    """Return the algorithm of the storage's dcmDigestAlgorithm.

    Raises
    ------
    ConfigurationError
        When the algorithm is unknown.
    """
    name = descriptor.digest_algorithm
    if not name:
        return DEFAULT_DIGEST
    try:
        return DIGESTS[name.upper()]
    except KeyError:
        msg = (
            f"storage {descriptor.storage_id}: dcmDigestAlgorithm {name!r} is not one of "
            f"{', '.join(DIGESTS)}"
        )
        raise ConfigurationError(msg) from None


def path_format_of(descriptor: StorageDescriptor) -> PathFormat:
    """Return the storage's parsed dcmStoragePathFormat.

    Raises
    ------
    ConfigurationError
        When the format cannot be used.
    """
    try:
        return PathFormat.parse(descriptor.path_format or DEFAULT_PATH_FORMAT)
    except InvalidValueError as error:
        msg = f"storage {descriptor.storage_id}: {error}"
        raise ConfigurationError(msg) from error
