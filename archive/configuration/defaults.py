"""The default directory that comes with the program."""

from collections.abc import Iterator
from pathlib import Path

from archive.configuration.entries import Entry
from archive.configuration.ldif import parse_ldif
from archive.configuration.records import AddRecord
from archive.errors import ConfigurationError

_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE / "default", _HERE.parent.parent / "deploy" / "ldap" / "default")


def default_folder() -> Path:
    """Return the folder with the default directory's LDIF files.

    Raises
    ------
    ConfigurationError
        When the installation lacks them.
    """
    for folder in _FOLDERS:
        if any(folder.glob("*.ldif")):
            return folder
    msg = (
        f"the default directory is neither in {_FOLDERS[0]} nor in {_FOLDERS[1]}: reinstall dicomq"
    )
    raise ConfigurationError(msg)


def default_entries() -> Iterator[Entry]:
    """Yield the entries of the default directory, each below those it depends on.

    Raises
    ------
    ConfigurationError
        When the installation lacks them.
    """
    for path in sorted(default_folder().glob("*.ldif")):
        for record in parse_ldif(path.read_bytes()).records:
            if isinstance(record, AddRecord):
                yield Entry.of(record.dn, record.attributes)
