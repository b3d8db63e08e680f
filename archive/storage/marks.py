"""Marks in ``.incoming``: files whose names tell which final paths are in doubt.

A mark is called ``<id>``, or ``<id>@<final path, quoted>`` from before there is a file under that
path until its row is committed. Its open descriptor is locked throughout, so that a sweep by
another process knows that it has an owner. To rename a mark that is there costs less than to make
and remove one, therefore those that mark nothing are kept for the next object.
"""

import contextlib
import os
import secrets
import urllib.parse
import weakref
from pathlib import Path
from typing import Final

from archive.errors import InvalidValueError
from archive.storage.locks import own
from archive.storage.path_format import check_path

INCOMING: Final = ".incoming"
_MOST_IDLE: Final = 64


def claim_name(identifier: str, path: str) -> str:
    """Return the name of a mark for the checked `path`."""
    return f"{identifier}@{path.replace('%', '%25').replace('/', '%2F')}"


def final_path_of(name: str) -> str | None:
    """Return the final path that a name in ``.incoming`` tells, None when it marks nothing."""
    _, mark, quoted = name.partition("@")
    if not mark:
        return None
    try:
        return check_path(urllib.parse.unquote(quoted))
    except InvalidValueError:
        return None


class Mark:
    """A file in ``.incoming`` that is locked for as long as it is open.

    Raises
    ------
    OSError
        When it cannot be made.
    """

    __slots__ = ("_descriptor", "_directory", "_identifier", "_name")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._identifier = self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._descriptor = create_owned(self.path)

    @property
    def path(self) -> str:
        """Where it is now."""
        return f"{self._directory}/{self._name}"

    @property
    def descriptor(self) -> int:
        """Its descriptor, for reading and writing."""
        return self._descriptor

    def claim(self, path: str) -> None:
        """Tell that `path` is in doubt."""
        self._rename(claim_name(self._identifier, path))

    def release(self) -> None:
        """Tell that nothing is in doubt any more."""
        if self._name is not self._identifier:
            self._rename(self._identifier)

    def leave(self) -> None:
        """Close it as it is: it has no owner any more."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Remove it, and close it."""
        try:
            remove(self.path)
        finally:
            self.leave()

    def _rename(self, name: str) -> None:
        old = self.path
        os.rename(old, f"{self._directory}/{name}")  # noqa: PTH104 - for each object
        self._name = name


class Marks:
    """The marks of this process in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._idle: list[Mark] = []
        weakref.finalize(self, _remove_all, self._idle)

    def make(self) -> Mark:
        """Return a new mark, and make the directory if need be."""
        try:
            return Mark(self._directory)
        except FileNotFoundError:
            Path(self._directory).mkdir(parents=True, exist_ok=True)
            return Mark(self._directory)

    def claim(self, path: str) -> Mark:
        """Return a mark that tells that `path` is in doubt."""
        while True:
            try:
                mark = self._idle.pop()
            except IndexError:
                mark = self.make()
            try:
                mark.claim(path)
            except FileNotFoundError:  # where locks do not work, a sweep removes what is old
                mark.leave()
            except OSError:
                mark.remove()
                raise
            else:
                return mark

    def give_back(self, mark: Mark) -> None:
        """Take a mark whose path is not in doubt any more.

        One that cannot be renamed is left to the sweep, which finds out the same.
        """
        try:
            mark.release()
        except OSError:
            mark.leave()
            return
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(mark)
        else:
            mark.remove()


def create_owned(path: str) -> int:
    """Return the descriptor of a new file, locked for as long as it is open.

    Raises
    ------
    OSError
        When it cannot be made; FileExistsError when there is a file of that name.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o640)
        if own(descriptor):
            return descriptor
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - for each object; see `Layout.root_text`


def _remove_all(marks: list[Mark]) -> None:
    while marks:
        with contextlib.suppress(OSError):
            marks.pop().remove()
