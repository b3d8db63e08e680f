"""Keeps the decoders of pixel data out of processes that never decode.

pydicom imports NumPy and every decoder that is installed as soon as it is imported itself. That
costs each process a third of its memory and of the time that it takes to start, and only the
child process that transcodes (`workers.transcoding`) ever uses them.
"""

import importlib
import multiprocessing
import sys

_DECODERS = ("gdcm", "jpeg_ls", "libjpeg", "numpy", "openjpeg", "pylibjpeg", "rle")


def leave_out_decoders() -> None:
    """Have pydicom find no decoder; to be called before it is imported.

    Nothing happens in a process that another one spawned in order to decode.
    """
    if multiprocessing.parent_process() is None:
        absent = [name for name in _DECODERS if name not in sys.modules]
        for name in absent:
            # what the import system does with None: ImportError, as if it were not installed
            sys.modules[name] = None  # type: ignore[assignment] # missing in typeshed
        importlib.import_module("pydicom")
        importlib.import_module("pynetdicom")
        for name in absent:  # psycopg takes the None of NumPy for the module
            del sys.modules[name]
