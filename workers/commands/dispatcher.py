"""``celery -A workers dispatcher``."""

import click


@click.command(name="dispatcher")
@click.option("--once", is_flag=True, help="Make one pass, hand over what is due now, and exit.")
def dispatcher(*, once: bool) -> None:
    """Hand due tasks of the ledger over to the workers.

    Start one or more per installation; it ends on TERM or Ctrl-C. Without one nothing is sent,
    and nothing is lost.

    Example: celery -A workers dispatcher
    """
    from archive.errors import DicomqError  # noqa: PLC0415 - see the package
    from workers.app import app  # noqa: PLC0415
    from workers.dispatching import dispatch_once, serve  # noqa: PLC0415

    try:
        if once:
            count = dispatch_once(app)
            click.echo(f"{count} task{'' if count == 1 else 's'} handed over")
        else:
            serve(app)
    except DicomqError as error:
        raise click.ClickException(str(error)) from error
