"""Exports by hand: of a study, series or instance, or of the rows of a CSV file.

What is ordered by hand sends everything, also what the destination was sent before. An invalid
row of a CSV file is refused and named; it never widens what another row says.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from archive.configuration.descriptors import Exporter, Snapshot
from archive.configuration.source import SnapshotSource
from archive.errors import InvalidValueError
from archive.ledger import operations, tasks
from archive.ledger.connection import Ledger, Transaction
from archive.model.identifiers import check_uid
from archive.model.task import CommitmentDetails, NewTask, TaskKind
from workers.export import notifications
from workers.operations import UnknownNameError, exporter_called
from workers.processors import PROCESSORS

COMMIT_QUEUE = "StgCmtSCU"
STAGED_PER_TRANSACTION = 500


class Only(StrEnum):
    """What is done instead of the export, as if it had just been completed."""

    IAN = "only-ian"
    COMMITMENT = "only-stgcmt"


@dataclass(frozen=True, slots=True)
class Entity:
    """A study, a series or an instance; None for the whole of the level above.

    Raises
    ------
    InvalidValueError
        When a UID is none, or an instance is given without its series.
    """

    study_instance_uid: str
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None

    def __post_init__(self) -> None:
        check_uid(self.study_instance_uid, "Study Instance UID")
        if self.series_instance_uid is not None:
            check_uid(self.series_instance_uid, "Series Instance UID")
        if self.sop_instance_uid is not None:
            check_uid(self.sop_instance_uid, "SOP Instance UID")
            if self.series_instance_uid is None:
                msg = f"instance {self.sop_instance_uid} needs the UID of its series as well"
                raise InvalidValueError(msg)


@dataclass(frozen=True, slots=True)
class Order:
    """How entities are exported.

    Attributes
    ----------
    at
        When the tasks are due; None for now.
    only
        Do this instead of the export.
    """

    exporter_id: str
    at: datetime | None = None
    batch_id: str | None = None
    only: Only | None = None


@dataclass(frozen=True, slots=True)
class CsvColumns:
    """Where the UIDs stand in a CSV file; columns count from 1.

    Raises
    ------
    InvalidValueError
        When a column is below 1, or both are the same.
    """

    study: int = 1
    series: int | None = None
    delimiter: str = ","

    def __post_init__(self) -> None:
        if self.study < 1 or (self.series is not None and self.series < 1):
            msg = "columns of a CSV file count from 1"
            raise InvalidValueError(msg)
        if self.study == self.series:
            msg = f"study and series cannot both stand in column {self.study}"
            raise InvalidValueError(msg)


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row of a CSV file that cannot be exported."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class CsvContent:
    """What a CSV file asks for."""

    entities: tuple[Entity, ...]
    refused: tuple[RefusedRow, ...]


def read_csv(lines: Iterable[str], columns: CsvColumns) -> CsvContent:
    """Return the entities of a CSV file (RFC 4180), each once, and its unusable rows.

    The first row is skipped if its study cell is letters only, rows with an empty study cell are
    skipped as well.
    """
    entities: dict[Entity, None] = {}
    refused: list[RefusedRow] = []
    for line, cells in _rows(lines, columns):
        try:
            entities[_entity(cells, columns)] = None
        except InvalidValueError as error:
            refused.append(RefusedRow(line, str(error)))
    return CsvContent(tuple(entities), tuple(refused))


def _rows(lines: Iterable[str], columns: CsvColumns) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of the rows that ask for something."""
    reader = csv.reader(lines, delimiter=columns.delimiter, strict=True)
    try:
        for number, cells in enumerate(reader):
            study = _cell(cells, columns.study)
            is_header = number == 0 and study.replace(" ", "").isalpha()
            if cells and not is_header and (study or len(cells) < columns.study):
                yield reader.line_num, cells
    except csv.Error as error:
        msg = f"line {reader.line_num} is not CSV: {error}"
        raise InvalidValueError(msg) from error


def _cell(cells: list[str], column: int) -> str:
    return cells[column - 1].strip().removeprefix("\ufeff") if column <= len(cells) else ""


def _entity(cells: list[str], columns: CsvColumns) -> Entity:
    if len(cells) < max(columns.study, columns.series or 1):
        msg = f"the row has {len(cells)} columns only; is the delimiter {columns.delimiter!r}?"
        raise InvalidValueError(msg)
    series = None if columns.series is None else _cell(cells, columns.series)
    return Entity(_cell(cells, columns.study), series)


