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

from archive.clock import Clock
from archive.configuration.descriptors import Snapshot
from archive.configuration.source import SnapshotSource
from archive.errors import DicomqError
from archive.ledger import gates
from archive.ledger.connection import Ledger
from archive.ledger.gates import Gate
from archive.model.gates import CircuitPolicy, DueProbe
from archive.telemetry import log_event
from workers import events
from workers.looking import look_again_and_again

LOGGER = logging.getLogger(__name__)


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
        look_again_and_again(stop, self._config.look_every_s, self.run_once, LOGGER)

    def _probe(self, snapshot: Snapshot, probe: DueProbe) -> bool:
        """Send one C-ECHO and record what came of it; return whether it was answered."""
        from workers.probing import probe_route, send_echo  # noqa: PLC0415 - pynetdicom is large

        try:
            send_echo(probe_route(snapshot, probe), self._clock)
        except DicomqError as error:
            self._note_silence(probe, str(error))
            return False
        with self._ledger.transaction() as tx:
            gates.close_circuit(tx, Gate(self._config.device_name, probe.remote_aet))
        log_event(
            LOGGER, events.DESTINATION_OPEN, destination=probe.remote_aet, probes=probe.probes
        )
        return True

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
