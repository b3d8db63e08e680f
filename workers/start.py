"""How Celery's worker is started: its option, and what it is given before it begins."""

from collections.abc import Collection
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
from celery import signals
from celery.bin.base import CeleryOption

from archive.errors import InvalidValueError

if TYPE_CHECKING:
    from workers.queues import PoolKind


def kind_option() -> CeleryOption:
    """Return the worker's option `--kind`."""
    return CeleryOption(
        ["--kind"],
        multiple=True,
        metavar="KIND",
        callback=_parse_kind_option,
        help_group="Queue Options",
        help="Serve the queues of this kind, as configured at the time: export, notify, commit,"
        " retrieve, query or all. May be repeated or a comma separated list. [default: all]",
    )


def _parse_kind_option(
    _context: click.Context, _parameter: click.Parameter, values: Collection[str]
) -> "frozenset[PoolKind]":
    from workers.queues import parse_kinds  # noqa: PLC0415 - keeps --help fast

    try:
        return parse_kinds(values)
    except InvalidValueError as error:
        raise click.BadParameter(str(error)) from error


def log_from_the_start(instance: Any, **_: object) -> None:  # noqa: ANN401 - Celery has no types
    """Let a log in JSON hold nothing else (signal `celeryd_init`, before Celery says anything).

    Celery's banner is left out there, and its warnings become lines of the log.
    """
    if instance.app.settings().log_format == "json":
        instance.quiet = True
        instance.app.set_up_logging()


def prepare_worker(sender: Any, **_: object) -> None:  # noqa: ANN401 - Celery has no types
    """Prepare a worker that is about to start (signal `worker_init`).

    It gets our pool, no chatter with other workers, and its application hears what concerns it.

    Raises
    ------
    SystemExit
        When another pool than threads was asked for, or there is no configuration to start from.
        (Celery swallows other exceptions here.)
    """
    from archive.configuration.source import open_source  # noqa: PLC0415 - keeps --help fast
    from archive.errors import DicomqError  # noqa: PLC0415

    pool = sender.pool_cls if isinstance(sender.pool_cls, str) else sender.pool_cls.__module__
    if pool not in {"threads", "celery.concurrency.thread", "workers.pool"}:
        msg = f"workers run in threads, not in {pool}: start them with -P threads"
        raise SystemExit(msg)
    sender.pool_cls = "workers.pool:HintPool"
    sender.options.update(without_gossip=True, without_mingle=True)
    app = sender.app
    app.node_name = sender.hostname
    try:
        with closing(open_source(app.settings())) as source:
            source.require()
    except DicomqError as error:
        raise SystemExit(str(error)) from error
    signals.setup_logging.connect(app.set_up_logging)
    signals.worker_shutting_down.connect(app.stop_tasks)
    signals.worker_shutdown.connect(app.close_runtime)
    signals.task_revoked.connect(app.cancel_revoked)
