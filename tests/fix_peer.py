"""DICOM peers made of pynetdicom, as well or as badly behaved as a test wants.

Acceptors: `StoreScp`, `IanScp`, `CommitmentScp`, `CommitmentScu`, each started by a fixture of
its name. Requestors: `send_files`, `echo`, `CommitmentScu.ask`, `send_report`, `report_on`.
"""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer
from typing_extensions import override

from archive.model.commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    Report,
    ReportedInstance,
    SopReference,
    read_report,
    read_request,
    report_dataset,
    request_dataset,
)
from tests.fix_process import free_port, wait_until
from workers.transport import leave_responses

VERIFICATION = "1.2.840.10008.1.1"
INSTANCE_AVAILABILITY_NOTIFICATION = "1.2.840.10008.5.1.4.33"
STORAGE_CLASSES = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111

ANY_TRANSFER_SYNTAX = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
)


_Things = TypeVar("_Things", bound=Sequence[object])


@dataclass(frozen=True)
class ReceivedObject:
    """One C-STORE as it came in; `dataset` holds the encoded data set, untouched."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_aet: str
    called_aet: str
    dataset: bytes


class Peer:
    """An acceptor on a free loopback port, run by threads of the test's process.

    Attributes
    ----------
    tls
        With what TLS is spoken; None for plain associations.
    """

    def __init__(self, title: str, port: int = 0) -> None:
        self.title = title
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self._ae = AE(ae_title=title)
        self._ae.add_supported_context(VERIFICATION)
        self._server: ThreadedAssociationServer | None = None
        self._lock = threading.Lock()
        self.tls: ssl.SSLContext | None = None

    def start(self) -> None:
        """Listen."""
        self._server = self._ae.start_server(
            (self.host, self.port),
            block=False,
            evt_handlers=self._handlers(),
            ssl_context=self.tls,
        )

    def stop(self) -> None:
        """Abort the associations and stop listening."""
        if self._server is not None:
            self._ae.shutdown()
            self._server = None

    def _handlers(self) -> list[evt.EventHandlerType]:
        """Return the handlers of the services beside verification."""
        return []

    def _wait_for(self, things: Callable[[], _Things], count: int, *, what: str) -> _Things:
        """Wait until there are `count` things and return all so far."""
        wait_until(
            lambda: len(things()) >= count, deadline_s=60, what=f"{count} {what} at {self.title}"
        )
        return things()


class StoreScp(Peer):
    """Takes every storage SOP class in `transfer_syntaxes`; `status` decides each answer."""

    def __init__(
        self,
        title: str = "STORESCP",
        port: int = 0,
        *,
        transfer_syntaxes: Sequence[str] = ANY_TRANSFER_SYNTAX,
        status: Callable[[Event], int] = lambda _event: SUCCESS,
    ) -> None:
        super().__init__(title, port)
        self.received: list[ReceivedObject] = []
        self._status = status
        for sop_class in STORAGE_CLASSES:
            self._ae.add_supported_context(sop_class, list(transfer_syntaxes))

    def received_uids(self) -> list[str]:
        """Return the SOP Instance UIDs answered with success or a warning, in order."""
        with self._lock:
            return [received.sop_instance_uid for received in self.received]

    def wait_for(self, count: int, deadline_s: float = 60.0) -> list[ReceivedObject]:
        """Wait until `count` different objects were taken and return all C-STOREs so far."""
        wait_until(
            lambda: len(set(self.received_uids())) >= count,
            deadline_s=deadline_s,
            what=f"{count} objects at {self.title}",
        )
        with self._lock:
            return list(self.received)

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_C_STORE, self._on_store)]

    def _on_store(self, event: Event) -> int:
        status = self._status(event)
        if status == SUCCESS or status & 0xF000 == 0xB000:
            received = ReceivedObject(
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                calling_aet=event.assoc.requestor.ae_title,
                called_aet=event.assoc.acceptor.ae_title,
                dataset=event.request.DataSet.getvalue(),
            )
            with self._lock:
                self.received.append(received)
        return status


@dataclass(frozen=True)
class ReceivedNotification:
    """One N-CREATE of an Instance Availability Notification (PS3.4 §R.3.2)."""

    sop_instance_uid: str
    calling_aet: str
    transfer_syntax_uid: str
    dataset: Dataset
    status: int


class IanScp(Peer):
    """Takes Instance Availability Notifications; a repeated SOP Instance UID gets 0111."""

    def __init__(
        self,
        title: str = "IANSCP",
        port: int = 0,
        *,
        transfer_syntaxes: Sequence[str] = ANY_TRANSFER_SYNTAX[:2],
        status: Callable[[Event], int] = lambda _event: SUCCESS,
    ) -> None:
        super().__init__(title, port)
        self.received: list[ReceivedNotification] = []
        self._status = status
        self._seen: set[str] = set()
        self._ae.add_supported_context(INSTANCE_AVAILABILITY_NOTIFICATION, list(transfer_syntaxes))

    @property
    def accepted(self) -> list[ReceivedNotification]:
        """The notifications answered with 0000."""
        with self._lock:
            return [received for received in self.received if received.status == SUCCESS]

    def wait_for(self, count: int) -> list[ReceivedNotification]:
        """Wait until `count` notifications were accepted and return them."""
        return self._wait_for(lambda: self.accepted, count, what="notifications")

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_N_CREATE, self._on_create)]

    def _on_create(self, event: Event) -> tuple[int, Dataset | None]:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            status = DUPLICATE_SOP_INSTANCE if uid in self._seen else self._status(event)
            if status == SUCCESS:
                self._seen.add(uid)
            self.received.append(
                ReceivedNotification(
                    sop_instance_uid=uid,
                    calling_aet=event.assoc.requestor.ae_title,
                    transfer_syntax_uid=str(event.context.transfer_syntax),
                    dataset=event.attribute_list,
                    status=status,
                )
            )
        return status, Dataset() if status == SUCCESS else None


@dataclass
class SentObjects:
    """What a sender got back: SOP Instance UID to C-STORE status (None: no answer)."""

    statuses: dict[str, int | None] = field(default_factory=dict)

    @property
    def accepted(self) -> set[str]:
        """SOP Instance UIDs answered with 0000."""
        return {uid for uid, status in self.statuses.items() if status == SUCCESS}


def send_files(
    files: Sequence[Path],
    port: int,
    *,
    called_aet: str = "DCM4CHEE",
    calling_aet: str = "STORESCU",
    timeout_s: float = 30.0,
) -> SentObjects:
    """Store `files` as a modality does and return each status; never raises for a dead peer."""
    sent = SentObjects()
    heads = {path: dcmread(path, stop_before_pixels=True) for path in files}
    ae = AE(ae_title=calling_aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    wanted = {
        (head.file_meta.MediaStorageSOPClassUID, head.file_meta.TransferSyntaxUID)
        for head in heads.values()
    }
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(wanted)]
    association = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called_aet)
    for path, head in heads.items():
        uid = str(head.SOPInstanceUID)
        sent.statuses[uid] = None
        if association.is_established:
            try:
                sent.statuses[uid] = association.send_c_store(path).get("Status")
            except (RuntimeError, ValueError):
                sent.statuses[uid] = None
    if association.is_established:
        association.release()
    return sent


def echo(port: int, called_aet: str = "DCM4CHEE") -> bool:
    """Tell whether a C-ECHO to the loopback port succeeds."""
    ae = AE(ae_title="ECHOSCU")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 5
    ae.add_requested_context(VERIFICATION, ImplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title=called_aet)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status.get("Status") == SUCCESS)


@dataclass(frozen=True)
class ReceivedRequest:
    """One N-ACTION as it came in."""

    transaction_uid: str
    references: tuple[SopReference, ...]
    calling_aet: str
    role_proposed: bool

    def report(self, reasons: Sequence[int | None] | None = None) -> Report:
        """Return a report of all references; `reasons` by position, None for committed."""
        reasons = reasons or [None] * len(self.references)
        return Report(
            self.transaction_uid,
            tuple(
                ReportedInstance(each.sop_class_uid, each.sop_instance_uid, reason, None)
                for each, reason in zip(self.references, reasons, strict=True)
            ),
        )


class CommitmentScp(Peer):
    """Takes requests and reports only what it is told to; `then` runs after each request."""

    def __init__(
        self,
        title: str = "STGCMTSCP",
        port: int = 0,
        *,
        status: Callable[[Event], int] = lambda _event: SUCCESS,
        then: Callable[[Association, ReceivedRequest], None] | None = None,
    ) -> None:
        super().__init__(title, port)
        self.received: list[ReceivedRequest] = []
        self._status = status
        self._then = then
        self._ae.add_supported_context(STORAGE_COMMITMENT_PUSH_MODEL)

    def wait_for(self, count: int) -> list[ReceivedRequest]:
        """Wait until `count` requests came and return all so far."""
        return self._wait_for(lambda: list(self.received), count, what="commitment requests")

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_N_ACTION, self._on_action)]

    def _on_action(self, event: Event) -> tuple[int, None]:
        transaction_uid, references = read_request(event.action_information)
        request = ReceivedRequest(
            transaction_uid,
            references,
            event.assoc.requestor.ae_title,
            bool(event.assoc.requestor.role_selection),
        )
        with self._lock:
            self.received.append(request)
        if self._then is not None:
            threading.Thread(target=self._then, args=(event.assoc, request), daemon=True).start()
        return self._status(event), None


class CommitmentScu(Peer):
    """Asks for commitment and takes the reports, with or without accepting the SCP's role."""

    def __init__(
        self,
        title: str = "MODALITY",
        port: int = 0,
        *,
        role: bool = True,
        status: Callable[[Event], int] = lambda _event: SUCCESS,
    ) -> None:
        super().__init__(title, port)
        self.reports: list[tuple[int, Report]] = []
        self._status = status
        taken = True if role else None
        self._ae.add_supported_context(
            STORAGE_COMMITMENT_PUSH_MODEL, scu_role=taken, scp_role=taken
        )

    def ask(
        self,
        port: int,
        references: Sequence[SopReference],
        transaction_uid: str,
        *,
        dataset: Dataset | None = None,
        action_type: int = 1,
        then: Callable[[Association], object] = lambda _association: None,
    ) -> int | None:
        """Request commitment of DCM4CHEE and return the status of the response.

        `then` is called before the association is released; reports on it are taken as well.
        """
        ae = AE(self.title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.add_requested_context(STORAGE_COMMITMENT_PUSH_MODEL)
        association = ae.associate(
            "127.0.0.1", port, ae_title="DCM4CHEE", evt_handlers=self._handlers()
        )
        information = dataset or request_dataset(transaction_uid, references)
        status, _ = association.send_n_action(
            information,
            action_type,
            STORAGE_COMMITMENT_PUSH_MODEL,
            WELL_KNOWN_INSTANCE,
        )
        then(association)
        if association.is_established:
            association.release()
        return _status(status)

    def wait_for(self, count: int) -> list[tuple[int, Report]]:
        """Wait until `count` reports came and return (event type, report) of all so far."""
        return self._wait_for(lambda: list(self.reports), count, what="reports")

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_N_EVENT_REPORT, self._on_report)]

    def _on_report(self, event: Event) -> tuple[int, None]:
        with self._lock:
            self.reports.append((event.event_type or 0, read_report(event.event_information)))
        return self._status(event), None


