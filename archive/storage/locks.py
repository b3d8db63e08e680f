"""Locks by which a sweep knows whether a file in ``.incoming`` has a living owner.

The operating system releases them when a process ends, however it ends. A file system without
locks (some network file systems) falls back to the age of the file.
"""

import errno
import fcntl
import os
from typing import Final

UNLOCKABLE_AGE_S: Final = 3600.0
"""Where locks do not work, a file untouched for this long has no owner any more."""

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def own(descriptor: int) -> bool:
    """Lock a new file for as long as it is open; return whether it is still there.

    A sweep may have taken the file for an abandoned one before it was locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return os.fstat(descriptor).st_nlink > 0


def is_ownerless(descriptor: int, age_s: float) -> bool:
    """Tell whether no living process owns a file, and take it over if so.

    Parameters
    ----------
    age_s
        Seconds since the file was last written.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return age_s >= UNLOCKABLE_AGE_S
    return True
