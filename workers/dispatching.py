"""The dispatcher as a process: opens what it needs, runs its loops, obeys signals."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from archive.clock import SYSTEM_CLOCK
from archive.configuration.source import open_source
from archive.ledger.connection import Ledger
from archive.ledger.reloads import following_reloads
from archive.stopping import set_when_asked
from workers.app import WorkerApp
from workers.breaker import Breaker, BreakerConfig
from workers.deadlines import Deadlines, DeadlinesConfig
from workers.directory_metrics import DirectoryCollector
from workers.dispatcher import Dispatcher, DispatcherConfig
from workers.hints import HintBroker
from workers.metrics import DispatcherMetrics, LedgerCollector, served
from workers.rescuer import Rescuer, RescuerConfig


@dataclass(frozen=True, slots=True)
class Services:
    """The loops of a dispatcher process."""

    dispatcher: Dispatcher
    rescuer: Rescuer
    metrics: DispatcherMetrics
    breaker: Breaker
    deadlines: Deadlines


@contextmanager
def _services(app: WorkerApp) -> Iterator[Services]:
    settings = app.settings()
    app.set_up_logging()
    source = open_source(settings)
    source.require()
    broker = HintBroker(app)
    with (
        Ledger(settings.database_url, max_connections=4) as ledger,
        following_reloads(ledger, source.reload),
    ):
        metrics = DispatcherMetrics()
        metrics.registry.register(LedgerCollector(ledger, settings.device_name))
        metrics.registry.register(DirectoryCollector(source))
        dispatcher = Dispatcher(
            ledger,
            source,
            broker,
            clock=SYSTEM_CLOCK,
            config=DispatcherConfig(settings.device_name, poll_s=settings.poll_s),
            metrics=metrics,
        )
        rescuer = Rescuer(
            ledger,
            source,
            SYSTEM_CLOCK,
            config=RescuerConfig(settings.device_name),
            metrics=metrics,
        )
        breaker = Breaker(ledger, source, SYSTEM_CLOCK, config=BreakerConfig(settings.device_name))
        config = DeadlinesConfig(settings.device_name)
        deadlines = Deadlines(ledger, source, SYSTEM_CLOCK, config=config)
        try:
            yield Services(dispatcher, rescuer, metrics, breaker, deadlines)
        finally:
            broker.close()


def dispatch_once(app: WorkerApp) -> int:
    """Rescue, probe and hand over what is due now; return how many tasks were handed over.

    Raises
    ------
    DicomqError
        When PostgreSQL, Redis or the directory cannot be used.
    """
    with _services(app) as services:
        services.rescuer.run_once()
        services.breaker.run_once()
        services.deadlines.run_once()
        return services.dispatcher.run_once().dispatched


def serve(app: WorkerApp) -> None:
    """Dispatch, rescue and probe until TERM or INT.

    A defect in one of the loops ends the process: whoever supervises it starts a whole one.
    """
    stop = threading.Event()
    set_when_asked(stop)
    with _services(app) as services, served(services.metrics.registry, app.settings()):
        beside = (services.rescuer.run, services.breaker.run, services.deadlines.run)
        with ThreadPoolExecutor(len(beside)) as pool:
            futures = [pool.submit(_until_stopped, loop, stop) for loop in beside]
            _until_stopped(services.dispatcher.run, stop)
        for future in futures:
            future.result()


def _until_stopped(loop: Callable[[threading.Event], None], stop: threading.Event) -> None:
    """Run a loop; when it fails the others end too, and the process with them."""
    try:
        loop(stop)
    finally:
        stop.set()
