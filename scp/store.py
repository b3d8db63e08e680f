"""The C-STORE service: from a complete data set to a durable, indexed object (PS3.4 Annex B).

Order of work, and what a crash at each point leaves: header checked (temporary file) → file
durable under its final path, marked in doubt (file without row, swept) → one transaction with
index rows and the tasks that the export rules demand (file and row: the object is there although
its sender got no answer and will send it again) → mark removed → response.
"""

import logging
from dataclasses import dataclass, replace
from typing import Final

from archive import telemetry
from archive.clock import Clock
from archive.configuration.announcements import announcements
from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.configuration.export_rules import demanded_exports
from archive.errors import (
    ConfigurationError,
    InvalidValueError,
    LedgerConflictError,
    LedgerUnavailableError,
    StorageError,
)
from archive.ledger.connection import Ledger
from archive.ledger.objects import store_object
from archive.model.entities import (
    ObjectAttributes,
    OverwritePolicy,
    Reception,
    StoredFile,
    StorePolicy,
    StoreResult,
)
from archive.model.identifiers import check_uid
from archive.model.task import ExportIntent
from archive.storage.base import IncomingFile, Storage, Storages
from archive.storage.part10 import FileMeta, encode_file_header
from archive.telemetry import checkpoint, log_event
from scp.coercing import CoercedReception, Receiver, ReceptionCoercer, receiving_rules
from scp.dimse import StoreRequest
from scp.header import Header, read_header
from scp.rejection import KEY_OBJECT_SELECTION, read_rejection_note
from scp.statuses import RefusedObjectError, StoreStatus

_CONFLICT_ATTEMPTS: Final = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """What holds for all objects of one association: configuration and peer, as of its start.

    Attributes
    ----------
    rule_tags
        Elements that the conditions of the rules look at; nothing else of an object is decoded.
    """

    snapshot: Snapshot
    ae: NetworkAE
    storages: Storages
    calling_aet: str
    called_aet: str
    calling_host: str
    rule_tags: frozenset[int] = frozenset()

    def reception(self, request: StoreRequest) -> Reception:
        """Return from whom and as whom an object of this association is received."""
        return Reception(
            calling_aet=self.calling_aet,
            called_aet=self.called_aet,
            calling_host=self.calling_host,
            move_originator_aet=request.move_originator_aet,
            move_originator_message_id=request.move_originator_message_id,
        )


@dataclass(frozen=True, slots=True)
class Incoming:
    """An object whose data set is arriving."""

    request: StoreRequest
    transfer_syntax_uid: str
    session: Session
    storage: Storage
    file: IncomingFile


