"""DICOM peers made of pynetdicom: a storage SCP, an IAN SCP, and a storage SCU."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer
from typing_extensions import override

from tests.fix_process import free_port, wait_until

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
    """An acceptor on a free loopback port, run by threads of the test's process."""

    def __init__(self, title: str, port: int = 0) -> None:
        self.title = title
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self._ae = AE(ae_title=title)
        self._ae.add_supported_context(VERIFICATION)
        self._server: ThreadedAssociationServer | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Listen."""
        self._server = self._ae.start_server(
            (self.host, self.port), block=False, evt_handlers=self._handlers()
        )

    def stop(self) -> None:
        """Abort the associations and stop listening."""
        if self._server is not None:
            self._ae.shutdown()
            self._server = None

    def _handlers(self) -> list[evt.EventHandlerType]:
        """Return the handlers of the services beside verification."""
        return []


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

    def wait_for(self, count: int, deadline_s: float = 60.0) -> list[ReceivedNotification]:
        """Wait until `count` notifications were accepted and return them."""
        wait_until(
            lambda: len(self.accepted) >= count,
            deadline_s=deadline_s,
            what=f"{count} notifications at {self.title}",
        )
        return self.accepted

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


@pytest.fixture
def store_scp() -> Iterator[Callable[..., StoreScp]]:
    """Start storage SCPs: ``store_scp(title, port, transfer_syntaxes=..., status=...)``."""
    running: list[StoreScp] = []

    def start(*args: object, **kwargs: object) -> StoreScp:
        peer = StoreScp(*args, **kwargs)  # type: ignore[arg-type]
        peer.start()
        running.append(peer)
        return peer

    yield start
    for peer in running:
        peer.stop()


@pytest.fixture
def ian_scp() -> Iterator[Callable[..., IanScp]]:
    """Start IAN SCPs: ``ian_scp(title, port, status=...)``."""
    running: list[IanScp] = []

    def start(*args: object, **kwargs: object) -> IanScp:
        peer = IanScp(*args, **kwargs)  # type: ignore[arg-type]
        peer.start()
        running.append(peer)
        return peer

    yield start
    for peer in running:
        peer.stop()
