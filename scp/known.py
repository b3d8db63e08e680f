"""The short way of objects of series that this process has seen before.

Objects of one series differ in a handful of elements. The attributes of patient, study and series
of the first one are decoded and indexed in full; they are remembered by their encoded bytes,
together with the rows they went into and what the rules demand. Of a further object only its own
attributes are decoded and only its own rows written, while its file is made durable. Objects that
come at the same time share a transaction. An object that is not plain (known already, or its
series was changed) goes the long way.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from archive import telemetry
from archive.clock import Clock
from archive.combining import Combiner
from archive.configuration.export_rules import demanded_exports
from archive.errors import LedgerError, LedgerUnavailableError
from archive.ledger.connection import Ledger
from archive.ledger.known_series import (
    CommonParameters,
    KnownSeriesWriter,
    Particulars,
    Writing,
    common_parameters,
    encode_further,
    encode_intents,
    series_rows,
)
from archive.model.entities import ObjectAttributes, StoreResult
from archive.model.task import ExportIntent
from archive.storage.base import IncomingFile
from archive.telemetry import checkpoint
from scp.dimse import StoreRequest
from scp.header import Header, RawValues
from scp.rejection import KEY_OBJECT_SELECTION
from scp.session import Session

_REMEMBERED: Final = 1024
_REMEMBERED_FURTHER: Final = 16
_LONG: Final = 1 << 21
"""Bytes of an object that is made durable before it is indexed, not meanwhile."""

_log = logging.getLogger(__name__)

_LOCK_TIMEOUT_S: Final = 0.1
"""How long a lock is waited for by who may be waited for itself."""

_Key = tuple[tuple[str, ...], bool, bool, RawValues]


@dataclass(frozen=True, slots=True)
class Incoming:
    """An object whose data set is arriving."""

    request: StoreRequest
    transfer_syntax_uid: str
    session: Session
    file: IncomingFile


@dataclass(frozen=True, slots=True)
class _Known:
    """A series, and how its objects are taken in.

    Attributes
    ----------
    intents
        Encoded exports that the rules demand for each object; None when that has to be asked.
    further
        Encoded further attributes of objects by their bytes.
    """

    sibling: ObjectAttributes
    common: CommonParameters
    intents: bytes | None
    further: dict[RawValues, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """An object of a known series whose file has its path, neither durable nor in the index."""

    common: CommonParameters
    own: Particulars
    file: IncomingFile


def demanded(
    session: Session, header: Header, request: StoreRequest, clock: Clock
) -> tuple[ExportIntent, ...]:
    """Return the exports that the rules demand for an object."""
    if not session.export_rules:
        return ()
    return demanded_exports(
        session.snapshot,
        session.ae,
        header.dataset(session.rule_tags),
        session.reception(request),
        clock.now(),
    )


class ShortWay:
    """Remembers series and stores further objects of them; one for all associations."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._writer = KnownSeriesWriter(ledger)
        self._impatient = KnownSeriesWriter(ledger, lock_timeout_s=_LOCK_TIMEOUT_S)
        self._combiners: dict[str, Combiner[Placed, StoreResult | None]] = {}
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections to the ledger."""
        self._writer.close()
        self._impatient.close()

    def place(self, incoming: Incoming, header: Header) -> Placed | None:
        """Place an object whose header was checked; None when its series is not known.

        Rejection notes are never stored that way: they change other objects.

        Raises
        ------
        DicomqError
            As for `scp.store.StoreService.complete`.
        """
        known = self._known.get(_key(incoming.session, header))
        if known is None or incoming.request.sop_class_uid == KEY_OBJECT_SELECTION:
            return None
        request, file = incoming.request, incoming.file
        attributes = header.attributes_like(known.sibling, request, incoming.transfer_syntax_uid)
        intents = known.intents
        if intents is None:
            intents = encode_intents(demanded(incoming.session, header, request, self._clock))
        own = Particulars(
            attributes,
            _further(known, header),
            file.place(attributes),
            incoming.session.reception(request),
            intents,
        )
        checkpoint(telemetry.CHECKPOINT_FILE_PLACED)
        return Placed(known.common, own, file)

    def store_one(self, placed: Placed) -> StoreResult | None:
        """Index an object as `store` does, together with those of other associations.

        Who comes first does not wait for others. The files of those who come while it is at work
        are made durable meanwhile; then one transaction takes them all.

        Raises
        ------
        DicomqError
            As for `store`; what is at fault with one object does not fail the others.
        """
        if placed.file.dataset_length > _LONG:
            _prepare(placed)  # takes so long that nobody ought to wait for it
        return self._combiner(placed.own.file.storage_id).do(placed)

    def store(self, *objects: Placed) -> list[StoreResult | None]:
        """Index objects in one transaction while their files are made durable; then commit.

        Returns
        -------
        list of StoreResult or None
            None for each with which the ledger has done nothing; its file is durable all the same.

        Raises
        ------
        DicomqError
            As for `scp.store.StoreService.complete`, for all of them.
        """
        writing = self._writer.send_all([(each.common, each.own) for each in objects])
        committing = Committing([each.file for each in objects], writing)
        committing.go_on()
        return committing.wait()

    def begin(self, placed: Placed) -> "Committing":
        """Begin to index an object, and others in the same transaction, in any order.

        Two such transactions may wait for each other, if they hold objects of the same studies. So
        each gives up when it has to wait, which `Committing.results` answers as `store` does.

        Raises
        ------
        DicomqError
            As for `store`.
        """
        return Committing([placed.file], self._impatient.send(placed.common, placed.own))

    def _combiner(self, storage_id: str) -> Combiner[Placed, StoreResult | None]:
        """Return the combiner of a storage: one that hangs holds up no other."""
        found = self._combiners.get(storage_id)
        if found is None:
            made: Combiner[Placed, StoreResult | None] = Combiner(
                self._store_together,
                self._store_alone,
                everybodys=LedgerUnavailableError,
                prepare=_prepare,
            )
            found = self._combiners.setdefault(storage_id, made)
        return found

    def _store_alone(self, placed: Placed) -> StoreResult | None:
        return self.store(placed)[0]

    def _store_together(self, objects: Sequence[Placed]) -> list[StoreResult | None]:
        results = dict.fromkeys(map(id, objects), None)
        chosen = combined(objects)
        results.update(zip(map(id, chosen), self.store(*chosen), strict=True))
        return [results[id(each)] for each in objects]

    def learn(self, incoming: Incoming, header: Header, attributes: ObjectAttributes) -> bool:
        """Remember the series of an object stored with exactly `attributes`; tell whether it is."""
        session = incoming.session
        try:
            with self._ledger.statement() as tx:
                rows = series_rows(
                    tx, attributes.study_instance_uid, attributes.series_instance_uid
                )
        except LedgerError:
            return False  # the object is stored; the next one of the series is learned from
        if rows is None:
            return False
        intents = None
        if session.has_lasting_intents:
            intents = encode_intents(demanded(session, header, incoming.request, self._clock))
        known = _Known(attributes, common_parameters(rows, attributes, session.policy), intents)
        with self._lock:
            self._known[_key(session, header)] = known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return True


class Committing:
    """Objects whose rows are committed as soon as their files are durable.

    Attributes
    ----------
    has_begun
        Whether the commit was sent, or given up.
    """

    def __init__(self, files: Sequence[IncomingFile], writing: Writing) -> None:
        self._files = list(files)
        self._writing = writing
        self.has_begun = False

    def add(self, placed: Placed) -> None:
        """Index a further object in the same transaction; errors as for `ShortWay.store`."""
        self._writing.add(placed.common, placed.own)
        self._files.append(placed.file)

    def go_on(self) -> None:
        """Send the commit, unless files are still being synced; errors as for `ShortWay.store`."""
        if self.has_begun or any(each.is_syncing for each in self._files):
            return
        self.has_begun = True
        self._make_durable()
        try:
            self._writing.begin_commit()
        except LedgerUnavailableError:
            self._leave_in_doubt()
            raise

    def give_up(self) -> None:
        """Roll back, unless the commit was sent."""
        if not self.has_begun:
            self.has_begun = True
            self._writing.give_up()

    def _make_durable(self) -> None:
        """Sync the files; the transaction that runs meanwhile is given up when that fails."""
        try:
            if len(self._files) > 1:
                for file in self._files:
                    file.start_sync()
            for file in self._files:
                file.sync()
                checkpoint(telemetry.CHECKPOINT_FILE_DURABLE)
        except BaseException:
            self._writing.give_up()
            raise

    def fileno(self) -> int:
        """Return the descriptor that can be read when there may be news for `results`."""
        return self._writing.fileno()

    def results(self) -> list[StoreResult | None] | None:
        """Return what `ShortWay.store` does, None as long as it is not known; does not wait.

        Raises
        ------
        DicomqError
            As for `ShortWay.store`.
        """
        return self._answered(self._writing.results)

    def wait(self) -> list[StoreResult | None]:
        """Return the results once they are known; errors as for `results`."""
        return self._answered(self._writing.wait) or []

    def _answered(
        self, ask: Callable[[], list[StoreResult | None] | None]
    ) -> list[StoreResult | None] | None:
        try:
            return ask()
        except LedgerUnavailableError:
            self._leave_in_doubt()
            raise
        except LedgerError as error:
            # Its series may just be going: the long way succeeds, or says why not.
            _log.info("%d objects are stored one by one: %s", len(self._files), error)
            return [None] * len(self._files)

    def _leave_in_doubt(self) -> None:
        """Leave the files: the rows may be committed all the same; the next sweep finds out."""
        for file in self._files:
            file.leave()


def combined(objects: Sequence[Placed]) -> list[Placed]:
    """Return those of `objects` that can share a transaction, in the order for it.

    Studies and objects are locked in one order by all processes, and nothing of a study is locked
    in one way for a first object and in another way for a second: transactions that share objects
    of the same studies never wait for each other in a circle.
    """
    first: dict[str, Placed] = {}
    for each in objects:
        first.setdefault(_study(each), each)

    def is_alike(placed: Placed) -> bool:
        other = first[_study(placed)]
        return other.common is placed.common and other.own.intents == placed.own.intents

    return sorted(filter(is_alike, objects), key=_order)


def _study(placed: Placed) -> str:
    return placed.own.attributes.study_instance_uid


def _order(placed: Placed) -> tuple[str, str]:
    return _study(placed), placed.own.attributes.sop_instance_uid


def _prepare(placed: Placed) -> None:
    """Make the file of an object durable that waits to be indexed."""
    placed.file.sync()
    checkpoint(telemetry.CHECKPOINT_FILE_DURABLE)


def _key(session: Session, header: Header) -> _Key:
    encoding = header.encoding
    return session.key, encoding.is_implicit, encoding.is_little_endian, header.parents()


def _further(known: _Known, header: Header) -> bytes | None:
    """Return the encoded further attributes of the object itself."""
    raw = header.own_further()
    try:
        return known.further[raw]
    except KeyError:
        encoded = encode_further(header.further_of_object())
        if len(known.further) < _REMEMBERED_FURTHER:
            known.further[raw] = encoded
        return encoded
