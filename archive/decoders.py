"""Keeps the decoders of pixel data out of processes that never decode.

pydicom imports NumPy and every decoder that is installed as soon as it is imported itself. That
costs each process a third of its memory and of the time that it takes to start, and only the
child process that transcodes (`workers.transcoding`) ever uses them.
"""

import multiprocessing
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from typing_extensions import override

DECODERS = frozenset({"PIL", "gdcm", "jpeg_ls", "libjpeg", "numpy", "openjpeg", "pylibjpeg", "rle"})
LEFT_OUT = DECODERS | {"requests"}
"""`requests`, which comes with tools of development, would fetch pydicom's test files."""


class _LeaveOut(MetaPathFinder):
    """Finds none of what is left out, as if it were not installed."""

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Refuse what is left out; leave every other module to the finders that follow."""
        if fullname in LEFT_OUT:
            msg = f"{fullname} is left out of processes that do not decode pixel data"
            raise ModuleNotFoundError(msg, name=fullname)
        return None


def leave_out_decoders() -> None:
    """Have pydicom find no decoder; to be called before it is imported.

    Nothing happens in a process that another one spawned in order to decode.
    """
    if multiprocessing.parent_process() is None:
        sys.meta_path.insert(0, _LeaveOut())
