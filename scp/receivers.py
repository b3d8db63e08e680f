"""Receivers of objects: between the messages of an association and the C-STORE service."""

import logging
import threading
from typing import Final

from archive import telemetry
from archive.errors import DicomqError
from archive.model.entities import StoreResult
from archive.storage.syncs import Syncs
from archive.telemetry import checkpoint, log_event
from scp.dimse import StoreAnswer, StoreRequest
from scp.intake import ObjectReceiver
from scp.known import Committing, Placed
from scp.lane import Lane, Stage
from scp.session import Session
from scp.statuses import StoreStatus, status_of
from scp.store import Arrived, Incoming, StoreService

LONG: Final = 1 << 20
"""Bytes of an object that is received by a thread of its own."""

_SUCCESS: Final = StoreAnswer(StoreStatus.SUCCESS)
_log = logging.getLogger(__name__)


class GuardedReceiver:
    """Receives one object and answers for every error; see `scp.intake.ObjectReceiver`.

    After an error the rest of the data set is let go by, because the response may only follow it.
    """

    def __init__(self, service: StoreService, session: Session, request: StoreRequest) -> None:
        self._service = service
        self._session = session
        self._request = request
        self._incoming: Incoming | None = None
        self._answer = _SUCCESS
        self.arrived: Arrived | None = None
        self._result: StoreResult | None = None
        self.is_finished = False
        self.is_for_lane = False

    @property
    def is_long(self) -> bool:
        """Whether so much has come that a thread of its own ought to receive it."""
        return self._incoming is not None and self._incoming.file.dataset_length > LONG

    def begin(self, context: tuple[str, str]) -> None:
        """Start the object's file."""
        try:
            self._incoming = self._service.begin(self._session, self._request, context)
        except Exception as error:  # noqa: BLE001 - every error has to be answered
            self.refuse(error)

    def write(self, fragment: memoryview) -> None:
        """Append a piece of the data set to the file."""
        if self._incoming is None:
            return
        try:
            self._incoming.file.write(fragment)
        except Exception as error:  # noqa: BLE001 - every error has to be answered
            self.refuse(error)

    def prepare(self) -> bool:
        """Check the complete object and place its file; tell whether it is for its lane."""
        if self.is_finished or self._incoming is None:
            return True
        try:
            self.arrived = self._service.arrive(self._incoming)
            self.is_for_lane = self._service.is_for_lane(self.arrived)
        except Exception as error:  # noqa: BLE001 - every error has to be answered
            self.refuse(error)
            return True
        return self.is_for_lane

    @property
    def placed(self) -> Placed | None:
        """The prepared object, None unless it is for its lane."""
        return self.arrived.placed if self.arrived and self.is_for_lane else None

    def begin_sync(self, syncs: Syncs) -> None:
        """Begin to make the file of a prepared object durable."""
        if self._incoming is not None and self.is_for_lane:
            self._incoming.file.begin_sync(syncs)

    def conclude(self, result: StoreResult) -> None:
        """Take note that the object was stored with others."""
        checkpoint(telemetry.CHECKPOINT_COMMITTED)
        self._result = result
        self.is_finished = True

    def tidy(self) -> None:
        """Do what is left of an object that was stored with others, now that it is answered."""
        if self._result is None or self._incoming is None or self.placed is None:
            return
        try:
            self._service.tidy(self._incoming, self.placed, self._result)
        except Exception:  # noqa: BLE001 - of no meaning to the sender any more
            _log.exception("an object is stored, its file stays in doubt until the next sweep")

    def finish(self) -> StoreAnswer:
        """Store the complete object, unless that was done."""
        if self.arrived is None:
            self.prepare()
        if not self.is_finished and self.arrived is not None:
            try:
                self.is_for_lane = self._service.complete(self.arrived)
            except Exception as error:  # noqa: BLE001 - every error has to be answered
                self.refuse(error)
        self.is_finished = True
        return self._answer

    def abandon(self, reason: str) -> None:
        """Remove the file of an object that did not arrive whole."""
        log_event(
            _log,
            telemetry.OBJECT_ABANDONED,
            level=logging.WARNING,
            calling_aet=self._session.calling_aet,
            sop=self._request.sop_instance_uid,
            message=f"{reason}; nothing of the object is kept, the sender has to send it again",
        )
        self._drop()

    def refuse(self, error: Exception) -> None:
        """Remember the status for `error` and remove the file."""
        is_ours = not isinstance(error, DicomqError)
        status = status_of(error)
        self._answer = StoreAnswer(status, "internal error" if is_ours else str(error))
        self.is_finished = True
        self.is_for_lane = False
        log_event(
            _log,
            telemetry.OBJECT_REFUSED,
            level=logging.ERROR if is_ours else logging.WARNING,
            exc_info=is_ours,
            calling_aet=self._session.calling_aet,
            sop=self._request.sop_instance_uid,
            status=f"{status:04X}",
            message=f"{type(error).__name__}: {error}" if is_ours else str(error),
        )
        self._drop()

    def _drop(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        try:
            incoming.file.abort()
        except OSError as error:
            _log.warning("a file could not be removed; the next sweep tries again: %s", error)


class GuardedStoring:
    """Objects that are stored together; answers for every error. See `scp.lane.Storing`."""

    def __init__(self, committing: Committing, receiver: GuardedReceiver) -> None:
        self._committing = committing
        self._receivers = [receiver]
        self._has_failed = False

    def add(self, receiver: ObjectReceiver) -> bool:
        """Store a further prepared object with the others; tell whether that is possible."""
        if self._has_failed or not isinstance(receiver, GuardedReceiver) or not receiver.placed:
            return False
        try:
            self._committing.add(receiver.placed)
        except Exception as error:  # noqa: BLE001 - each is tried alone, and learns it again
            self._fail(error)
            return False
        self._receivers.append(receiver)
        return True

    def go_on(self) -> Stage:
        """Commit once the files are durable; tell what is waited for."""
        if not self._has_failed:
            try:
                self._committing.go_on()
            except Exception as error:  # noqa: BLE001 - each is tried alone, and learns it again
                self._fail(error)
        if self._has_failed:
            return Stage.ENDED
        return Stage.LEDGER if self._committing.has_begun else Stage.FILES

    def give_up(self) -> None:
        """Leave the objects to the threads of their associations."""
        self._has_failed = True
        self._committing.give_up()

    def fileno(self) -> int:
        """Return what can be read when there is something for `is_done`."""
        return self._committing.fileno()

    def is_done(self) -> bool:
        """Take what has come; tell whether the receivers are finished, or never will be."""
        try:
            results = self._committing.results()
        except Exception as error:  # noqa: BLE001 - every error has to be answered
            for each in self._receivers:
                each.refuse(error)
            return True
        if results is None:
            return False
        for receiver, result in zip(self._receivers, results, strict=True):
            if result is not None:
                receiver.conclude(result)
        return True

    def _fail(self, error: Exception) -> None:
        self._has_failed = True
        _log.info("%d objects are stored one by one: %s", len(self._receivers), error)


class Receivers:
    """Makes the receivers of all associations, and the lanes that they share."""

    def __init__(self, service: StoreService) -> None:
        self._service = service
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()

    def begin(
        self, session: Session, request: StoreRequest, abstract_syntax: str, transfer_syntax: str
    ) -> GuardedReceiver:
        """Begin to receive an object; see `scp.intake.BeginObject`."""
        receiver = GuardedReceiver(self._service, session, request)
        receiver.begin((abstract_syntax, transfer_syntax))
        return receiver

    def settle(self, session: Session) -> None:
        """Wait until what an association was answered early is safe, or given up."""
        self._service.settle(session)

    def lane(self, session: Session) -> Lane:
        """Return the lane of the session's storage: one that hangs holds up no other."""
        with self._lock:
            storage_id = session.storage.storage_id
            if storage_id not in self._lanes:
                self._lanes[storage_id] = Lane(self._begin_storing)
            return self._lanes[storage_id]

    def close(self) -> None:
        """End the lanes, then the service."""
        for lane in self._lanes.values():
            lane.close()
        self._service.close()

    def _begin_storing(self, receiver: ObjectReceiver) -> GuardedStoring | None:
        """Begin to store a prepared object; None when its own thread has to try it."""
        if not isinstance(receiver, GuardedReceiver) or receiver.placed is None:
            return None
        try:
            committing = self._service.begin_together(receiver.placed)
        except Exception as error:  # noqa: BLE001 - its own thread learns it again
            _log.info("an object is stored by the thread of its association: %s", error)
            return None
        return GuardedStoring(committing, receiver)
