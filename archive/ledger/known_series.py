"""The short way into the index: a new object of a series whose rows are known to the caller.

Of such an object only the instance and its location are written, by one prepared statement that
runs while the object's file is made durable; several objects can share a transaction. Whatever is
not that plain is answered with None, nothing having been done, and goes through
`archive.ledger.objects.store_object`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final

import psycopg

from archive.ledger.connection import Ledger, Transaction
from archive.ledger.objects import LONGEST_TEXT
from archive.ledger.pipelining import PipelinedStatement, Row, Running
from archive.ledger.queries import load_queries
from archive.model.entities import (
    ObjectAttributes,
    Reception,
    StoredFile,
    StoreKind,
    StorePolicy,
    StoreResult,
)
from archive.model.task import ExportIntent

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
_OWN: Final = ("sop_class_uid", "instance_number", "content_date", "content_time")
_own_values = attrgetter(*_OWN, "number_of_frames")


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """Primary keys of a series, its study and its patient; the Patient ID of that one."""

    series_pk: int
    study_pk: int
    patient_pk: int
    patient_id: str


@dataclass(frozen=True, slots=True)
class CommonParameters:
    """What is the same for all objects of a series from one sender, encoded.

    Attributes
    ----------
    rows
        Parameters before those of the object.
    policy
        Retrieve AE titles and availability.
    announcements
        What is announced of the object, None for nothing.
    patient_conflict
        The objects name another patient than the one to whom the study belongs.
    """

    rows: tuple[bytes | None, ...]
    policy: tuple[bytes | None, ...]
    announcements: bytes | None
    patient_conflict: bool = False


@dataclass(frozen=True, slots=True)
class Particulars:
    """What belongs to one object.

    Attributes
    ----------
    further
        Encoded further attributes of the object itself, None when it has none.
    intents
        Encoded exports that the rules demand.
    """

    attributes: ObjectAttributes
    further: bytes | None
    file: StoredFile
    reception: Reception
    intents: bytes


def series_rows(tx: Transaction, study: str, series: str) -> SeriesRows | None:
    """Return the rows of a series by Study and Series Instance UID, None when there are none."""
    row = tx.execute(
        load_queries("objects")["series_rows"], {"study": study, "series": series}
    ).fetchone()
    return SeriesRows(*row) if row else None


def common_parameters(
    rows: SeriesRows, attributes: ObjectAttributes, policy: StorePolicy
) -> CommonParameters:
    """Return what objects of the series of `attributes` that are taken in alike have in common."""
    announcements = policy.announcements
    patient_id = _text(attributes.patient_id)
    return CommonParameters(
        rows=(
            b"%d" % rows.series_pk,
            b"%d" % rows.study_pk,
            b"%d" % rows.patient_pk,
            patient_id,
            _text(attributes.study_instance_uid),
            _text(attributes.series_instance_uid),
        ),
        policy=(_array(policy.retrieve_aets), _text(policy.availability)),
        announcements=None if announcements is None else _json(asdict(announcements)),
        patient_conflict=(
            patient_id is not None and rows.patient_id.encode() not in {b"", patient_id}
        ),
    )


def encode_further(further: Mapping[str, Any]) -> bytes | None:
    """Return further attributes of one level for `Particulars`."""
    return _json(further) if further else None


def encode_intents(intents: Sequence[ExportIntent]) -> bytes:
    """Return demanded exports for `Particulars`; in one order, in which they are locked."""
    return _json([asdict(each) for each in sorted(intents, key=attrgetter("exporter_id"))])


class KnownSeriesWriter:
    """Indexes objects of known series; one for all threads of a process.

    Parameters
    ----------
    lock_timeout_s
        How long each lock is waited for, then `Writing.results` raises LedgerConflictError; 0 for
        as long as it takes.
    """

    def __init__(self, ledger: Ledger, max_connections: int = 8, lock_timeout_s: float = 0) -> None:
        self._statement = PipelinedStatement(
            partial(_connected, ledger, lock_timeout_s),
            _numbered(load_queries("objects")["index_in_series"]),
            max_connections=max_connections,
        )

    def send(self, common: CommonParameters, own: Particulars) -> "Writing":
        """Begin to index an object whose file has its path; the caller makes it durable now.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached; nothing was done.
        """
        return self.send_all([(common, own)])

    def send_all(self, objects: Sequence[tuple[CommonParameters, Particulars]]) -> "Writing":
        """Begin to index several objects, all or nothing; see `send`.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached; nothing was done.
        """
        running = self._statement.send(*(_parameters(*each) for each in objects))
        return Writing(running, [common for common, _ in objects])

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._statement.close()


class Writing:
    """Objects that are being indexed; one of the methods has to be called."""

    def __init__(self, running: Running, commons: Sequence[CommonParameters]) -> None:
        self._running = running
        self._commons = list(commons)

    def add(self, common: CommonParameters, own: Particulars) -> None:
        """Begin to index a further object, all or nothing; the caller makes its file durable.

        Raises
        ------
        LedgerUnavailableError
            When the connection broke; nothing was done.
        """
        self._running.add(_parameters(common, own))
        self._commons.append(common)

    def begin_commit(self) -> None:
        """Commit without waiting for it; then ask for `results`.

        Raises
        ------
        LedgerUnavailableError
            When the connection broke: nobody knows whether it was committed.
        """
        self._running.begin_commit()

    def fileno(self) -> int:
        """Return the descriptor that can be read when there may be news for `results`."""
        return self._running.fileno()

    def results(self) -> list[StoreResult | None] | None:
        """Return what became of each object, None as long as that has not come; does not wait.

        Returns
        -------
        list of StoreResult or None
            None for each with which nothing was done because it is not a plain one of its series.

        Raises
        ------
        LedgerConflictError, LedgerUnavailableError, LedgerError
            As for `archive.ledger.pipelining.Running.results`.
        """
        rows = self._running.results()
        return None if rows is None else list(map(_result, rows, self._commons))

    def wait(self) -> list[StoreResult | None]:
        """Return the `results` once they are known; errors as for those."""
        return list(map(_result, self._running.wait(), self._commons))

    def give_up(self) -> None:
        """Roll back."""
        self._running.give_up()


def _connected(ledger: Ledger, lock_timeout_s: float) -> psycopg.Connection:
    connection = ledger.connect()
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{lock_timeout_s}s",))
    return connection


def _result(rows: Sequence[Row], common: CommonParameters) -> StoreResult | None:
    ((done,),) = rows
    if done is None:
        return None
    pk, staged = map(int, done.strip(b"{}").split(b","))
    return StoreResult(
        StoreKind.STORED, pk, staged_tasks=staged, patient_conflict=common.patient_conflict
    )


def _parameters(common: CommonParameters, own: Particulars) -> list[bytes | None]:
    attributes, file, reception = own.attributes, own.file, own.reception
    sop_class, number, date, time, frames = map(_text, _own_values(attributes))
    return [
        *common.rows,
        sop_class,
        _text(attributes.sop_instance_uid),
        number,
        date,
        time,
        frames,
        _number(attributes.rows),
        _number(attributes.columns),
        own.further,
        *common.policy,
        _text(reception.calling_aet),
        _text(reception.called_aet),
        _text(file.storage_id),
        _text(file.storage_path),
        _text(file.transfer_syntax_uid),
        b"%d" % file.object_size,
        b"%d" % file.dataset_offset,
        _text(file.digest),
        own.intents,
        common.announcements,
        _text(reception.move_originator_aet),
        _number(reception.move_originator_message_id),
    ]


def _numbered(query: str) -> bytes:
    """Return a named query with its parameters as $1, $2 and so on, in order."""
    names: list[str] = _PARAMETER.findall(query)
    for number, name in enumerate(names, start=1):
        query = query.replace(f"%({name})s", f"${number}")
    return query.encode()


def _text(value: str | None) -> bytes | None:
    """Return a peer's text without what PostgreSQL or its indexes cannot hold."""
    if value is None:
        return None
    if "\0" in value:
        value = value.replace("\0", "")
    return value[:LONGEST_TEXT].encode("utf-8", "replace")


def _number(value: int | None) -> bytes | None:
    return None if value is None else b"%d" % value


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _array(values: Sequence[str]) -> bytes:
    """Return an array of text as PostgreSQL reads it."""
    escaped = (each.replace("\\", "\\\\").replace('"', '\\"') for each in values)
    return ("{" + ",".join(f'"{each}"' for each in escaped) + "}").encode()
