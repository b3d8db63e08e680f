"""Puts our pages into Flower: its options, its table of handlers, its templates.

Flower builds its application from `flower.urls` after it has read its options; both lists are
changed before that, in place. Private to Flower 2.2, hence the pin and the smoke test.
"""

import atexit
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flower import urls
from tornado.options import define, options
from tornado.web import StaticFileHandler, url

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import DicomqError
from archive.ledger.connection import Ledger
from archive.ledger.reloads import following_reloads
from workers.monitor.access import Roles, guarded, is_loopback, is_protected, parse_roles
from workers.monitor.bulk_jobs import BulkJobs
from workers.monitor.openapi import rest_routes
from workers.monitor.recent import Recent
from workers.monitor.routes import page_routes
from workers.monitor.services import REST_THREADS, THREADS, Services
from workers.monitor.template_loader import ChainLoader

LOGGER = logging.getLogger(__name__)
HERE = Path(__file__).parent
LOOPBACK = "127.0.0.1"


def install(settings_of: Callable[[], Settings]) -> None:
    """Add our options to Flower; the rest follows when they have been read.

    Parameters
    ----------
    settings_of
        Reads the settings of this process.
    """
    define("roles", type=str, multiple=True, help="user:viewer|operator|admin, …; * for the others")
    define("roles_file", type=str, default="", help="file with a user:role per line")
    define("rest_prefix", type=str, default="/dcm4chee-arc", help="path of the REST interface")
    originals = list(urls.handlers)
    passes: list[bool] = []

    def options_read() -> None:
        passes.append(True)
        # Flower reads the command line a second time after its configuration file.
        if len(passes) == 1 and Path(options.conf).exists():
            return
        _set_up(settings_of, originals)

    options.add_parse_callback(options_read)


def _set_up(settings_of: Callable[[], Settings], originals: list[Any]) -> None:
    try:
        _refuse_anonymous()
        services = _services(settings_of())
    except (DicomqError, OSError) as error:
        msg = f"Flower cannot start: {error}"
        raise SystemExit(msg) from error
    loader = ChainLoader((HERE / "templates", Path(urls.settings["template_path"])))
    urls.settings["dicomq"] = services
    urls.settings["template_loader"] = loader
    services.executor.submit(_prime, services)
    for template in sorted((HERE / "templates" / "dicomq").glob("*.html")):
        loader.load(f"dicomq/{template.name}")
    static = url(
        r"/dicom/static/(.*)", StaticFileHandler, {"path": HERE / "static"}, "dicomq-static"
    )
    root = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    own = [static, *page_routes(), *rest_routes(services.rest_prefix, root)]
    kept = [_with_checks(handler) for handler in originals]
    urls.handlers[:] = [*kept[:-1], *own, kept[-1]]


def _prime(services: Services) -> None:
    """Have at hand what the first visitor would wait for: configuration and numbers."""
    try:
        services.source.snapshot()
        services.start_counting()
    except DicomqError as error:
        LOGGER.warning("the pages cannot show anything yet: %s", error)


def _refuse_anonymous() -> None:
    """Let nobody in from other machines without a login.

    Raises
    ------
    SystemExit
        When Flower was told to listen beyond this machine without one.
    """
    if is_protected(options) or options.unix_socket:
        return
    if not options.address:
        options.address = LOOPBACK
    if not is_loopback(options.address):
        msg = (
            f"Flower would let everybody on {options.address} change tasks: give --basic-auth or"
            " --auth with --auth_provider, or listen on --address=127.0.0.1"
        )
        raise SystemExit(msg)


def _services(settings: Settings) -> Services:
    ledger = Ledger(settings.database_url, max_connections=2 * THREADS)
    jobs, recent = BulkJobs(), Recent(SYSTEM_CLOCK)
    source, following = open_source(settings), ExitStack()
    following.enter_context(following_reloads(ledger, source.reload))
    for each in (ledger.close, jobs.close, recent.close, following.close):
        atexit.register(each)
    return Services(
        settings=settings,
        ledger=ledger,
        source=source,
        clock=SYSTEM_CLOCK,
        executor=ThreadPoolExecutor(THREADS, "pages"),
        rest_executor=ThreadPoolExecutor(REST_THREADS, "rest"),
        jobs=jobs,
        recent=recent,
        roles=_roles(),
        rest_prefix="/" + options.rest_prefix.strip("/"),
    )


def _roles() -> Roles:
    pairs = list(options.roles)
    if options.roles_file:
        pairs += Path(options.roles_file).read_text(encoding="utf-8").splitlines()
    return parse_roles(pairs)


def _with_checks(handler: Any) -> Any:  # noqa: ANN401 - a URLSpec or a tuple
    """Return an entry of Flower's table whose handler passes our checks first."""
    if isinstance(handler, url):
        return url(
            handler.regex.pattern.removesuffix("$"),
            guarded(handler.handler_class),
            handler.kwargs,
            handler.name,
        )
    pattern, handler_class, *rest = handler
    if handler_class is StaticFileHandler:
        return handler
    return (pattern, guarded(handler_class), *rest)
