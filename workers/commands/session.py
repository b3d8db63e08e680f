"""What the commands work with, opened when a command runs; their errors end in exit status 2."""

import functools
import getpass
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec

import click

if TYPE_CHECKING:
    from archive.clock import Clock
    from archive.configuration.descriptors import Snapshot
    from archive.configuration.settings import Settings
    from archive.configuration.source import ConfigurationSource
    from archive.ledger.connection import Ledger
    from workers.gatekeeping import Gatekeeper
    from workers.operations import Operations
    from workers.ordering import Orders

P = ParamSpec("P")


class CommandError(click.ClickException):
    """Ends a command with its message and exit status 2."""

    exit_code = 2


class LateSource:
    """Opens the directory when the configuration is first asked for."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._source: ConfigurationSource | None = None

    def snapshot(self) -> "Snapshot":
        """Return the present configuration."""
        from archive.configuration.source import open_source  # noqa: PLC0415 - see the package
        from workers.commands.output import inert  # noqa: PLC0415

        if self._source is not None:
            return self._source.snapshot()
        self._source = open_source(self._settings)
        present = self._source.snapshot()
        outage = self._source.outage()
        if outage is not None:
            click.echo(f"warning: {inert(outage.text())}", err=True)
        return present


@dataclass(frozen=True, slots=True)
class Session:
    """Settings, ledger and configuration of one command, and who gave it."""

    settings: "Settings"
    ledger: "Ledger"
    source: LateSource
    clock: "Clock"
    actor: str

    def operations(self) -> "Operations":
        """Return the operations on tasks."""
        from workers.operations import Operations  # noqa: PLC0415 - see the package

        return Operations(self.ledger, self.source, actor=self.actor)

    def orders(self) -> "Orders":
        """Return the exports by hand."""
        from workers.ordering import Orders  # noqa: PLC0415 - see the package

        return Orders(self.ledger, self.source, actor=self.actor)

    def gatekeeper(self) -> "Gatekeeper":
        """Return the gates of queues and destinations."""
        from workers.gatekeeping import Gatekeeper  # noqa: PLC0415 - see the package

        name = self.settings.device_name
        return Gatekeeper(self.ledger, self.source, self.clock, device_name=name, actor=self.actor)


@contextmanager
def session(*, wait_s: float = 5.0) -> Iterator[Session]:
    """Open the ledger for the time of a command.

    Parameters
    ----------
    wait_s
        How long to wait for PostgreSQL to answer, seconds.
    """
    from archive.clock import SYSTEM_CLOCK  # noqa: PLC0415 - see the package
    from archive.configuration.settings import Settings  # noqa: PLC0415
    from archive.ledger.connection import Ledger  # noqa: PLC0415

    # `config check` tells what is wrong elsewhere.
    with quiet():
        settings = Settings.from_environment()
        with Ledger(settings.database_url, max_connections=2, wait_s=wait_s) as ledger:
            yield Session(settings, ledger, LateSource(settings), SYSTEM_CLOCK, _actor())


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: what goes wrong is printed by the command."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"
    return f"{user}@{socket.gethostname()} (celery)"


def told(command: Callable[P, int | None]) -> Callable[P, None]:
    """Let a command return its exit status, and show its errors in one line."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from archive.errors import DicomqError  # noqa: PLC0415 - see the package
        from workers.commands.output import inert  # noqa: PLC0415

        try:
            status = command(*args, **kwargs)
        except DicomqError as error:
            raise CommandError(inert(error)) from error
        click.get_current_context().exit(status or 0)

    return run
