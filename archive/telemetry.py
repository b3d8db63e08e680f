"""What dicomq tells the outside about itself: events as data, the log as one subscriber.

An event is a constant name with fields; nothing in the code formats sentences for the log. Fields
that are sentences for an administrator (what, whose fault, retried or not, what to do) are passed
as `message`. `checkpoint` marks the places at which fault tests stop or kill a process; unless
`configure_checkpoint` was called at start it does nothing.
"""

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Protocol

from typing_extensions import override

from archive.errors import InvalidValueError

SCP_LISTENING: Final = "scp.listening"
SCP_STOPPING: Final = "scp.stopping"
SCP_STOPPED: Final = "scp.stopped"
ASSOCIATION_ACCEPTED: Final = "scp.association-accepted"
ASSOCIATION_REJECTED: Final = "scp.association-rejected"
ASSOCIATION_ENDED: Final = "scp.association-ended"
PROTOCOL_VIOLATED: Final = "scp.protocol-violated"
TLS_REFUSED: Final = "scp.tls-refused"
TLS_PORT: Final = "scp.tls-port"
STORAGE_UNAVAILABLE: Final = "storage.unavailable"
OBJECT_STORED: Final = "scp.object-stored"
LANE_ENTERED: Final = "scp.lane-entered"
OBJECT_DUPLICATE: Final = "scp.object-duplicate"
OBJECT_RESTORED: Final = "scp.object-restored"
OBJECT_REFUSED: Final = "scp.object-refused"
OBJECT_ABANDONED: Final = "scp.object-abandoned"
OBSOLETE_FILE_KEPT: Final = "scp.obsolete-file-kept"
COMMITMENT_REQUESTED: Final = "scp.commitment-requested"
COMMITMENT_REPORTED: Final = "scp.commitment-reported"
COMMITMENT_REPORT_SENT: Final = "scp.commitment-report-sent"
REQUEST_REFUSED: Final = "scp.request-refused"
PROCEDURE_STEP_CHANGED: Final = "scp.procedure-step-changed"
STORAGE_SWEPT: Final = "storage.swept"
STORAGE_FILE_MISSING: Final = "storage.file-missing"
CONFIGURATION_PROBLEM: Final = "configuration.problem"
LEDGER_UNAVAILABLE: Final = "ledger.unavailable"

CHECKPOINT_OBJECT_RECEIVED: Final = "scp.object-received"
CHECKPOINT_FILE_PLACED: Final = "scp.file-placed"
CHECKPOINT_FILE_DURABLE: Final = "scp.file-durable"
CHECKPOINT_COMMITTED: Final = "scp.committed"
CHECKPOINT_REPLACED: Final = "scp.replaced"
CHECKPOINT_BEFORE_RESPONSE: Final = "scp.before-response"
CHECKPOINT_COMMITMENT_REQUESTED: Final = "scp.commitment-requested"
CHECKPOINT_COMMITMENT_REPORTED: Final = "scp.commitment-reported"
CHECKPOINT_COMMITMENT_REPORT_TAKEN: Final = "scp.commitment-report-taken"


class TelemetrySettings(Protocol):
    """The part of the settings that telemetry needs."""

    @property
    def log_level(self) -> str:
        """Name of the lowest level that is logged."""
        ...

    @property
    def log_format(self) -> str:
        """`text` or `json`."""
        ...


class EventFormatter(logging.Formatter):
    """One line per event: UTC time, level, event name, then `key=value` pairs."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`; records of other libraries keep their own message."""
        instant = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = f"{instant} {record.levelname:<7} "
        fields: dict[str, object] | None = getattr(record, "fields", None)
        if fields is None:
            line = f"{head}{record.name}: {record.getMessage()}"
        else:
            pairs = (f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
            line = " ".join((f"{head}{record.getMessage()}", *pairs))
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the fields of the event beside `time`, `level`, `event`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`; records of other libraries are a `message`."""
        fields: dict[str, object] | None = getattr(record, "fields", None)
        instant = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": instant, "level": record.levelname}
        if fields is None:
            line |= {"logger": record.name, "message": record.getMessage(), **_bound.get()}
        else:
            present = {key: value for key, value in fields.items() if value is not None}
            line |= {"event": record.getMessage(), **present}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


_bound: ContextVar[dict[str, object]] = ContextVar("fields of every event", default={})  # noqa: B039 - never changed in place


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add `fields`, such as task and attempt, to every event of this thread in the block."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def _shown(value: object) -> str:
    """Return `value` for the log, quoted when it has blanks or control characters."""
    text = str(value)
    plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if plain else repr(text)


def log_event(
    logger: logging.Logger,
    event: str,
    *,
    level: int = logging.INFO,
    exc_info: bool = False,
    **fields: object,
) -> None:
    """Log `event` with `fields`; fields that are None are left out.

    Parameters
    ----------
    event
        One of the constants of this module or of the calling process.
    level
        A level of the logging module.
    exc_info
        Add the traceback of the exception being handled.
    """
    if logger.isEnabledFor(level):
        extra = {"event": event, "fields": {**_bound.get(), **fields}}
        logger.log(level, event, exc_info=exc_info, extra=extra)


def configure_logging(settings: TelemetrySettings) -> None:
    """Send events and the warnings of libraries to standard error, one line each.

    What pydicom thinks of single values is not said: it does not name the object, and what
    matters of it is in our own events.
    """
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json"
    handler.setFormatter(JsonFormatter() if as_json else EventFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for library in ("pynetdicom", "pydicom", "ldap3", "psycopg"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


class _Checkpoint:
    """The checkpoint that was asked for, and how many passes are left before it strikes."""

    def __init__(self, name: str, signal_number: int, passes: int) -> None:
        self.name = name
        self._signal_number = signal_number
        self._passes_left = passes
        self._lock = threading.Lock()

    def passed(self) -> None:
        """Count a pass and signal this process at the last one."""
        with self._lock:
            self._passes_left -= 1
            strike = self._passes_left == 0
        if strike:
            os.kill(os.getpid(), self._signal_number)


_SIGNALS: Final = {
    "INT": signal.SIGINT,
    "KILL": signal.SIGKILL,
    "STOP": signal.SIGSTOP,
    "TERM": signal.SIGTERM,
}
_armed: dict[str, _Checkpoint] = {}


def configure_checkpoint(text: str | None) -> None:
    """Arm the checkpoint `name:SIGNAL[:pass]`, for example ``scp.committed:KILL:250``.

    Parameters
    ----------
    text
        Name, INT, KILL, STOP or TERM, and at which pass (1 when left out). None or empty arms
        nothing.

    Raises
    ------
    InvalidValueError
        When the text has another form.
    """
    _armed.clear()
    if not text:
        return
    name, _, rest = text.partition(":")
    signal_name, _, passes = rest.partition(":")
    if signal_name not in _SIGNALS or not (passes or "1").isdigit():
        msg = f"checkpoint {text!r} is not name:INT|KILL|STOP|TERM[:pass]"
        raise InvalidValueError(msg)
    _armed[name] = _Checkpoint(name, _SIGNALS[signal_name], int(passes or "1"))


def checkpoint(name: str) -> None:
    """Mark that this thread is at `name`; does nothing unless that checkpoint was armed."""
    if _armed and (armed := _armed.get(name)):
        armed.passed()
