"""What a crash left on a local storage: marks without a living owner, and the files they mark."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.clock import Clock
from archive.storage.locks import is_ownerless
from archive.storage.marks import INCOMING, final_path_of
from archive.storage.sweeping import KnownPaths, SweepReport


@dataclass(frozen=True, slots=True)
class _Leftover:
    """A mark without an owner.

    Attributes
    ----------
    path
        The final path that it marks.
    is_empty
        Whether it is nothing but a mark; else it is the file itself, or a temporary file.
    marked
        The file under that path, if it is the one that is marked.
    """

    entry: Path
    path: str | None
    is_empty: bool
    marked: os.stat_result | None


class Leftovers:
    """Finds and judges them; they are locked meanwhile, so that no other process judges them too.

    Parameters
    ----------
    older_than_s
        Files that changed less than this many seconds ago are left alone.
    """

    def __init__(self, root: Path, clock: Clock, older_than_s: float) -> None:
        self._root = root
        self._clock = clock
        self._older_than_s = older_than_s
        self._held = contextlib.ExitStack()

    def sweep(self, known: KnownPaths) -> SweepReport:
        """Delete temporary files and files in doubt that have no row.

        Raises
        ------
        OSError
            When a file cannot be opened, locked or deleted.
        """
        with self._held:
            leftovers = list(self._found())
            paths = [each.path for each in leftovers if each.path is not None]
            return self._swept(leftovers, known(paths) if paths else set())

    def _found(self) -> Iterator[_Leftover]:
        incoming = self._root / INCOMING
        if not incoming.is_dir():
            return
        for entry in list(incoming.iterdir()):
            status = self._taken(entry)
            if status is None:
                continue
            path = final_path_of(entry.name)
            is_empty = status.st_size == 0
            marked = None
            if path is not None and (final := self._root / path).exists():
                marked = self._taken(final) if is_empty else final.stat()
                if marked is None:
                    continue  # another process took the path and is at work on it
                if not is_empty and not os.path.samestat(marked, status):
                    marked = None
            yield _Leftover(entry, path, is_empty, marked)

    def _taken(self, path: Path) -> os.stat_result | None:
        """Lock a file that is old enough and has no owner; None for another one."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        self._held.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        age_s = self._clock.now().timestamp() - status.st_ctime
        is_free = age_s >= self._older_than_s and is_ownerless(descriptor, age_s)
        return status if is_free else None

    def _swept(self, leftovers: list[_Leftover], rows: set[str]) -> SweepReport:
        removed: list[str] = []
        confirmed: list[str] = []
        missing: list[str] = []
        for each in leftovers:
            if each.path is None:
                removed += [] if each.is_empty else [each.entry.name]
            elif each.path not in rows:
                self._remove_marked(each)
                removed.append(each.path)
            elif (self._root / each.path).exists():
                confirmed.append(each.path)
            else:
                missing.append(each.path)
                if not each.is_empty:
                    continue  # it has the bytes
            each.entry.unlink(missing_ok=True)
        return SweepReport(tuple(removed), tuple(confirmed), tuple(missing))

    def _remove_marked(self, leftover: _Leftover) -> None:
        """Delete the file that is marked, not another one that took its path."""
        if leftover.path is None or leftover.marked is None:
            return
        final = self._root / leftover.path
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(final.stat(), leftover.marked):
                final.unlink()
