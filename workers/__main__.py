"""Starts a process of the system: ``python -m workers worker|dispatcher|flower …``.

The same as ``celery -A workers …`` with the same options (but `--detach`), but only the command
that is asked for is loaded. Celery's own command line loads every command that is installed,
Flower and a shell with completion among them, which would cost each process 15 MB for as long as
it runs.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final

import click
from celery.bin.base import CLIContext
from typing_extensions import override

from archive.decoders import leave_out_decoders

COMMANDS: Final = {
    "worker": "celery.bin.worker:worker",
    "dispatcher": "workers.commands.dispatcher:dispatcher",
    "flower": "flower.command:flower",
}


class _Processes(click.Group):
    """Commands that are imported when they are asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and give it the options that the application adds."""
        from workers.app import app  # noqa: PLC0415 - after `leave_out_decoders`

        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        for kind in (cmd_name, "preload"):
            command.params.extend(app.user_options.get(kind, ()))
        return command


@click.group(cls=_Processes, name="python -m workers")
@click.pass_context
def main(context: click.Context) -> None:
    """Start a process of the system."""
    from workers.app import app  # noqa: PLC0415 - after `leave_out_decoders`

    context.obj = CLIContext(app=app, no_color=False, workdir=None, quiet=False)


if __name__ == "__main__":
    leave_out_decoders()
    run: Callable[..., int] = main
    sys.exit(run(prog_name="python -m workers", auto_envvar_prefix="CELERY"))
