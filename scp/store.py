"""The C-STORE service: from a complete data set to a durable, indexed object (PS3.4 Annex B).

Order of work, and what a crash at each point leaves: header checked (temporary file, or nothing) →
file under its final path, marked in doubt, then durable (file without row, swept) → one
transaction with index rows and the tasks that the export rules demand (file and row: the object is
there although its sender got no answer and will send it again) → mark removed → response. On the
short way (`scp.known`) the transaction runs while the file is made durable and commits after.
What another archive sends because this one asked for it is answered after the first of these steps
(`scp.sub_operations`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from archive import telemetry
from archive.clock import Clock
from archive.errors import (
    DicomqError,
    InvalidValueError,
    LedgerConflictError,
    LedgerUnavailableError,
)
from archive.ledger.connection import Ledger
from archive.ledger.objects import store_object
from archive.model.entities import (
    ObjectAttributes,
    OverwritePolicy,
    StoredFile,
    StorePolicy,
    StoreResult,
)
from archive.model.identifiers import check_uid
from archive.model.task import ExportIntent
from archive.storage.part10 import FileMeta, encode_file_header
from archive.telemetry import checkpoint, log_event
from scp.coercing import CoercedReception, Receiver, ReceptionCoercer
from scp.dimse import StoreRequest
from scp.gathering import Gathering
from scp.header import Header
from scp.known import Committing, Incoming, Placed, ShortWay, demanded
from scp.obsolete import delete_replaced
from scp.rejection import KEY_OBJECT_SELECTION, read_rejection_note
from scp.restoring import has_lost
from scp.session import Session
from scp.statuses import RefusedObjectError, StoreStatus
from scp.sub_operations import OwnMoves, given_up

__all__ = ["Incoming", "Session", "StoreService", "check_request"]

_CONFLICT_ATTEMPTS: Final = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A complete object whose header was checked.

    Attributes
    ----------
    placed
        None when it goes the long way.
    """

    incoming: Incoming
    header: Header
    coerced: CoercedReception | None
    placed: Placed | None


@dataclass(frozen=True, slots=True)
class _Answered:
    """An object that was answered before it is safe."""

    incoming: Incoming
    header: Header
    placed: Placed


