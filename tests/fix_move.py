"""An SCP process, workers in the test's process, and an external archive that obeys a script."""

# ruff: noqa: ANN401 - what pynetdicom hands out, and options that are passed on

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.events import Event
from typing_extensions import override

from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger import tasks
from archive.ledger.connection import TASK_CHANNEL, Ledger
from archive.model.task import Task
from archive.storage.base import Storages
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import Peer, StoreScp, echo, send_files
from tests.fix_process import wait_until
from tests.fix_scp import Site
from tests.fix_system import (
    ARCHIVE,
    DEVICES,
    PEER_DEVICES,
    configuration_read,
    device_ldif,
    port_change,
)
from workers.processors import PROCESSORS
from workers.purging import PurgeReport, purge_studies
from workers.runtime import Runtime, open_runtime

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
MOVES = (STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE, "1.2.840.10008.5.1.4.1.2.3.2")
VERIFICATION = "1.2.840.10008.1.1"
THROUGH = {"dcmExternalRetrieveAEDestination": "DCM4CHEE"}


@dataclass(frozen=True)
class Response:
    """A C-MOVE-RSP as a client sees it: (remaining, completed, failed, warning), None if absent."""

    status: int
    counts: tuple[int | None, int | None, int | None, int | None]
    comment: str
    failed_uids: tuple[str, ...]


# --- requestor


@dataclass
class MoveClient:
    """A C-MOVE SCU that can cancel and remembers every response."""

    port: int
    calling_aet: str = "MOVESCU"
    responses: list[Response] = field(default_factory=list)

    def move(
        self,
        destination: str = "STORESCP",
        model: str = STUDY_ROOT_MOVE,
        *,
        on_response: Callable[[Any, Response], None] = lambda _assoc, _response: None,
        started: Callable[[Any], None] = lambda _assoc: None,
        message_id: int = 1,
        **keys: object,
    ) -> Response:
        """Ask for what `keys` say and return the final response."""
        ae = AE(ae_title=self.calling_aet)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
        association = ae.associate(
            "127.0.0.1", self.port, contexts=[build_context(model)], ae_title="DCM4CHEE"
        )
        assert association.is_established
        identifier = Dataset()
        for name, value in keys.items():
            setattr(identifier, name, value)
        answers = association.send_c_move(identifier, destination, model, message_id)
        started(association)
        for status, found in answers:
            assert "Status" in status, "no response"
            self.responses.append(_response(status, found))
            on_response(association, self.responses[-1])
        association.release()
        return self.responses[-1]

    def study(self, study: Study, **more: Any) -> Response:
        """Ask for a study."""
        uid = study.study_instance_uid
        return self.move(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid, **more)


def _response(status: Dataset, identifier: Dataset | None) -> Response:
    names = ("Remaining", "Completed", "Failed", "Warning")
    counts = tuple(status.get(f"NumberOf{name}Suboperations") for name in names)
    uids = identifier.get("FailedSOPInstanceUIDList", []) if identifier else []
    listed = [uids] if isinstance(uids, str) else uids
    return Response(
        int(status.Status),
        counts,
        str(status.get("ErrorComment", "") or ""),
        tuple(sorted(map(str, listed))),
    )


# --- the other archive


