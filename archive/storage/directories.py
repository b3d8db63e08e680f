"""Directories whose entries survive a crash (``fsync`` of every entry on the way to a file)."""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

_REMEMBERED: Final = 4096


class DurableDirectories:
    """Makes directories below a root and remembers which ones are known to be durable.

    A directory is durable when its own entry and those of all its ancestors below the root were
    synced. Another process may have made one a moment ago without syncing it yet, so a directory
    counts as durable only after this object has synced the way to it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: OrderedDict[Path, None] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, directory: Path) -> None:
        """Make `directory` and its parents; they are not durable yet."""
        with self._lock:
            for step in (directory, *directory.parents):
                self._known.pop(step, None)
                if step == self._root:
                    break
        directory.mkdir(parents=True, exist_ok=True)

    def sync(self, directory: Path) -> None:
        """Make the entries of `directory` durable, and the way to it the first time."""
        sync_directory(directory)
        step = directory
        while step != self._root and not self._is_known(step):
            sync_directory(step.parent)
            step = step.parent
        self._remember(directory)

    def _is_known(self, directory: Path) -> bool:
        with self._lock:
            return directory in self._known

    def _remember(self, directory: Path) -> None:
        with self._lock:
            self._known[directory] = None
            self._known.move_to_end(directory)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def sync_directory(directory: Path) -> None:
    """Write the entries of `directory` to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