class StoreService:
    """Stores objects; one for all associations of a process."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._coercer = ReceptionCoercer(ledger, clock)

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
        storage = writable_storage(session)
        meta = FileMeta(
            request.sop_class_uid,
            request.sop_instance_uid,
            transfer_syntax_uid,
            session.calling_aet,
        )
        file = storage.create(encode_file_header(meta), transfer_syntax_uid)
        return Incoming(request, transfer_syntax_uid, session, storage, file)

    def store(self, incoming: Incoming) -> StoreResult:
        """Make a completely received object safe; afterwards 0000 may be answered.

        Raises
        ------
        DicomqError
            When it could not be stored; nothing of it is kept, except that after a broken
            commit, whose result nobody knows, the file stays in doubt until the next sweep.
        """
        checkpoint(telemetry.CHECKPOINT_OBJECT_RECEIVED)
        file = incoming.file
        header = read_header(file.read, file.dataset_length, incoming.transfer_syntax_uid)
        attributes = header.attributes(incoming.request, incoming.transfer_syntax_uid)
        intents = self._demanded(incoming, header)
        coerced = self._coerced(incoming, header, attributes)
        stored = file.commit(attributes)
        checkpoint(telemetry.CHECKPOINT_FILE_DURABLE)
        result = self._record(incoming, coerced, stored, intents)
        checkpoint(telemetry.CHECKPOINT_COMMITTED)
        self._tidy(incoming, result)
        log_stored(incoming, attributes, result)
        return result

    def _demanded(self, incoming: Incoming, header: Header) -> tuple[ExportIntent, ...]:
        session = incoming.session
        if not session.ae.export_rules and not session.snapshot.device.export_rules:
            return ()
        return demanded_exports(
            session.snapshot,
            session.ae,
            header.dataset(session.rule_tags),
            session.reception(incoming.request),
            self._clock.now(),
        )

    def _coerced(
        self, incoming: Incoming, header: Header, attributes: ObjectAttributes
    ) -> CoercedReception:
        """Return what the coercion rules for received objects make of this one."""
        session = incoming.session
        device = session.snapshot.device
        rules = receiving_rules(device, session.ae.coercion_rules)
        if not rules:
            return CoercedReception(attributes)
        reception = session.reception(incoming.request)
        receiver = Receiver(device, rules, reception, session.ae.title)
        return self._coercer.coerced(header, attributes, receiver)

    def _record(
        self,
        incoming: Incoming,
        coerced: CoercedReception,
        stored: StoredFile,
        intents: tuple[ExportIntent, ...],
    ) -> StoreResult:
        """Write rows and tasks in one transaction; repeat it when another got in the way."""
        reception = incoming.session.reception(incoming.request)
        policy = _informed(store_policy(incoming), incoming)
        attempt = 0
        while True:
            attempt += 1
            was_sent = False
            try:
                is_plain = coerced.changes is None and not coerced.pending
                opened = self._ledger.statement if is_plain else self._ledger.transaction
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
        for obsolete in result.obsolete_files:
            try:
                incoming.session.storages.get(obsolete.storage_id).delete(obsolete.storage_path)
            except (StorageError, ConfigurationError) as error:
                log_event(
                    _log,
                    telemetry.OBSOLETE_FILE_KEPT,
                    level=logging.WARNING,
                    storage_id=obsolete.storage_id,
                    storage_path=obsolete.storage_path,
                    message=f"{error}; the object was replaced, its old file can be deleted",
                )


def rule_tags(snapshot: Snapshot, ae: NetworkAE) -> frozenset[int]:
    """Return the top-level elements that rules for objects sent to `ae` look at."""
    rules = (*ae.export_rules, *snapshot.device.export_rules)
    conditions = (each for rule in rules for each in rule.conditions.conditions)
    return frozenset(each.path[0] for each in conditions if each.path)


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


def writable_storage(session: Session) -> Storage:
    """Return the storage that takes the objects of the called AE (dcmObjectStorageID).

    Raises
    ------
    ConfigurationError
        When the directory names none that is installed and not read-only.
    """
    storages = session.snapshot.device.storages
    for storage_id in session.ae.object_storage_ids or sorted(storages):
        descriptor = storages.get(storage_id)
        if descriptor is not None and descriptor.installed and not descriptor.read_only:
            return session.storages.get(storage_id)
    msg = (
        f"AE {session.ae.title} has no storage that can be written: add a dcmStorage entry and "
        "name it in dcmObjectStorageID"
    )
    raise ConfigurationError(msg)


def store_policy(incoming: Incoming) -> StorePolicy:
    """Return how the archive takes this object in: AE before device before default."""
    session, device = incoming.session, incoming.session.snapshot.device
    descriptor = device.storages[incoming.storage.storage_id]
    return StorePolicy(
        overwrite=OverwritePolicy(session.ae.overwrite_policy or device.overwrite_policy),
        retrieve_aets=session.ae.retrieve_aets or device.retrieve_aets or (session.ae.title,),
        availability=descriptor.instance_availability,
    )


def _informed(policy: StorePolicy, incoming: Incoming) -> StorePolicy:
    """Return the policy with what is announced, and with what a rejection note rejects."""
    session, note = incoming.session, None
    if incoming.request.sop_class_uid == KEY_OBJECT_SELECTION:
        encoded = incoming.file.read(0, incoming.file.dataset_length)
        note = read_rejection_note(encoded, incoming.transfer_syntax_uid)
    announced = announcements(session.snapshot, session.ae)
    return replace(policy, announcements=announced, rejection=note)


def log_stored(incoming: Incoming, attributes: ObjectAttributes, result: StoreResult) -> None:
    """Say what became of an object."""
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
