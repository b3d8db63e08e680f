"""Turns objects into native transfer syntaxes, in a process that may be lost.

Pixel data comes from outside, and its decoders are C code: a crafted image can crash them, eat
all memory or never end. They therefore run in one spawned child with limits of memory and time;
when it dies, only the object that killed it fails, and the next one gets a new child.
"""

import contextlib
import json
import multiprocessing
import resource
import signal
import tempfile
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from pydicom import DataElement, Dataset, dcmread
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from archive.errors import DatasetError

TIME_LIMIT_S = 600.0
START_LIMIT_S = 60.0
MEMORY_LIMIT_BYTES = 4 << 30
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


class TranscodingError(DatasetError):
    """The object cannot be decoded: its pixel data are damaged or of an unsupported kind."""


class Transcoder:
    """Transcodes one object at a time; for a ``with`` block, shared by threads.

    The child starts with the first object, because most tasks need none.

    Parameters
    ----------
    time_limit_s
        Seconds per object; the start of the child does not count.
    """

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._lock = Lock()
        self._stack = contextlib.ExitStack()
        self._directory: Path | None = None
        self._child: tuple[BaseProcess, Connection] | None = None
        self._is_new = False
        self._count = 0

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, None before the first object."""
        return self._child[0].pid if self._child else None

    def __enter__(self) -> Self:
        """Start using it; costs nothing."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the child and remove all results."""
        self.stop()
        self._stack.close()

    def stop(self) -> None:
        """Kill the child; callable from another thread to break a long transcoding."""
        child = self._child
        if child is not None:
            child[0].kill()

    def transcode(self, source: Path, transfer_syntax_uid: str) -> Path:
        """Return a file with the bare encoded data set of `source` in a native transfer syntax.

        The caller deletes it after use.

        Raises
        ------
        TranscodingError
            When the object cannot be decoded, or the decoder crashed or took too long.
        """
        with self._lock:
            if self._directory is None:
                temporary = tempfile.TemporaryDirectory(prefix="dicomq-transcoding-")
                self._directory = Path(self._stack.enter_context(temporary))
            self._count += 1
            target = self._directory / str(self._count)
            job = {"source": str(source), "target": str(target), "syntax": transfer_syntax_uid}
            problem = self._ask(job)
        if problem:
            target.unlink(missing_ok=True)
            msg = f"cannot be transcoded to {UID(transfer_syntax_uid).name}: {problem}"
            raise TranscodingError(msg)
        return target

    def _ask(self, job: dict[str, str]) -> str | None:
        """Have the child do a job; return what went wrong."""
        process, connection = self._child or self._start()
        try:
            if self._is_new and not connection.poll(START_LIMIT_S):
                self._discard()
                return f"the decoder did not start within {START_LIMIT_S:g} s"
            if self._is_new:
                connection.recv_bytes()  # its greeting
                self._is_new = False
            connection.send_bytes(json.dumps(job).encode())
            if connection.poll(self._time_limit_s):
                return str(json.loads(connection.recv_bytes())["problem"] or "") or None
            problem = f"not decoded within {self._time_limit_s:g} s"
        except (EOFError, OSError):
            process.join(1.0)
            problem = f"the decoder crashed (exit code {process.exitcode})"
        self._discard()
        return problem

    def _start(self) -> tuple[BaseProcess, Connection]:
        """Start a child; spawned, because a fork would inherit locks held by other threads."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name="transcoder", daemon=True)
        process.start()
        theirs.close()
        self._child = (process, ours)
        self._is_new = True
        self._stack.callback(self._discard)
        return self._child

    def _discard(self) -> None:
        if self._child is not None:
            process, connection = self._child
            self._child = None
            process.kill()
            process.join()
            connection.close()


def _serve(connection: Connection) -> None:
    """Do jobs until the parent closes the pipe; runs in the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError):
        connection.send_bytes(b"ready")
        while True:
            job = json.loads(connection.recv_bytes())
            problem = _attempt(Path(job["source"]), Path(job["target"]), job["syntax"])
            connection.send_bytes(json.dumps({"problem": problem}).encode())


def _attempt(source: Path, target: Path, transfer_syntax_uid: str) -> str | None:
    """Convert and return what went wrong: decoders of foreign data raise anything."""
    try:
        convert(source, target, transfer_syntax_uid)
    except MemoryError:
        return f"needs more than {MEMORY_LIMIT_BYTES >> 30} GiB of memory"
    except Exception as error:  # noqa: BLE001 - the child's answer is the translation
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return None


def convert(source: Path, target: Path, transfer_syntax_uid: str) -> None:
    """Write the data set of `source`, without file meta information, in a native syntax.

    Parameters
    ----------
    source
        A DICOM file of any transfer syntax that pydicom can decode.
    transfer_syntax_uid
        Implicit or Explicit VR Little Endian (PS3.5 §A.1, §A.2).
    """
    syntax = UID(transfer_syntax_uid)
    dataset = dcmread(source)
    stored = dataset.file_meta.TransferSyntaxUID
    if stored.is_encapsulated and "PixelData" in dataset:
        dataset.decompress(generate_instance_uid=False)
    if not stored.is_little_endian:
        _swap_words(dataset)
    with target.open("wb") as file:
        output = DicomIO(file)
        output.is_implicit_VR = syntax.is_implicit_VR
        output.is_little_endian = True
        write_dataset(output, dataset)


def _swap_words(dataset: Dataset) -> None:
    """Turn the byte order of all words that pydicom keeps as read (PS3.5 §7.3)."""
    pixel_bytes = int(dataset.get("BitsAllocated", 16) or 16) // 8
    for element in _elements(dataset):
        size = _WORD_BYTES.get(element.VR)
        if size and isinstance(element.value, bytes):
            size = max(size, pixel_bytes) if element.keyword == "PixelData" else size
            swapped = bytearray(len(element.value))
            for index in range(size):
                swapped[index::size] = element.value[size - 1 - index :: size]
            element.value = bytes(swapped)


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """Yield all elements, those of sequence items included."""
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)
