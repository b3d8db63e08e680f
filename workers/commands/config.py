"""``celery -A workers config``: import, check and show the configuration."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from archive.configuration.descriptors import Problem, Snapshot
    from archive.configuration.refusals import Applied
    from archive.configuration.source import ConfigurationSource


@click.group(name="config")
def config() -> None:
    """Import LDIF files into the directory, check it, show what it says.

    The directory is the LDIF file or the LDAP server that DICOMQ_DIRECTORY names.
    """


@config.command(name="import")
@click.argument("files", nargs=-1, required=True, type=click.File("rb"))
@click.option(
    "--continue", "-c", "go_on", is_flag=True, help="Go on with the next record after an error."
)
def import_files(files: tuple[BinaryIO, ...], *, go_on: bool) -> None:
    """Apply the records of LDIF FILES; `-` reads the standard input.

    Adds, changes, deletes and renames entries as ldapadd and ldapmodify do: each record whole or
    not at all, one after the other, up to the first that is refused. A file that is no LDIF
    changes nothing. Running processes see the changes within seconds.

    Example: celery -A workers config import exporter.ldif
    """
    from archive.configuration.ldif import parse_ldif  # noqa: PLC0415 - see the package
    from archive.errors import DicomqError  # noqa: PLC0415

    source = _source()
    refused = 0
    try:
        parsed = [(getattr(file, "name", "-"), parse_ldif(file.read())) for file in files]
        before = set(_problems(source))
        for name, ldif in parsed:
            for note in ldif.notes:
                click.echo(f"{name}: note: {note}")
            if go_on or not refused:
                refused += _tell(name, source.directory.apply_all(ldif.records, go_on=go_on))
        _report([one for one in _problems(_source()) if one not in before])
    except DicomqError as error:
        raise click.ClickException(str(error)) from error
    if refused:
        msg = f"{refused} record{'' if refused == 1 else 's'} refused"
        raise click.ClickException(msg)


@config.command()
def check() -> None:
    """Say everything that is wrong with the configuration.

    Exit status 1 when an entry or a value had to be set aside.
    """
    snapshot = _snapshot()
    _report(snapshot.problems)
    errors = sum(problem.severity == "error" for problem in snapshot.problems)
    click.echo(f"{len(snapshot.problems)} problems, {errors} of them errors")
    if errors:
        raise SystemExit(1)


@config.command()
def show() -> None:
    """Show AEs, exporters, rules, queues and storages as they are understood."""
    from rich.console import Console  # noqa: PLC0415 - only this command needs it

    from workers.commands.configuration_tables import tables  # noqa: PLC0415

    snapshot = _snapshot()
    console = Console()
    for table in tables(snapshot):
        console.print(table)
    _report(snapshot.problems)


def _source() -> "ConfigurationSource":
    from archive.configuration.settings import Settings  # noqa: PLC0415 - see the package
    from archive.configuration.source import open_source  # noqa: PLC0415
    from archive.errors import DicomqError  # noqa: PLC0415

    try:
        return open_source(Settings.from_environment())
    except DicomqError as error:
        raise click.ClickException(str(error)) from error


def _snapshot() -> "Snapshot":
    from archive.errors import DicomqError  # noqa: PLC0415 - see the package

    try:
        return _source().snapshot()
    except DicomqError as error:
        raise click.ClickException(str(error)) from error


def _problems(source: "ConfigurationSource") -> "tuple[Problem, ...]":
    """Return the problems of a configuration; that there is none yet is one of them."""
    from archive.configuration.descriptors import Problem  # noqa: PLC0415 - see the package
    from archive.errors import ConfigurationError, DirectoryUnavailableError  # noqa: PLC0415

    try:
        return source.snapshot().problems
    except DirectoryUnavailableError:
        raise
    except ConfigurationError as error:
        return (Problem(source.directory.location, "", str(error)),)


def _tell(name: str, done: "Iterable[Applied]") -> int:
    """Say what was done with each record; return how many were refused."""
    refused = 0
    for one in done:
        operation = type(one.record).__name__.removesuffix("Record").lower()
        click.echo(f'{operation} "{one.record.dn}"')
        if one.refusal is not None:
            refused += 1
            click.echo(f"{name} line {one.record.line}: {one.refusal}", err=True)
    return refused


def _report(problems: "Iterable[Problem]") -> None:
    for problem in problems:
        click.echo(f"{problem.severity}: {problem.dn}: {problem.attribute} {problem.reason}")