class Orders:
    """Stages exports on behalf of somebody.

    Parameters
    ----------
    actor
        Who orders, for the history.
    """

    def __init__(self, ledger: Ledger, source: SnapshotSource, *, actor: str) -> None:
        self._ledger = ledger
        self._source = source
        self._actor = actor

    def place(self, order: Order, entities: Iterable[Entity]) -> list[int]:
        """Stage the tasks for `entities` and return their primary keys.

        Large orders are staged in several transactions.

        Raises
        ------
        UnknownNameError
            When the exporter does not exist, or has no destination for what is ordered.
        InvalidValueError
            When this release cannot do what is ordered.
        """
        snapshot = self._source.snapshot()
        exporter = exporter_called(snapshot, order.exporter_id)
        check_order(order, exporter)
        pks: list[int] = []
        waiting = list(entities)
        for start in range(0, len(waiting), STAGED_PER_TRANSACTION):
            with self._ledger.transaction() as tx:
                due_in_s = operations.due_in_s(tx, order.at)
                for entity in waiting[start : start + STAGED_PER_TRANSACTION]:
                    new = new_tasks(entity, order, exporter, snapshot)
                    pks += self._stage(tx, new, due_in_s)
        return pks

    def _stage(self, tx: Transaction, new: Iterable[NewTask], due_in_s: float) -> list[int]:
        return [
            tasks.stage(
                tx, replace(each, due_in_s=due_in_s), actor=self._actor, reason="ordered by hand"
            )
            for each in new
        ]


def check_order(order: Order, exporter: Exporter) -> None:
    """Refuse an order that cannot be carried out.

    Raises
    ------
    UnknownNameError
        When the exporter has no destination for it.
    InvalidValueError
        When this release cannot do it.
    """
    named = f"exporter {exporter.exporter_id}"
    if order.only is Only.IAN and not exporter.ian_destinations:
        msg = f"{named} has no destination of notifications: add dcmIanDestination to {exporter.dn}"
        raise UnknownNameError(msg)
    if order.only is Only.COMMITMENT:
        if exporter.storage_commitment_scp is None:
            msg = f"{named} has no storage commitment SCP: add dcmStgCmtSCP to {exporter.dn}"
            raise UnknownNameError(msg)
        if TaskKind.STGCMT_SCU not in PROCESSORS:
            msg = "this release cannot request storage commitment; nothing was staged"
            raise InvalidValueError(msg)


def new_tasks(
    entity: Entity, order: Order, exporter: Exporter, snapshot: Snapshot
) -> tuple[NewTask, ...]:
    """Return the tasks that an order means for one entity, due now."""
    export = NewTask(
        kind=TaskKind.EXPORT,
        queue_name=exporter.queue_name,
        device_name=snapshot.device.name,
        local_aet=exporter.aet or "",
        remote_aet=exporter.remote_aet,
        study_instance_uid=entity.study_instance_uid,
        series_instance_uid=entity.series_instance_uid,
        sop_instance_uid=entity.sop_instance_uid,
        exporter_id=exporter.exporter_id,
        batch_id=order.batch_id,
    )
    if order.only is None:
        return (export,)
    if order.only is Only.COMMITMENT:
        scp = exporter.storage_commitment_scp or ""
        kind, queue = TaskKind.STGCMT_SCU, COMMIT_QUEUE
        held_by = exporter.exporter_id if exporter.scheme == "dicom" else None
        details = CommitmentDetails(held_by_exporter=held_by)
        request = replace(export, kind=kind, queue_name=queue, remote_aet=scp, commitment=details)
        return (request,)
    return _announcements(export, exporter, snapshot)


def _announcements(export: NewTask, exporter: Exporter, snapshot: Snapshot) -> tuple[NewTask, ...]:
    """Return the notifications that follow an export which sends nothing: all is announced."""
    sends_nothing = replace(exporter, scheme="noop")
    return tuple(
        replace(
            each,
            series_instance_uid=export.series_instance_uid,
            sop_instance_uid=export.sop_instance_uid,
        )
        for each in notifications(export, sends_nothing, snapshot)
    )
