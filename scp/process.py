"""Runs a DICOM SCP: ``python -m scp [--port N] [--bind ADDRESS]``.

``python -m scp --health`` asks the one that runs on this host for a C-ECHO instead.
"""

import argparse
import logging
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from archive import telemetry
from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import DicomqError
from archive.ledger.connection import Ledger
from archive.ledger.migrations import Stage
from archive.ledger.reloads import following_reloads
from archive.stopping import set_when_asked
from archive.telemetry import configure_checkpoint, configure_logging, log_event
from scp.health import titles_to_verify, verify
from scp.listening import Address, listening_connection
from scp.server import ScpServer
from scp.sweep import check_recent_files, sweep_storages

SWEEP_INTERVAL_S: Final = 300.0
_POOL_SIZE: Final = 16
_LOOPBACK: Final = "127.0.0.1"
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
_HEALTH_TIMEOUT_S: Final = 5.0
_SWITCH_INTERVAL_S: Final = 0.001
"""After which a thread makes way: with 5 ms a lane waits for each association that begins."""
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGTERM or SIGINT; return the exit status.

    Parameters
    ----------
    arguments
        Command line without the program's name; None takes the process's own.
    """
    options = _options(arguments)
    if options.health:
        return _health(Settings.from_environment(), options)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    stop = threading.Event()
    set_when_asked(stop)
    try:
        run(Settings.from_environment(), options, stop)
    except DicomqError as error:
        print(f"scp: {error}", file=sys.stderr)  # noqa: T201 - the process ends because of it
        return 1
    return 0


def run(settings: Settings, options: argparse.Namespace, stop: threading.Event) -> None:
    """Listen until `stop` is set.

    Raises
    ------
    DicomqError
        When the configuration, the ledger, a storage or the port cannot be used at start.
    """
    configure_logging(settings)
    configure_checkpoint(settings.variables.get("DICOMQ_CHECKPOINT"))
    source = open_source(settings)
    snapshot = source.snapshot()
    connection = listening_connection(snapshot)
    address = Address(
        host=options.bind or settings.bind_address or connection.bind_address or _LOOPBACK,
        port=connection.port or 0 if options.port is None else options.port,
        configured_port=connection.port if options.port is None else None,
        proxies=settings.proxies,
    )
    with (
        closing(Ledger(settings.database_url, max_connections=_POOL_SIZE)) as ledger,
        following_reloads(ledger, source.reload),
    ):
        ledger.migrate(Stage.PRE)
        server = ScpServer(source, ledger, settings, address=address, clock=SYSTEM_CLOCK)
        storages = server.acceptance.storages(snapshot)
        sweep_storages(ledger, snapshot, storages)
        check_recent_files(ledger, snapshot, storages)
        server.start()
        titles = ",".join(snapshot.device.aes)
        log_event(_log, telemetry.SCP_LISTENING, aets=titles, host=address.host, port=server.port)
        while not stop.wait(SWEEP_INTERVAL_S):
            _sweep_again(ledger, server)
        server.stop()


def _sweep_again(ledger: Ledger, server: ScpServer) -> None:
    """Look at files left in doubt by a broken commit; a failure is tried again next time."""
    try:
        snapshot = server.snapshot()
        sweep_storages(ledger, snapshot, server.acceptance.storages(snapshot))
    except DicomqError as error:
        log_event(
            _log,
            telemetry.LEDGER_UNAVAILABLE,
            level=logging.WARNING,
            message=f"{error}; files in doubt are looked at again in {SWEEP_INTERVAL_S:.0f} s",
        )


def _health(settings: Settings, options: argparse.Namespace) -> int:
    """Verify the SCP that runs here; print what was found and return the exit status."""
    logging.disable(logging.CRITICAL)  # what is wrong is printed
    host = options.bind or settings.bind_address or _LOOPBACK
    port, titles, terms = options.port, (options.aet, options.aet), None
    try:
        if not (port and options.aet):  # the directory knows; asking it takes a second
            snapshot = open_source(settings).snapshot()
            titles = titles_to_verify(snapshot)
            connection = listening_connection(snapshot)
            port = port or connection.port
            terms = replace(connection.tls, check_host=False) if connection.tls else None
        address = (_reachable(host), port or 0)
        found = verify(titles, address, timeout_s=_HEALTH_TIMEOUT_S, terms=terms)
    except DicomqError as error:
        print(f"scp: {error}", file=sys.stderr)  # noqa: T201 - as in `main`
        return 1
    print(found)  # noqa: T201 - the answer to whoever asks
    return 0


def _reachable(host: str) -> str:
    """Return where to connect to reach what listens on `host`."""
    return _LOOPBACK if host in _ANYWHERE else host


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scp", description="DICOM SCP of dicomq")
    parser.add_argument("--port", type=int, help="port (default: dicomPort of the directory)")
    parser.add_argument("--bind", help="address (default: DICOMQ_BIND, directory, loopback)")
    parser.add_argument(
        "--health", action="store_true", help="ask the SCP that runs here for a C-ECHO, and exit"
    )
    parser.add_argument(
        "--aet", help="with --health and --port: AE to call; the directory then is not read"
    )
    return parser.parse_args(arguments)
