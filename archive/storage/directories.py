"""Directories whose entries survive a crash (``fsync`` of every entry on the way to a file)."""

import os
import threading
from collections import OrderedDict
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Final

_REMEMBERED: Final = 4096
_MOUNTS: Final = Path("/proc/self/mountinfo")
_BLOCK_DEVICES: Final = Path("/sys/dev/block")
_JOURNALS: Final = Path("/proc/fs/jbd2")


class Names(Enum):
    """How names become durable on a file system."""

    IN_ORDER = auto()
    """One journal keeps all changes of names in one order (XFS, ext4): the fsync of a file makes
    all names durable that were given before, without an fsync of their directories."""

    OF_NEW_FILES = auto()
    """The fsync of a new file also syncs its directory, and those above as far as they are new
    themselves, but no other names (ext4 without a journal, ``ext4_sync_parent``; it has to be
    checked after a power loss)."""

    ONE_BY_ONE = auto()
    """Nothing is known: each directory has to be synced."""


class DurableDirectories:
    """Makes directories below a root and remembers which ones are known to be durable.

    A directory is durable when its own entry and those of all its ancestors below the root were
    synced. Another process may have made one a moment ago without syncing it yet, so a directory
    counts as durable only after this object has synced the way to it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, directory: Path) -> None:
        """Make `directory` and its parents; they are not durable yet."""
        with self._lock:
            for step in (directory, *directory.parents):
                self._known.pop(str(step), None)
                if step == self._root:
                    break
        directory.mkdir(parents=True, exist_ok=True)

    @cached_property
    def names(self) -> Names:
        """How names below the root become durable."""
        return names_on(self._root)

    def follow(self, *, is_new: bool) -> bool:
        """Tell whether the fsync of the newest entry makes it and the way to it durable."""
        return self.names is Names.IN_ORDER or (self.names is Names.OF_NEW_FILES and is_new)

    def sync(self, directory: str, *, is_new: bool) -> None:
        """Make the entries of `directory` durable, and the way to it the first time.

        Does nothing where the fsync of the newest entry has done that.

        Parameters
        ----------
        directory
            Path of a directory below the root, or the root; its newest entry was synced itself.
        is_new
            Whether that was made there, so that it has no other name.
        """
        if self.follow(is_new=is_new):
            return
        sync_directory(directory)
        if directory in self._known:
            return
        step = Path(directory)
        while step != self._root and str(step) not in self._known:
            sync_directory(step.parent)
            step = step.parent
        self._remember(directory)

    def _remember(self, directory: str) -> None:
        with self._lock:
            self._known[directory] = None
            self._known.move_to_end(directory)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def sync_directory(directory: Path | str) -> None:
    """Write the entries of `directory` to the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_on(path: Path) -> Names:
    """Return how names become durable on the file system of `path`."""
    device = device_of(path)
    match file_system_of(device, _MOUNTS.read_text("utf-8")):
        case "xfs":
            return Names.IN_ORDER
        case "ext4":
            name = (_BLOCK_DEVICES / device).resolve().name
            return Names.IN_ORDER if any(_JOURNALS.glob(f"{name}-*")) else Names.OF_NEW_FILES
        case _:
            return Names.ONE_BY_ONE


def device_of(path: Path) -> str:
    """Return the number of the device on which `path` lies, as `major:minor`."""
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def file_system_of(device: str, mounts: str) -> str:
    """Return the type of the file system on a device, empty when it is not known.

    Parameters
    ----------
    mounts
        The text of ``/proc/self/mountinfo`` (proc(5)).
    """
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if device in fields.split()[2:3]:
            return rest.partition(" ")[0]
    return ""
