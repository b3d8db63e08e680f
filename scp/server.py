"""Listens for associations with all services, and stops in good order."""

import contextlib
import logging
import socket
from typing import Final, cast

from pynetdicom import _config

from archive import telemetry
from archive.clock import Clock
from archive.configuration.descriptors import Connection, Snapshot
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.errors import ConfigurationError
from archive.ledger.connection import Ledger
from archive.telemetry import log_event
from scp.acceptance import Acceptance
from scp.commitment import CommitmentService
from scp.commitment_exchange import ReportSender
from scp.get import GetService
from scp.handlers import GuardedNormalizedServices, GuardedRetrieves, Handlers
from scp.listening import Address, Entrance, Listener, TlsListener, listening_connection
from scp.mpps import ProcedureStepService
from scp.query import QueryService
from scp.receivers import Receivers
from scp.receiving import StoreAssociation
from scp.retrieve import MoveService, RelayConfig
from scp.store import StoreService
from scp.tls_ports import TlsPorts

GRACE_S: Final = 8.0
_DRAIN_POLL_S: Final = 0.1

_log = logging.getLogger(__name__)


class ScpServer:
    """One listening process.

    Parameters
    ----------
    grace_s
        How long running objects may take to finish when the process is told to stop.
    """

    def __init__(
        self,
        source: ConfigurationSource,
        ledger: Ledger,
        settings: Settings,
        *,
        address: Address,
        clock: Clock,
        grace_s: float = GRACE_S,
    ) -> None:
        self._source = source
        self._clock = clock
        self._grace_s = grace_s
        self._drain_s = settings.drain_s
        self.acceptance = Acceptance(source, settings)
        self._receivers = Receivers(StoreService(ledger, clock))
        self.handlers = Handlers(
            self.acceptance,
            self._receivers,
            QueryService(ledger, clock, leading_wait_s=settings.leading_wait_s),
            retrieves=GuardedRetrieves(
                MoveService(ledger, clock, RelayConfig(claim_s=settings.retrieve_claim_s)),
                GetService(
                    ledger,
                    clock,
                    leading_wait_s=settings.leading_wait_s,
                    claim_s=settings.retrieve_claim_s,
                ),
            ),
            normalized=GuardedNormalizedServices(
                CommitmentService(ledger),
                ReportSender(ledger, clock),
                ProcedureStepService(ledger),
            ),
        )
        _config.LOG_HANDLER_LEVEL = "none"
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
        self._connection = listening_connection(source.snapshot())
        entrance = Entrance(self.handlers.bound(), self.connection)
        listener = TlsListener if self._connection.is_tls else Listener
        self._listener = listener(entrance, address)
        self._tls_ports = TlsPorts(
            entrance.events, source.snapshot, address, host=settings.bind_address
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def snapshot(self) -> Snapshot:
        """Return the present configuration."""
        return self._source.snapshot()

    def connection(self) -> Connection:
        """Return the directory's connection whose time-outs and lengths hold; the last, if none."""
        with contextlib.suppress(ConfigurationError):
            self._connection = listening_connection(self._source.snapshot())
        return self._connection

    def start(self) -> None:
        """Begin to accept associations.

        Raises
        ------
        ConfigurationError
            When a port with TLS cannot be listened on.
        """
        self._tls_ports.start()
        self._listener.start()

    def stop(self) -> None:
        """Stop accepting, let associations or at least their present objects finish, end them."""
        log_event(_log, telemetry.SCP_STOPPING, port=self.port)
        self._listener.stop()
        self._tls_ports.stop()
        self._drain()
        deadline = self._clock.monotonic() + self._grace_s
        associations = self._live()
        for assoc in associations:
            assoc.abort(block=False)
        for assoc in associations:
            assoc.dul.join(max(0.0, deadline - self._clock.monotonic()))
        for assoc in associations:
            _cut(assoc)
        self._receivers.close()
        log_event(_log, telemetry.SCP_STOPPED)

    def _drain(self) -> None:
        """Let associations go on to their own end, for as long as the settings say."""
        deadline = self._clock.monotonic() + self._drain_s
        while self._live() and self._clock.monotonic() < deadline:
            self._clock.sleep(_DRAIN_POLL_S)

    def _live(self) -> list[StoreAssociation]:
        """Return the associations with a connection, negotiated or not."""
        listeners = (self._listener, *self._tls_ports.listeners)
        threads = [each for one in listeners for each in one.active_associations]
        return [cast("StoreAssociation", each) for each in threads if each.dul.is_alive()]


def _cut(assoc: StoreAssociation) -> None:
    """Close the connection of an association that did not end in time."""
    association_socket = assoc.dul.socket
    sock = association_socket.socket if association_socket else None
    if sock is not None and assoc.dul.is_alive():
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        assoc.dul.join(1.0)
