"""Templates of ours beside Flower's, and our entries in Flower's navigation bar."""

from collections.abc import Sequence
from pathlib import Path

from tornado.template import Loader, Template
from typing_extensions import override

ADDITIONS = {
    "navbar.html": ("</ul>", "{% include 'dicomq/navigation.html' %}</ul>"),
    "task.html": (
        '<div class="detail-actions">',
        "<div class=\"detail-actions\">{% include 'dicomq/task_link.html' %}",
    ),
}
"""By template of Flower: its first mark, and what stands there instead."""


class ChainLoader(Loader):
    """Loads a template from the first directory that has it.

    Parameters
    ----------
    directories
        Ours first, Flower's last.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        super().__init__(str(directories[-1]), autoescape="xhtml_escape")
        self._directories = tuple(directories)

    @override
    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name: all of ours are given from the top."""
        return name

    @override
    def _create_template(self, name: str) -> Template:
        for directory in self._directories:
            path = directory / name
            if path.is_file():
                return Template(self._text(path, name), name=name, loader=self)
        raise FileNotFoundError(name)

    def _text(self, path: Path, name: str) -> str:
        text = path.read_text(encoding="utf-8")
        mark, replacement = ADDITIONS.get(name, ("", ""))
        return text.replace(mark, replacement, 1) if mark else text