class StoreService:
    """Stores objects; one for all associations of a process."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._coercer = ReceptionCoercer(ledger, clock)
        self._short_way = ShortWay(ledger, clock)
        self._own_moves = OwnMoves(ledger, clock)
        self._early = Gathering(self._store_early)

    def close(self) -> None:
        """Make safe what was answered early; close connections to the ledger that are its own."""
        self._early.close()
        self._short_way.close()

    def begin(self, session: Session, request: StoreRequest, context: tuple[str, str]) -> Incoming:
        """Start a file for the object that `request` announces.

        Parameters
        ----------
        context
            Abstract and transfer syntax of the presentation context.

        Raises
        ------
        RefusedObjectError
            When the request does not fit its context or names no usable UID.
        StorageError, ConfigurationError
            When there is no storage that can be written.
        """
        abstract_syntax, transfer_syntax_uid = context
        check_request(request, abstract_syntax)
        meta = FileMeta(
            request.sop_class_uid,
            request.sop_instance_uid,
            transfer_syntax_uid,
            session.calling_aet,
        )
        file = session.storage.create(encode_file_header(meta), transfer_syntax_uid)
        return Incoming(request, transfer_syntax_uid, session, file)

    def arrive(self, incoming: Incoming) -> Arrived:
        """Take an object that was received completely; `complete` or `begin_together` stores it.

        Raises
        ------
        DicomqError
            As for `complete`.
        """
        checkpoint(telemetry.CHECKPOINT_OBJECT_RECEIVED)
        session, file = incoming.session, incoming.file
        header = session.headers.read(file.read, file.dataset_length, incoming.transfer_syntax_uid)
        header.check_same(incoming.request)
        coerced = self._coerced(incoming, header) if session.receiving_rules else None
        placed = None
        if coerced is None or coerced.is_unchanged:
            placed = self._short_way.place(incoming, header)
        return Arrived(incoming, header, coerced, placed)

    def is_for_lane(self, arrived: Arrived) -> bool:
        """Whether storing an object means nothing to wait for but its disk and the ledger."""
        placed = arrived.placed
        if placed is None or not _has_lane(arrived.incoming.session):
            return False
        return not self._own_moves.bring(placed.own)

    def begin_together(self, placed: Placed) -> Committing:
        """Begin to store an object that is for its lane, and others in the same transaction.

        Raises
        ------
        DicomqError
            As for `complete`.
        """
        return self._short_way.begin(placed)

    def complete(self, arrived: Arrived) -> bool:
        """Make an object safe; then 0000 may be answered.

        What another archive sends because this one asked for it may be answered before it is
        safe; see `scp.sub_operations`.

        Returns
        -------
        bool
            Whether its lane can store the next object of its series.

        Raises
        ------
        DicomqError
            When it could not be stored; nothing of it is kept, except that after a broken
            commit, whose result nobody knows, the file stays in doubt until the next sweep.
        """
        incoming, header, placed = arrived.incoming, arrived.header, arrived.placed
        session = incoming.session
        if placed is None:
            is_known = self._store_anew(incoming, header, arrived.coerced)
            return is_known and _has_lane(session)
        if self._own_moves.bring(placed.own):
            session.answered.number = self._early.add(_Answered(incoming, header, placed))
            return False
        result = self._short_way.store_one(placed)
        self._conclude(incoming, header, placed, result)
        return result is not None and _has_lane(session)

    def tidy(self, incoming: Incoming, placed: Placed, result: StoreResult) -> None:
        """End the storing of an object that was stored with others, and answered."""
        self._tidy(incoming, result)
        log_stored(incoming, placed.own.attributes, result)

    def settle(self, session: Session) -> None:
        """Wait until what was answered early is safe, or given up."""
        self._early.settle(session.answered.number)

    def _store_early(self, objects: Sequence["_Answered"]) -> None:
        """Make a group of objects safe that were answered already."""
        try:
            results = self._short_way.store(*(each.placed for each in objects))
        except DicomqError as error:
            for each in objects:
                given_up(each.incoming, error)
            return
        for each, result in zip(objects, results, strict=True):
            try:
                self._conclude(each.incoming, each.header, each.placed, result)
            except DicomqError as error:
                given_up(each.incoming, error)

    def _conclude(
        self, incoming: Incoming, header: Header, placed: Placed, result: StoreResult | None
    ) -> None:
        """End the short way of an object, or take the long way with its durable file."""
        if result is None:
            self._store_anew(incoming, header, None, placed.own.file)
            return
        checkpoint(telemetry.CHECKPOINT_COMMITTED)
        self._tidy(incoming, result)
        log_stored(incoming, placed.own.attributes, result)

    def _store_anew(
        self,
        incoming: Incoming,
        header: Header,
        coerced: CoercedReception | None,
        stored: StoredFile | None = None,
    ) -> bool:
        """Store an object the long way; tell whether its series is known then.

        Parameters
        ----------
        stored
            Its file if that is durable already.
        """
        attributes = header.attributes(incoming.request, incoming.transfer_syntax_uid)
        coerced = coerced or CoercedReception(attributes)
        intents = demanded(incoming.session, header, incoming.request, self._clock)
        if stored is None:
            stored = incoming.file.commit(attributes)
            checkpoint(telemetry.CHECKPOINT_FILE_DURABLE)
        policy = informed_policy(incoming)
        result = self._record(incoming, coerced, stored, intents=intents, policy=policy)
        storages = incoming.session.storages
        if not result.keep_file and has_lost(
            self._ledger, storages, result.instance_pk, new=stored
        ):
            policy = replace(policy, overwrite=OverwritePolicy.EVEN_WITH_EQUAL_DIGEST)
            result = self._record(incoming, coerced, stored, intents=intents, policy=policy)
        checkpoint(telemetry.CHECKPOINT_COMMITTED)
        self._tidy(incoming, result)
        log_stored(incoming, attributes, result)
        return coerced.is_unchanged and self._short_way.learn(incoming, header, attributes)

    def _coerced(self, incoming: Incoming, header: Header) -> CoercedReception:
        """Return what the coercion rules for received objects make of this one."""
        session = incoming.session
        attributes = header.attributes(incoming.request, incoming.transfer_syntax_uid)
        reception = session.reception(incoming.request)
        receiver = Receiver(
            session.snapshot.device, session.receiving_rules, reception, session.ae.title
        )
        return self._coercer.coerced(header, attributes, receiver)

    def _record(
        self,
        incoming: Incoming,
        coerced: CoercedReception,
        stored: StoredFile,
        *,
        intents: tuple[ExportIntent, ...],
        policy: StorePolicy,
    ) -> StoreResult:
        """Write rows and tasks in one transaction; repeat it when another got in the way."""
        reception = incoming.session.reception(incoming.request)
        attempt = 0
        while True:
            attempt += 1
            was_sent = False
            try:
                is_one = coerced.is_unchanged
                opened = self._ledger.statement if is_one else self._ledger.transaction
                with opened() as tx:
                    was_sent = True
                    result = store_object(
                        tx, coerced.attributes, stored, reception, intents=intents, policy=policy
                    )
                    if result.keep_file:
                        coerced.keep(tx)
                    return result
            except LedgerConflictError:
                if attempt == _CONFLICT_ATTEMPTS:
                    raise
            except LedgerUnavailableError:
                if was_sent:  # it may be committed all the same: the next sweep finds out
                    incoming.file.leave()
                raise

    def _tidy(self, incoming: Incoming, result: StoreResult) -> None:
        """After the commit: settle or drop the new file, delete those it replaced."""
        if result.keep_file:
            incoming.file.settle()
        else:
            incoming.file.abort()
        if result.obsolete_files:
            checkpoint(telemetry.CHECKPOINT_REPLACED)
            delete_replaced(self._ledger, incoming.session.storages, result.obsolete_files)


def check_request(request: StoreRequest, abstract_syntax: str) -> None:
    """Check that a C-STORE-RQ fits its presentation context and names a usable object.

    Raises
    ------
    RefusedObjectError
        0122 for another SOP class than the context's, 0117 for an impossible SOP Instance UID
        (PS3.7 §C.5.12, §C.5.23).
    """
    if request.sop_class_uid != abstract_syntax:
        msg = (
            f"Affected SOP Class UID {request.sop_class_uid!r:.70} on a presentation context "
            f"for {abstract_syntax}"
        )
        raise RefusedObjectError(StoreStatus.SOP_CLASS_NOT_SUPPORTED, msg)
    try:
        check_uid(request.sop_instance_uid, "Affected SOP Instance UID")
    except InvalidValueError as error:
        raise RefusedObjectError(StoreStatus.INVALID_SOP_INSTANCE, str(error)) from error


def informed_policy(incoming: Incoming) -> StorePolicy:
    """Return how an object is taken in, with what it rejects if it is a rejection note."""
    policy = incoming.session.policy
    if incoming.request.sop_class_uid != KEY_OBJECT_SELECTION:
        return policy
    encoded = incoming.file.read(0, incoming.file.dataset_length)
    return replace(policy, rejection=read_rejection_note(encoded, incoming.transfer_syntax_uid))


def log_stored(incoming: Incoming, attributes: ObjectAttributes, result: StoreResult) -> None:
    """Say what became of an object."""
    if not _log.isEnabledFor(logging.INFO):
        return
    new = result.keep_file
    log_event(
        _log,
        telemetry.OBJECT_STORED if new else telemetry.OBJECT_DUPLICATE,
        kind=result.kind,
        calling_aet=incoming.session.calling_aet,
        called_aet=incoming.session.called_aet,
        study=attributes.study_instance_uid,
        sop=attributes.sop_instance_uid,
        bytes=incoming.file.dataset_length,
        tasks=result.staged_tasks or None,
        patient_conflict=result.patient_conflict or None,
    )


def _has_lane(session: Session) -> bool:
    """Tell whether there are objects of the association that its lane can store."""
    return session.storage.is_local and not session.receiving_rules