def send_report(
    port: int,
    dataset: Dataset,
    *,
    event_type: int = 1,
    role: bool = True,
    sender: str = "STGCMTSCP",
) -> int | None:
    """Report to DCM4CHEE on a new association and return the status of the response."""
    ae = AE(sender)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    ae.add_requested_context(STORAGE_COMMITMENT_PUSH_MODEL)
    roles: list[Any] = [build_role(STORAGE_COMMITMENT_PUSH_MODEL, scp_role=True)] if role else []
    association = ae.associate("127.0.0.1", port, ae_title="DCM4CHEE", ext_neg=roles)
    assert association.is_established
    status, _ = association.send_n_event_report(
        dataset, event_type, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
    )
    association.release()
    return _status(status)


def report_on(association: Association, report: Report) -> int | None:
    """Report on the association of the request."""
    status, _ = association.send_n_event_report(
        report_dataset(report),
        report.event_type,
        STORAGE_COMMITMENT_PUSH_MODEL,
        WELL_KNOWN_INSTANCE,
    )
    return _status(status)


def _status(response: Dataset) -> int | None:
    return int(response.Status) if "Status" in response else None


_Started = TypeVar("_Started", bound=Peer)


def _starting(kind: Callable[..., _Started]) -> Iterator[Callable[..., _Started]]:
    """Yield what starts peers of a kind, and stop them afterwards."""
    running: list[_Started] = []

    def start(*args: object, **kwargs: object) -> _Started:
        peer = kind(*args, **kwargs)
        peer.start()
        running.append(peer)
        return peer

    yield start
    for peer in running:
        peer.stop()


