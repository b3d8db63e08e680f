"""``celery -A workers config``: check, show, diff, import, export and reload the configuration."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from workers.commands.config_comparing import diff, export, reload
from workers.commands.output import counted, inert, print_json, print_table
from workers.commands.session import quiet, told

if TYPE_CHECKING:
    from archive.configuration.descriptors import Problem
    from archive.configuration.ldif import LdifFile
    from archive.configuration.refusals import Applied
    from archive.configuration.source import ConfigurationSource

_FILE = click.File("rb")
_AGAIN = (
    "what was applied stays; mend the refused record and import again with --continue, "
    "which passes over what is there already"
)


@click.group(name="config")
def config() -> None:
    """Check the configuration, compare, import and export it, have it read again.

    The directory is the LDIF file or the LDAP servers that DICOMQ_DIRECTORY names. Exit status 2
    says that something could not be done at all; 1 is explained at each command.
    """


config.add_command(diff)
config.add_command(export)
config.add_command(reload)


@config.command(name="import")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option(
    "--continue", "-c", "go_on", is_flag=True, help="Go on with the next record after an error."
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be done, and do nothing.")
@told
def import_files(files: tuple[BinaryIO, ...], *, go_on: bool, dry_run: bool) -> int:
    """Apply the records of LDIF FILES; `-` reads the standard input.

    Adds, changes, deletes and renames entries as ldapadd and ldapmodify do: each record whole or
    not at all, one after the other, up to the first that is refused. What was applied before
    stays: mend the refused record and import again with --continue. A file that is no LDIF
    changes nothing. Running processes see the changes within seconds. Exit status 1: a record was
    refused.

    Example: celery -A workers config import exporter.ldif
    """
    from archive.configuration.ldif import parse_ldif  # noqa: PLC0415 - see the package

    source = _source()
    parsed = [(getattr(file, "name", "-"), parse_ldif(file.read())) for file in files]
    for name, ldif in parsed:
        for note in ldif.notes:
            click.echo(f"{name}: note: {note}")
    if dry_run:
        return _would(source, parsed, go_on=go_on)
    with quiet():
        before = set(_problems(source))
    refused, tried = 0, 0
    for name, ldif in parsed:
        if go_on or not refused:
            done = _apply(source, name, ldif, go_on=go_on)
            refused, tried = refused + _tell(name, done), tried + len(done)
    with quiet():
        _report([one for one in _problems(_source()) if one not in before])
    _conclude(sum(len(ldif.records) for _, ldif in parsed), tried, refused)
    if tried > refused > 0 and not go_on:
        click.echo(_AGAIN, err=True)
    return 1 if refused else 0


def _apply(
    source: "ConfigurationSource", name: str, ldif: "LdifFile", *, go_on: bool
) -> "tuple[Applied, ...]":
    """Apply the records of a file; when a server breaks off, say what it applied until then."""
    from archive.configuration.refusals import InterruptedChangesError  # noqa: PLC0415 - see there

    try:
        return source.directory.apply_all(ldif.records, go_on=go_on)
    except InterruptedChangesError as error:
        _tell(name, error.done)
        raise


def _would(
    source: "ConfigurationSource", parsed: "list[tuple[str, LdifFile]]", *, go_on: bool
) -> int:
    """Say what an import would do."""
    from archive.configuration.comparing import preview  # noqa: PLC0415 - see the package

    entries = tuple(source.directory.read_all())
    refused, tried = 0, 0
    for name, ldif in parsed:
        if go_on or not refused:
            seen = preview(
                entries, ldif.records, go_on=go_on, strict=not source.directory.is_remote
            )
            entries = seen.entries
            refused, tried = refused + _tell(name, seen.applied), tried + len(seen.applied)
    _conclude(sum(len(ldif.records) for _, ldif in parsed), tried, refused)
    click.echo("dry run: nothing was changed; `config diff` shows the attributes")
    return 1 if refused else 0


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@told
def check(*, as_json: bool) -> int:
    """Say everything that is wrong with the configuration.

    Exit status 1 when an entry or a value had to be set aside, or when the directory cannot be
    reached and its local copy was looked at instead.
    """
    source = _source()
    with quiet():
        problems = source.snapshot().problems
        outage = source.outage()
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        fields = ("severity", "dn", "attribute", "reason")
        shown = [{name: getattr(one, name) for name in fields} for one in problems]
        print_json({"outage": outage.text() if outage else None, "problems": shown})
    else:
        if outage is not None:
            click.echo(f"the directory is unreachable: {inert(outage.text())}")
        _report(problems)
        click.echo(f"{counted(len(problems), 'problem')}, {errors} of them errors")
    return 1 if errors or outage is not None else 0


@config.command()
@told
def show() -> int:
    """Show AEs, exporters, rules, queues and storages as they are understood."""
    from workers.commands.configuration_tables import tables  # noqa: PLC0415 - see the package

    source = _source()
    with quiet():
        snapshot = source.snapshot()
    outage = source.outage()
    if outage is not None:
        click.echo(f"the directory is unreachable: {inert(outage.text())}", err=True)
    for table in tables(snapshot):
        print_table(table.columns, table.rows, title=table.title)
    _report(snapshot.problems)
    return 0


def _source() -> "ConfigurationSource":
    from archive.configuration.settings import Settings  # noqa: PLC0415 - see the package
    from archive.configuration.source import open_source  # noqa: PLC0415

    return open_source(Settings.from_environment())


def _problems(source: "ConfigurationSource") -> "tuple[Problem, ...]":
    """Return the problems of a configuration; that there is none yet is one of them."""
    from archive.configuration.descriptors import Problem  # noqa: PLC0415 - see the package
    from archive.errors import ConfigurationError  # noqa: PLC0415

    try:
        return source.snapshot().problems
    except ConfigurationError as error:
        return (Problem(source.directory.location, "", str(error)),)


def _tell(name: str, done: "Iterable[Applied]") -> int:
    """Say what was done with each record; return how many were refused."""
    refused = 0
    for one in done:
        operation = type(one.record).__name__.removesuffix("Record").lower()
        click.echo(f'{operation} "{inert(one.record.dn)}"')
        if one.refusal is not None:
            refused += 1
            click.echo(f"{name} line {one.record.line}: {inert(one.refusal)}", err=True)
    return refused


def _conclude(given: int, tried: int, refused: int) -> None:
    """Say how many records were applied, if not all were."""
    if refused:
        counts = f"{counted(tried - refused, 'record')} applied, {refused} refused"
        click.echo(f"{counts}, {given - tried} not tried", err=True)


def _report(problems: "Sequence[Problem]") -> None:
    if problems:
        rows = [(one.severity, one.dn, one.attribute, one.reason) for one in problems]
        print_table(("severity", "entry", "attribute", "what is wrong"), rows)
