"""What an export needs around it: ledger, storage and a snapshot, filled by the test."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmread

from archive.clock import SYSTEM_CLOCK
from archive.configuration.descriptors import (
    ArchiveDevice,
    Connection,
    Exporter,
    NetworkAE,
    Snapshot,
    Storage,
    TransferCapability,
    TransferRole,
)
from archive.configuration.settings import Settings
from archive.ledger import deliveries, objects, tasks
from archive.ledger.connection import Ledger
from archive.model.entities import (
    InstanceReference,
    ObjectAttributes,
    Reception,
    StoredFile,
    StorePolicy,
)
from archive.model.task import Hint, IanDetails, NewTask, Outcome, Task, TaskKind
from archive.storage.base import Storages
from archive.storage.part10 import FileMeta, encode_file_header
from archive.storage.path_format import DEFAULT_PATH_FORMAT
from tests.fix_objects import encoded_dataset
from workers.export import ExportProcessor
from workers.instance_availability import NotificationProcessor
from workers.kept import KeptAssociations
from workers.processor import StopSignal, TaskContext

DEVICE = "dcm4chee-arc"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
ANY_CLASS = TransferCapability("*", TransferRole.SCU, (IMPLICIT, EXPLICIT))
PROMPT = Connection(
    "dicom",
    "127.0.0.1",
    connect_timeout_s=2.0,
    accept_timeout_s=1.0,
    release_timeout_s=1.0,
    send_timeout_s=1.0,
    response_timeout_s=1.0,
)
"""A local connection entry with short time-outs."""


def local_ae(**changes: object) -> NetworkAE:
    """Return the archive's own AE, able to send every class."""
    ae = NetworkAE("DCM4CHEE", DEVICE, (PROMPT,), transfer_capabilities=(ANY_CLASS,))
    return dataclasses.replace(ae, **changes)  # type: ignore[arg-type]


def remote_ae(title: str, port: int, **changes: object) -> NetworkAE:
    """Return a remote AE on a loopback port."""
    ae = NetworkAE(title, title.lower(), (Connection("dicom", "127.0.0.1", port),))
    return dataclasses.replace(ae, **changes)  # type: ignore[arg-type]