@pytest.fixture
def store_scp() -> Iterator[Callable[..., StoreScp]]:
    """Start storage SCPs: ``store_scp(title, port, transfer_syntaxes=..., status=...)``."""
    yield from _starting(StoreScp)


@pytest.fixture
def ian_scp() -> Iterator[Callable[..., IanScp]]:
    """Start IAN SCPs: ``ian_scp(title, port, status=...)``."""
    yield from _starting(IanScp)


@pytest.fixture
def commitment_scp() -> Iterator[Callable[..., CommitmentScp]]:
    """Start commitment SCPs: ``commitment_scp(title, status=..., then=...)``."""
    yield from _starting(CommitmentScp)


@pytest.fixture
def commitment_scu() -> Iterator[Callable[..., CommitmentScu]]:
    """Start commitment SCUs that take reports: ``commitment_scu(title, role=..., status=...)``."""
    yield from _starting(CommitmentScu)


@pytest.fixture(scope="session", autouse=True)
def _sound_requestors() -> Iterator[None]:
    """Mend a race of pynetdicom in the requestors of tests, as in ours."""
    associate = AE.associate

    def sound(*args: Any, **kwargs: Any) -> Association:  # noqa: ANN401 - as AE.associate
        association = associate(*args, **kwargs)
        leave_responses(association)
        return association

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "associate", sound)
        yield
