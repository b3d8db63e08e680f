"""What has to be known and done before the processes start, in a process of its own.

The launcher stays for as long as the system runs, and would keep the memory that this takes.

``python -m deploy.preparation endpoints`` prints what the archive device will listen on as JSON,
``python -m deploy.preparation migrate`` brings the schema of the ledger up to date.
"""

import contextlib
import json
import os
import sys
from dataclasses import dataclass

from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import DicomqError
from archive.ledger.connection import Ledger


@dataclass(frozen=True)
class Listening:
    """An AE, and where it listens."""

    title: str
    bind_address: str | None
    port: int


def endpoints(settings: Settings) -> list[Listening]:
    """Return what will listen, read from the same directory as the processes read."""
    snapshot = open_source(settings).snapshot()
    return [
        Listening(ae.title, connection.bind_address, connection.port)
        for ae in snapshot.device.aes.values()
        for connection in ae.connections
        if ae.installed and connection.port is not None
    ]


def migrate(settings: Settings) -> None:
    """Apply the migrations that are missing."""
    with contextlib.closing(Ledger(settings.database_url, max_connections=1)) as ledger:
        ledger.migrate()


def main() -> int:
    """Do what the only argument says; return the exit status."""
    settings = Settings.from_environment(os.environ)
    try:
        if sys.argv[1:] == ["migrate"]:
            migrate(settings)
        else:
            json.dump([vars(each) for each in endpoints(settings)], sys.stdout)
    except (DicomqError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
