"""How ``celery -A workers flower`` gets our pages, without a command of our own.

Two commands called `flower` would be undefined; a preload option belongs to the application and
is handled before the command runs, which is when Flower's tables of handlers are still open.
"""

import click


def pages_option() -> click.Option:
    """Return the option `--dicom-pages`, on by default, without effect on other commands."""
    return click.Option(
        ["--dicom-pages/--no-dicom-pages"],
        default=True,
        hidden=True,
        expose_value=False,
        callback=_install,
    )


def _install(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's own
    # It is no parameter of the command: Celery would hand it to those that take none, or miss it.
    context.obj.app.user_options["preload"].discard(parameter)
    if not value or context.info_name != "flower" or context.resilient_parsing:
        return
    from workers.monitor.install import install  # noqa: PLC0415 - only Flower needs it

    install(context.obj.app.settings)
