"""The circuit breaker of destinations: asks with a C-ECHO whether a paused one is back.

Workers count connection failures of a destination where they end their attempts, and pause it
after some in a row (`archive.ledger.gates`). From then on its tasks wait; this loop, in each
dispatcher process, sends one C-ECHO per back-off step, and the first answer lets the tasks go.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from archive.clock import SYSTEM_CLOCK, Clock
from archive.configuration.descriptors import Snapshot
from archive.errors import DicomqError, NoAcceptedContextError
from archive.ledger import gates
from archive.ledger.connection import Ledger
from archive.ledger.gates import Gate
from archive.model.gates import CircuitPolicy, DueProbe
from archive.telemetry import LEDGER_UNAVAILABLE, log_event
from workers import events
from workers.association import Association
from workers.contexts import IMPLICIT_VR_LE, ProposedContext
from workers.route import NotConfiguredError, Route, find_route, local_ae, remote_ae
from workers.runner import SnapshotSource

LOGGER = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """How destinations are probed.

    Attributes
    ----------
    device_name
        Device whose destinations are probed.
    circuit
        Its pauses between C-ECHOs.
    look_every_s
        Pause between two looks for due probes.
    lease_s
        After that time a probe whose prober died is due again; longer than a C-ECHO can take.
    parallel
        Destinations probed at the same time.
    """

    device_name: str
    circuit: CircuitPolicy = field(default_factory=CircuitPolicy)
    look_every_s: float = 1.0
    lease_s: float = 180.0
    parallel: int = 16


def route_to(snapshot: Snapshot, remote_aet: str, local_aet: str | None = None) -> Route:
    """Return how the archive reaches a destination.

    Parameters
    ----------
    local_aet
        The AE that shall do so; None for one whose exporter goes there, else any that may.

    Raises
    ------
    NotConfiguredError
        When the destination or a local AE are missing, or no connection fits.
    """
    remote = remote_ae(snapshot, remote_aet, "the C-ECHO")
    title = local_aet or _calling_aet(snapshot, remote_aet)
    return find_route(local_ae(snapshot, title, "the C-ECHO"), remote)


def _calling_aet(snapshot: Snapshot, remote_aet: str) -> str | None:
    device = snapshot.device
    by_exporter = (
        each.aet for each in device.exporters.values() if each.aet and each.remote_aet == remote_aet
    )
    able = (ae.title for ae in device.aes.values() if ae.installed and ae.association_initiator)
    return next(by_exporter, None) or next(able, None)


def send_echo(route: Route, clock: Clock = SYSTEM_CLOCK) -> int | None:
    """Send a C-ECHO and return the status of its response (PS3.4 Annex A).

    Returns
    -------
    int or None
        None when the peer opened the association but knows no Verification: it is there.

    Raises
    ------
    PeerError
        When the peer cannot be reached, rejects the association or does not answer.
    """
    try:
        with Association(route, [ProposedContext(VERIFICATION, (IMPLICIT_VR_LE,))], clock) as peer:
            return peer.echo()
    except NoAcceptedContextError:
        return None


class Breaker:
    """Probes paused destinations; any number may run side by side."""

    def __init__(
        self, ledger: Ledger, source: SnapshotSource, clock: Clock, *, config: BreakerConfig
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._config = config

    def run_once(self) -> int:
        """Probe the destinations that are due; return how many answered.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached; taken probes are due again after their lease.
        """
        config = self._config
        with self._ledger.statement() as tx:
            due = gates.take_probes(
                tx, config.device_name, lease_s=config.lease_s, limit=config.parallel
            )
        if not due:
            return 0
        snapshot = self._source.snapshot()
        with ThreadPoolExecutor(len(due), "probe") as pool:
            return sum(pool.map(partial(self._probe, snapshot), due))

    def run(self, stop: threading.Event) -> None:
        """Probe until `stop` is set."""
        reachable = True
        while not stop.wait(self._config.look_every_s):
            try:
                self.run_once()
                reachable = True
            except DicomqError as error:
                if reachable:
                    log_event(LOGGER, LEDGER_UNAVAILABLE, level=logging.WARNING, message=str(error))
                reachable = False

    def _probe(self, snapshot: Snapshot, probe: DueProbe) -> bool:
        """Send one C-ECHO and record what came of it; return whether it was answered."""
        try:
            send_echo(self._route(snapshot, probe), self._clock)
        except DicomqError as error:
            self._note_silence(probe, str(error))
            return False
        with self._ledger.transaction() as tx:
            gates.close_circuit(tx, Gate(self._config.device_name, probe.remote_aet))
        log_event(
            LOGGER, events.DESTINATION_OPEN, destination=probe.remote_aet, probes=probe.probes
        )
        return True

    def _route(self, snapshot: Snapshot, probe: DueProbe) -> Route:
        try:
            return route_to(snapshot, probe.remote_aet, probe.local_aet)
        except NotConfiguredError:
            return route_to(snapshot, probe.remote_aet)

    def _note_silence(self, probe: DueProbe, error: str) -> None:
        config = self._config
        delay_s = config.circuit.probe_delay_s(probe.probes)
        with self._ledger.transaction() as tx:
            gates.probe_failed(tx, config.device_name, probe, error=error, delay_s=delay_s)
        log_event(
            LOGGER,
            events.DESTINATION_PROBED,
            destination=probe.remote_aet,
            probes=probe.probes,
            message=f"{error}; its tasks wait, next C-ECHO in {delay_s:g} s",
        )
