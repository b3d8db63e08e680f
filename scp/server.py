"""Listens for associations and stops in good order; the only creator of an ApplicationEntity."""

import contextlib
import logging
import socket
import threading
from dataclasses import dataclass
from typing import Any, Final, cast

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationServer
from typing_extensions import override

from archive import telemetry
from archive.clock import Clock
from archive.configuration.descriptors import Connection, Snapshot
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.errors import ConfigurationError
from archive.ledger.connection import Ledger
from archive.storage.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.telemetry import log_event
from scp.acceptance import Acceptance
from scp.commitment import CommitmentService
from scp.commitment_exchange import ReportSender
from scp.get import GetService
from scp.handlers import GuardedNormalizedServices, GuardedRetrieves, Handlers
from scp.mpps import ProcedureStepService
from scp.negotiation import offered_pdu_length
from scp.query import QueryService
from scp.receiving import BindingServer, StoreAssociation, StoreRequestHandler
from scp.retrieve import MoveService
from scp.store import StoreService

DEFAULT_REQUEST_TIMEOUT_S: Final = 30.0
DEFAULT_IDLE_TIMEOUT_S: Final = 60.0
GRACE_S: Final = 8.0
_NO_LIMIT: Final = 1_000_000
_VERIFICATION: Final = "1.2.840.10008.1.1"
_ACCEPT_POLL_S: Final = 0.2
_DRAIN_POLL_S: Final = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes
    ----------
    configured_port
        Port of the connection in the directory; None when another one was asked for.
    """

    host: str
    port: int
    configured_port: int | None


def listening_connection(snapshot: Snapshot) -> Connection:
    """Return the connection on which the device's AEs take associations.

    Raises
    ------
    ConfigurationError
        When no installed AE that accepts associations has one with a port and without TLS.
    """
    for ae in snapshot.device.aes.values():
        if not (ae.installed and ae.association_acceptor):
            continue
        for connection in ae.connections:
            if connection.installed and connection.port and not connection.is_tls:
                return connection
    msg = (
        f"device {snapshot.device.name} has no AE that accepts associations on a plain DICOM "
        "connection: set dicomAssociationAcceptor and dicomPort"
    )
    raise ConfigurationError(msg)


class _Listener(BindingServer):
    """The listening socket, which several processes may share."""

    def __init__(self, owner: "ScpServer", ae: ApplicationEntity, address: Address) -> None:
        self._owner = owner
        self.bound_events = owner.handlers.bound()
        self.request_queue_size = owner.connection().tcp_backlog
        super().__init__(
            ae,
            (address.host, address.port),
            ae.ae_title,
            [build_context(_VERIFICATION)],
            request_handler=StoreRequestHandler,
        )

    @override
    def server_bind(self) -> None:
        """Bind the port; the kernel hands out a connection once its peer has sent something."""
        listening = cast("socket.socket", self.socket)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        super().server_bind()

    @override
    def get_request(self) -> tuple[socket.socket, Any]:
        """Return the next connection; a probe that has hung up already costs no thread."""
        connection, address = super().get_request()
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                connection.close()
                msg = "hung up before it asked for an association"
                raise ConnectionAbortedError(msg)
        self._owner.configure(self.ae)
        return connection, address

    def shutdown_listening(self) -> None:
        """Stop the accept loop and close the port; associations go on."""
        self.stop_loop()
        self.server_close()

    def stop_loop(self) -> None:
        """End `serve_forever` (pynetdicom's own `shutdown` also expects to be registered)."""
        super(AssociationServer, self).shutdown()

    @override
    def service_actions(self) -> None:
        """Do nothing between connections."""


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
        self._fingerprint = ""
        self.acceptance = Acceptance(source, settings, address.configured_port)
        self.handlers = Handlers(
            self.acceptance,
            StoreService(ledger, clock),
            QueryService(ledger, clock, leading_wait_s=settings.leading_wait_s),
            retrieves=GuardedRetrieves(
                MoveService(ledger, clock),
                GetService(ledger, clock, leading_wait_s=settings.leading_wait_s),
            ),
            normalized=GuardedNormalizedServices(
                CommitmentService(ledger),
                ReportSender(ledger, clock),
                ProcedureStepService(ledger),
            ),
        )
        _config.LOG_HANDLER_LEVEL = "none"
        _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
        ae = ApplicationEntity("DICOMQ")
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_associations = _NO_LIMIT
        self.configure(ae)
        self._listener = _Listener(self, ae, address)
        self._thread = threading.Thread(target=self._serve, name="scp-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._listener.server_address[1])

    def snapshot(self) -> Snapshot:
        """Return the present configuration."""
        return self._source.snapshot()

    def connection(self) -> Connection:
        """Return the directory's connection whose time-outs and lengths hold."""
        return listening_connection(self._source.snapshot())

    def configure(self, ae: ApplicationEntity) -> None:
        """Let changes of the directory act on the associations that follow."""
        snapshot = self._source.snapshot()
        if snapshot.fingerprint == self._fingerprint:
            return
        connection = self.connection()
        ae.maximum_pdu_size = offered_pdu_length(connection.receive_pdu_length)
        ae.acse_timeout = connection.request_timeout_s or DEFAULT_REQUEST_TIMEOUT_S
        ae.network_timeout = connection.idle_timeout_s or DEFAULT_IDLE_TIMEOUT_S
        self._fingerprint = snapshot.fingerprint

    def start(self) -> None:
        """Begin to accept associations."""
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting, let associations or at least their present objects finish, end them."""
        log_event(_log, telemetry.SCP_STOPPING, port=self.port)
        self._listener.shutdown_listening()
        self._thread.join()
        self._drain()
        deadline = self._clock.monotonic() + self._grace_s
        associations = self._live()
        for assoc in associations:
            assoc.abort(block=False)
        for assoc in associations:
            assoc.dul.join(max(0.0, deadline - self._clock.monotonic()))
        for assoc in associations:
            _cut(assoc)
        log_event(_log, telemetry.SCP_STOPPED)

    def _drain(self) -> None:
        """Let associations go on to their own end, for as long as the settings say."""
        deadline = self._clock.monotonic() + self._drain_s
        while self._live() and self._clock.monotonic() < deadline:
            self._clock.sleep(_DRAIN_POLL_S)

    def _serve(self) -> None:
        self._listener.serve_forever(poll_interval=_ACCEPT_POLL_S)

    def _live(self) -> list[StoreAssociation]:
        """Return the associations with a connection, negotiated or not."""
        threads = self._listener.active_associations
        return [cast("StoreAssociation", each) for each in threads if each.dul.is_alive()]


def _cut(assoc: StoreAssociation) -> None:
    """Close the connection of an association that did not end in time."""
    association_socket = assoc.dul.socket
    sock = association_socket.socket if association_socket else None
    if sock is not None and assoc.dul.is_alive():
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        assoc.dul.join(1.0)