def exporter(destination: str = "STORESCP", **changes: object) -> Exporter:
    """Return the exporter `EXP` that sends to `destination`."""
    made = Exporter("EXP", "dicom", destination, "Export", aet="DCM4CHEE")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class ExportBench:
    """An archive without its processes; the test runs processors on it."""

    ledger: Ledger
    data_dir: Path
    device: ArchiveDevice
    remote_aes: dict[str, NetworkAE] = field(default_factory=dict)
    stop_signal: StopSignal = field(default_factory=StopSignal)
    leading_wait_s: float = 30.0
    kept: KeptAssociations = field(default_factory=KeptAssociations)

    def add(self, *entries: Exporter | NetworkAE) -> None:
        """Put exporters and AEs into the snapshot; own AEs by their device."""
        for entry in entries:
            if isinstance(entry, Exporter):
                self.device.exporters[entry.exporter_id] = entry
            elif entry.device_name == DEVICE:
                self.device.aes[entry.title] = entry
            else:
                self.remote_aes[entry.title] = entry

    def store(self, path: Path, sending_aet: str = "MODALITY") -> StoredFile:
        """Take a DICOM file into storage and index."""
        head = dcmread(path, stop_before_pixels=True)
        syntax = str(head.file_meta.TransferSyntaxUID)
        attributes = ObjectAttributes(
            sop_class_uid=str(head.SOPClassUID),
            sop_instance_uid=str(head.SOPInstanceUID),
            study_instance_uid=str(head.StudyInstanceUID),
            series_instance_uid=str(head.SeriesInstanceUID),
            transfer_syntax_uid=syntax,
        )
        meta = FileMeta(attributes.sop_class_uid, attributes.sop_instance_uid, syntax)
        incoming = self._storages().get("fs1").create(encode_file_header(meta), syntax)
        incoming.write(encoded_dataset(path))
        file = incoming.commit(attributes)
        incoming.settle()
        reception = Reception(sending_aet, "DCM4CHEE")
        with self.ledger.transaction() as tx:
            objects.store_object(tx, attributes, file, reception, intents=(), policy=StorePolicy())
        return file

    def path_of(self, file: StoredFile) -> Path:
        """Return where a stored file lies."""
        path = self._storages().get("fs1").local_path(file.storage_path)
        assert path is not None
        return path

    def claim(self, new: NewTask) -> Task:
        """Stage, dispatch and claim a task."""
        with self.ledger.transaction() as tx:
            pk = tasks.stage(tx, new, actor="test")
        with self.ledger.transaction() as tx:
            hints = tasks.dispatch(tx, DEVICE, new.queue_name, 100)
        hint = next(each for each in hints if each.task_pk == pk)
        return self.claimed(hint)

    def claimed(self, hint: Hint) -> Task:
        """Claim a task that was handed over."""
        with self.ledger.transaction() as tx:
            task = tasks.claim(tx, hint, worker="test", lease_s=300.0)
        assert task is not None
        return task

    def export_task(self, study: str, **changes: object) -> Task:
        """Return a claimed export task of exporter `EXP`."""
        new = NewTask(
            TaskKind.EXPORT, "Export", DEVICE, "DCM4CHEE", "STORESCP", study, exporter_id="EXP"
        )
        return self.claim(dataclasses.replace(new, **changes))  # type: ignore[arg-type]

    def follow_up(self, study: str) -> Task:
        """Return an export task as a rule stages it, while another one is running."""
        new = NewTask(
            TaskKind.EXPORT, "Later", DEVICE, "DCM4CHEE", "STORESCP", study, exporter_id="EXP"
        )
        with self.ledger.transaction() as tx:
            task = tasks.get(tx, tasks.stage(tx, new, actor="test"))
        return dataclasses.replace(task, follow_up_only=True)

    def ian_task(self, study: str, details: IanDetails) -> Task:
        """Return a claimed notification task for IANSCP."""
        return self.claim(
            NewTask(TaskKind.IAN, "IANSCU", DEVICE, "DCM4CHEE", "IANSCP", study, ian=details)
        )

    def perform(self, task: Task) -> Outcome:
        """Perform one attempt."""
        processor = ExportProcessor() if task.kind is TaskKind.EXPORT else NotificationProcessor()
        return processor.perform(task, self.context())

    def held(self, study: str) -> list[InstanceReference]:
        """Return what exporter `EXP` has delivered of a study."""
        with self.ledger.transaction() as tx:
            return deliveries.held_by(tx, study, "EXP")

    def results(self, task: Task) -> dict[str, tuple[bool, int | None, str]]:
        """Return SOP Instance UID to (delivered, status, message) as the ledger has it."""
        with self.ledger.transaction() as tx:
            rows = deliveries.results(tx, task.pk)
        return {uid: (row.delivered, row.dimse_status, row.message) for uid, row in rows}

    def context(self) -> TaskContext:
        """Return the context of an attempt."""
        return TaskContext(
            ledger=self.ledger,
            snapshot=self.snapshot(),
            storages=self._storages(),
            clock=SYSTEM_CLOCK,
            settings=self._settings(),
            stop_signal=self.stop_signal,
            kept=self.kept,
        )

    def snapshot(self) -> Snapshot:
        """Return the configuration as it stands."""
        return Snapshot(self.device, {**self.device.aes, **self.remote_aes}, (), "test")

    def _storages(self) -> Storages:
        return Storages(self.snapshot(), self._settings())

    def _settings(self) -> Settings:
        return Settings(data_dir=self.data_dir, leading_wait_s=self.leading_wait_s)


@pytest.fixture
def bench(ledger: Ledger, tmp_path: Path) -> ExportBench:
    """An archive with the local AE DCM4CHEE, one storage, and nothing in it."""
    data_dir = tmp_path / "data"
    storage = Storage("fs1", (data_dir / "fs1").as_uri(), DEFAULT_PATH_FORMAT)
    device = ArchiveDevice(DEVICE, {"DCM4CHEE": local_ae()}, {}, {}, {"fs1": storage})
    return ExportBench(ledger, data_dir, device)
