"""``config diff``, ``export`` and ``reload``."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from workers.commands.output import counted, inert, print_json, print_table
from workers.commands.session import CommandError, session, told

if TYPE_CHECKING:
    from archive.configuration.comparing import Difference
    from archive.configuration.entries import Entry
    from archive.configuration.source import Directory


@click.command()
@click.argument("files", nargs=-1, type=click.File("rb"))
@click.option(
    "--against",
    metavar="DIRECTORY",
    help="Compare with another directory instead: an LDIF file of entries, or LDAP URLs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@told
def diff(files: tuple[BinaryIO, ...], *, against: str | None, as_json: bool) -> int:
    """Show what an import of LDIF FILES would change, or how another directory differs.

    Shows each attribute that differs with its values now and then. Another directory on LDAP
    servers is read with the credentials of the own one. Exit status 0: nothing differs; 1:
    something does, or a record would be refused.

    Examples: celery -A workers config diff exporter.ldif

    celery -A workers config diff --against ldap://other/dc=dcm4che,dc=org
    """
    from archive.configuration.comparing import differences  # noqa: PLC0415 - see the package
    from archive.configuration.settings import Settings  # noqa: PLC0415
    from archive.configuration.source import open_directory  # noqa: PLC0415

    if bool(files) == (against is not None):
        msg = "name LDIF files, or --against a directory"
        raise CommandError(msg)
    directory = open_directory(Settings.from_environment())
    before = tuple(directory.read_all())
    refused: list[str] = []
    if against is None:
        after, refused = _with_files(before, files, strict=not directory.is_remote)
    else:
        after = tuple(_other(against).read_all())
    found = list(differences(before, after))
    _print(found, refused, as_json=as_json)
    return 1 if found or refused else 0


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@told
def export(file: Path | None) -> int:
    """Write the whole directory as LDIF to FILE, or to the standard output.

    The order is always the same, so that exports can be compared and kept under version control;
    ldapadd, slapadd and `config import` take the file. It holds whatever the directory holds, also
    passwords: a FILE can be read by its owner only.
    """
    from archive.configuration.comparing import in_order  # noqa: PLC0415 - see the package
    from archive.configuration.ldif import write_ldif  # noqa: PLC0415
    from archive.configuration.schema import load_schema  # noqa: PLC0415
    from archive.configuration.settings import Settings  # noqa: PLC0415
    from archive.configuration.source import open_directory  # noqa: PLC0415

    directory = open_directory(Settings.from_environment())
    entries = in_order(directory.read_all())
    # slapadd takes no line `version: 1`, ldapadd needs none.
    data = write_ldif(entries, load_schema().spelling).removeprefix(b"version: 1\n\n")
    if file is None:
        sys.stdout.buffer.write(data)
        return 0
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(opened.fileno(), 0o600)
            opened.write(data)
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}"
        raise CommandError(msg) from error
    click.echo(f"{len(entries)} entries of {inert(directory.location)} written to {file}")
    return 0


@click.command()
@told
def reload() -> int:
    """Have all running processes, on all hosts, read the configuration now.

    They notice changes by themselves within seconds; nothing has to be reloaded.
    """
    from archive.ledger.reloads import ask_for_reload  # noqa: PLC0415 - see the package

    with session() as opened, opened.ledger.transaction() as tx:
        ask_for_reload(tx)
    click.echo("all running processes were asked to read the configuration")
    return 0


def _with_files(
    before: "tuple[Entry, ...]", files: Sequence[BinaryIO], *, strict: bool
) -> "tuple[tuple[Entry, ...], list[str]]":
    """Return the entries as an import would make them, and the refusals."""
    from archive.configuration.comparing import preview  # noqa: PLC0415 - see the package
    from archive.configuration.ldif import parse_ldif  # noqa: PLC0415

    refused: list[str] = []
    after = before
    for file in files:
        seen = preview(after, parse_ldif(file.read()).records, strict=strict)
        after = seen.entries
        refused += [
            f"{getattr(file, 'name', '-')} line {one.record.line}: {one.refusal}"
            for one in seen.applied
            if one.refusal is not None
        ]
    return after, refused


def _other(against: str) -> "Directory":
    """Open another directory, with the credentials of the own one."""
    from archive.configuration.settings import Settings  # noqa: PLC0415 - see the package
    from archive.configuration.source import open_directory  # noqa: PLC0415

    if "://" not in against and not Path(against).is_file():
        what = "is a folder, no LDIF file" if Path(against).is_dir() else "does not exist"
        msg = f"{against} {what}"
        raise CommandError(msg)
    return open_directory(replace(Settings.from_environment(), directory=against))


def _print(found: "list[Difference]", refused: list[str], *, as_json: bool) -> None:
    """Print differences and refusals."""
    if as_json:
        print_json({"differences": [asdict(one) for one in found], "refused": refused})
        return
    for text in refused:
        click.echo(f"refused: {inert(text)}")
    if found:
        rows = [
            (one.dn, one.attribute, ", ".join(one.before), ", ".join(one.after)) for one in found
        ]
        print_table(("entry", "attribute", "now", "then"), rows)
    entries = len({one.dn for one in found})
    differ = "differs" if len(found) == 1 else "differ"
    click.echo(
        f"{counted(len(found), 'attribute')} of {counted(entries, 'entry', 'entries')} {differ}"
    )