class MoveTalk:
    """One C-MOVE-RQ at the external archive, and what it does about it."""

    def __init__(
        self, archive: "ScriptedArchive", assoc: Any, request: C_MOVE, context: Any
    ) -> None:
        self.archive = archive
        self.assoc = assoc
        self.calling_aet = str(assoc.requestor.ae_title).strip()
        self.message_id = int(request.MessageID or 0)
        self.destination = str(request.MoveDestination).strip()
        self.identifier = decode(request.Identifier or BytesIO(), True, True)
        self._request = request
        self._context_id = context.context_id

    @property
    def is_canceled(self) -> bool:
        """Whether a C-CANCEL has come."""
        return self.message_id in self.assoc.dimse.cancel_req

    def send(
        self,
        files: Sequence[Path],
        *,
        calling_aet: str | None = None,
        originator: tuple[str, int] | str | None = "echo",
        port: int | None = None,
        after_each: Callable[[], object] = lambda: None,
        after_echo: Callable[[], object] | None = None,
        patience_s: float = 30,
    ) -> list[int | None]:
        """Store files at the destination, Move Originator as the standard wants it.

        With `after_echo` a C-ECHO follows on the association, and then what it does.
        """
        association = self.open(
            files,
            calling_aet=calling_aet,
            port=port,
            patience_s=patience_s,
            echoes=bool(after_echo),
        )
        statuses = self.store(association, files, originator=originator, after_each=after_each)
        if after_echo:
            association.send_c_echo()
            after_echo()
        if association.is_established:
            association.release()
        return statuses

    def open(
        self,
        files: Sequence[Path],
        *,
        calling_aet: str | None = None,
        port: int | None = None,
        patience_s: float = 30,
        echoes: bool = False,
    ) -> Any:
        """Open an association to the destination for files."""
        ae = AE(ae_title=calling_aet or self.archive.title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = patience_s
        heads = [dcmread(path, stop_before_pixels=True) for path in files]
        pairs = {
            (h.file_meta.MediaStorageSOPClassUID, h.file_meta.TransferSyntaxUID) for h in heads
        }
        contexts = [build_context(*pair) for pair in sorted(pairs)]
        contexts += [build_context(VERIFICATION)] if echoes else []
        where = port or self.archive.destinations[self.destination]
        association = ae.associate("127.0.0.1", where, contexts=contexts, ae_title=self.destination)
        assert association.is_established
        return association

    def store(
        self,
        association: Any,
        files: Sequence[Path],
        *,
        originator: tuple[str, int] | str | None = "echo",
        after_each: Callable[[], object] = lambda: None,
    ) -> list[int | None]:
        """Store files over an association, until it breaks."""
        if originator == "echo":
            originator = (self.calling_aet, self.message_id)
        aet, number = originator if isinstance(originator, tuple) else (None, None)
        statuses = []
        for path in files:
            answer = Dataset()
            with contextlib.suppress(RuntimeError):  # it is not established any more
                answer = association.send_c_store(
                    dcmread(path), originator_aet=aet, originator_id=number
                )
            statuses.append(answer.get("Status"))
            after_each()
        return statuses

    def respond(
        self,
        status: int,
        counts: tuple[int | None, ...] = (None, None, None, None),
        *,
        failed_uids: Sequence[str] = (),
        comment: str | None = None,
    ) -> None:
        """Send a response with (remaining, completed, failed, warning)."""
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = self._request.MessageID
        response.AffectedSOPClassUID = self._request.AffectedSOPClassUID
        response.Status = status
        names = ("Remaining", "Completed", "Failed", "Warning")
        for name, count in zip(names, counts, strict=True):
            setattr(response, f"NumberOf{name}Suboperations", count)
        if failed_uids:
            dataset = Dataset()
            dataset.FailedSOPInstanceUIDList = list(failed_uids)
            response.Identifier = BytesIO(encode(dataset, True, True) or b"")
        if comment is not None:
            setattr(response, "ErrorComment", comment)  # noqa: B010 - typed None
        self.assoc.dimse.send_msg(response, self._context_id)

    def deliver(self, files: Sequence[Path], **kwargs: Any) -> None:
        """Send files and say so, as a good archive does."""
        self.send(files, **kwargs)
        self.respond(0x0000, (None, len(files), 0, 0))

    def wait_for_cancel(self, deadline_s: float = 20.0) -> None:
        """Wait until a C-CANCEL has come."""
        wait_until(lambda: self.is_canceled, deadline_s=deadline_s, what="a C-CANCEL")

    def wait(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for something."""
        wait_until(condition, deadline_s=20, what=what)


Script = Callable[[MoveTalk], None]


class ScriptedArchive(Peer):
    """A C-MOVE SCP that plays a script for each request, the last one again and again."""

    def __init__(self, title: str, destinations: dict[str, int], *scripts: Script) -> None:
        super().__init__(title)
        self.destinations = destinations
        self.talks: list[MoveTalk] = []
        self.errors: list[BaseException] = []
        self._scripts = scripts
        for model in MOVES:
            self._ae.add_supported_context(model)

    @override
    def _handlers(self) -> list[evt.EventHandlerType]:
        return [(evt.EVT_ACCEPTED, self._on_accepted)]

    def _on_accepted(self, event: Event) -> None:
        assoc: Any = event.assoc
        otherwise = assoc._serve_request  # noqa: SLF001

        def serve(message: Any, context_id: int) -> None:
            if not isinstance(message, C_MOVE):
                otherwise(message, context_id)
                return
            assoc._is_paused = True  # noqa: SLF001
            context = assoc._accepted_cx[context_id]  # noqa: SLF001
            talk = MoveTalk(self, assoc, message, context)
            with self._lock:
                script = self._scripts[min(len(self.talks), len(self._scripts) - 1)]
                self.talks.append(talk)
            try:
                script(talk)
            except Exception as error:  # noqa: BLE001 - the test asserts that there is none
                self.errors.append(error)
            assoc._is_paused = False  # noqa: SLF001

        assoc._serve_request = serve  # noqa: SLF001


# --- our side


@dataclass
class MoveSite:
    """An SCP process on a ledger, workers in threads of the test's process."""

    site: Site
    runtime: Runtime
    directory: Path
    peers: list[Peer] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Port of the SCP."""
        return self.site.port

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.site.ledger

    def client(self, calling_aet: str = "MOVESCU") -> MoveClient:
        """Return a requestor."""
        return MoveClient(self.port, calling_aet)

    def archive(self, *scripts: Script, title: str = "QRSCP") -> ScriptedArchive:
        """Start an external archive that knows this one, and place it in the directory."""
        made = ScriptedArchive(title, {"DCM4CHEE": self.port}, *scripts)
        made.start()
        self.peers.append(made)
        self.place(title, made.port)
        return made

    def destination(self, title: str = "STORESCP", **options: Any) -> StoreScp:
        """Start a destination and place it in the directory."""
        made = StoreScp(title, **options)
        made.start()
        self.peers.append(made)
        self.place(title, made.port)
        return made

    def place(self, title: str, port: int) -> None:
        """Tell the directory on which loopback port a peer listens."""
        if title in PEER_DEVICES:
            dn = f"cn=dicom,dicomDeviceName={PEER_DEVICES[title]},{DEVICES}"
            self.site.configure(port_change(dn, port))
        else:
            self.site.configure(device_ldif(title, port))
        self.settle()

    def set(self, **attributes: str) -> None:
        """Set attributes of the archive's device."""
        self.site.modify(ARCHIVE, **attributes)
        self.settle()

    def limits(self, **milliseconds: str) -> None:
        """Set time-outs of the archive's connection."""
        self.site.modify(f"cn=dicom,{ARCHIVE}", **milliseconds)
        self.settle()

    def settle(self) -> None:
        """Wait until the SCP and the workers have read the directory as it is now."""
        wanted = open_source(self.runtime.settings).snapshot().fingerprint

        def read() -> bool:
            echo(self.port)  # an SCP looks at the directory when an association is requested
            here = self.runtime.source.snapshot().fingerprint
            return here == wanted and configuration_read(self.site.log()) == wanted

        wait_until(read, what="the configuration to be read")

    def store(self, study: Study) -> None:
        """Put a study into the archive."""
        sent = send_files(list(study.files.values()), self.port)
        assert set(sent.statuses.values()) == {0}

    def study(self, **shape: Any) -> Study:
        """Make a study and put it into the archive."""
        (study,) = generate_studies(self.directory / "objects", studies=1, **shape)
        self.store(study)
        return study

    def purge(
        self, study: Study, external_aet: str | None = "QRSCP", *, force: bool = False
    ) -> PurgeReport:
        """Drop the local copies of a study."""
        snapshot = self.runtime.source.snapshot()
        storages = Storages(snapshot, self.runtime.settings)
        (report,) = purge_studies(
            self.ledger,
            storages,
            [study.study_instance_uid],
            external_aet=external_aet,
            force=force,
        )
        return report

    def forget_file(self, sop_instance_uid: str, external_aet: str | None) -> None:
        """Drop the local copy of one object."""
        with self.ledger.transaction() as tx:
            tx.execute(
                "DELETE FROM location l USING instance i WHERE l.instance_fk = i.pk"
                " AND i.sop_instance_uid = %s",
                (sop_instance_uid,),
            )
            tx.execute(
                "UPDATE instance SET external_retrieve_aet = %s WHERE sop_instance_uid = %s",
                (external_aet, sop_instance_uid),
            )

    def tasks(self) -> list[Task]:
        """Return all tasks, oldest first."""
        with self.ledger.transaction() as tx:
            pks = [pk for (pk,) in tx.execute("SELECT pk FROM task ORDER BY pk").fetchall()]
            return [tasks.get(tx, pk) for pk in pks]

    def wait_for_tasks(self) -> list[Task]:
        """Wait until every task is done."""
        wait_until(lambda: all(task.status.is_final for task in self.tasks()), what="tasks to end")
        return self.tasks()


class LocalWorkers:
    """Claims due tasks as soon as they are staged and runs them in threads."""

    def __init__(self, runtime: Runtime, slots: int = 12) -> None:
        self._runtime = runtime
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(slots, "worker")
        self._thread = threading.Thread(target=self._run, name="local workers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask running tasks to stop and wait for them."""
        self._stopped.set()
        self._runtime.keeper.shut_down()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        runtime = self._runtime
        device = runtime.settings.device_name
        with runtime.ledger.listen(TASK_CHANNEL) as listener:
            while not self._stopped.is_set():
                with runtime.ledger.statement() as tx:
                    names = [each.name for each in tasks.waiting_queues(tx, device)]
                for name in names:
                    with runtime.ledger.transaction() as tx:
                        hints = tasks.dispatch(tx, device, name, 32)
                    for hint in hints:
                        self._pool.submit(runtime.runner.run, hint.task_pk, hint.attempt)
                listener.wait(0.2)


@pytest.fixture
def moves(site: Site, tmp_path: Path) -> Iterator[MoveSite]:
    """A running SCP with workers, prompt time-outs."""
    environment = {**site.environment, "DICOMQ_LEASE_S": "5", "DICOMQ_HEARTBEAT_S": "1"}
    settings = Settings.from_environment(environment)
    site.modify(f"cn=dicom,{ARCHIVE}", dcmResponseTimeout="3000", dcmTCPConnectTimeout="2000")
    site.start()
    runtime = open_runtime(settings, PROCESSORS, worker="test")
    workers = LocalWorkers(runtime)
    workers.start()
    made = MoveSite(site, runtime, tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(runtime.close)
        stack.callback(workers.stop)
        yield made
        for peer in made.peers:
            peer.stop()
