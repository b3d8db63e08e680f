"""Storage commitment peers made of pynetdicom, as well or as badly behaved as a test wants."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.ledger import commitments, tasks
from archive.ledger.commitments import CommitmentSummary
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
from archive.model.retry import Finish
from archive.model.task import CommitmentDetails, NewTask, Outcome, Task, TaskKind, TaskStatus
from tests.fix_export import DEVICE, ExportBench
from tests.fix_peer import SUCCESS, Peer
from tests.fix_process import wait_until
from workers.deadlines import Deadlines, DeadlinesConfig
from workers.storage_commitment import CommitmentProcessor


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

    def wait_for(self, count: int, deadline_s: float = 60.0) -> list[ReceivedRequest]:
        """Wait until `count` requests came and return all so far."""
        wait_until(
            lambda: len(self.received) >= count,
            deadline_s=deadline_s,
            what=f"{count} commitment requests at {self.title}",
        )
        return list(self.received)

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
        self, port: int, references: Sequence[SopReference], transaction_uid: str, **how: object
    ) -> int | None:
        """Request commitment of DCM4CHEE and return the status of the response."""
        ae = AE(self.title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.add_requested_context(STORAGE_COMMITMENT_PUSH_MODEL)
        association = ae.associate("127.0.0.1", port, ae_title="DCM4CHEE")
        dataset = how.get("dataset", request_dataset(transaction_uid, references))
        status, _ = association.send_n_action(
            dataset,  # type: ignore[arg-type]
            how.get("action_type", 1),  # type: ignore[arg-type]
            STORAGE_COMMITMENT_PUSH_MODEL,
            WELL_KNOWN_INSTANCE,
        )
        association.release()
        return _status(status)

    def wait_for(self, count: int, deadline_s: float = 60.0) -> list[tuple[int, Report]]:
        """Wait until `count` reports came and return (event type, report) of all so far."""
        wait_until(
            lambda: len(self.reports) >= count,
            deadline_s=deadline_s,
            what=f"{count} reports at {self.title}",
        )
        return list(self.reports)

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


@dataclass
class CommitmentBench:
    """An export bench whose tasks are performed and finished by the test, step by step."""

    bench: ExportBench
    staged: list[Task] = field(default_factory=list)

    def run(self, kind: TaskKind, queue: str) -> Outcome:
        """Perform and finish the one due task of a queue; what follows from it is staged."""
        with self.bench.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, queue, 100)
        with self.bench.ledger.transaction() as tx:
            task = tasks.claim(tx, hint, worker="test", lease_s=300.0)
        assert task is not None
        assert task.kind is kind
        if kind is TaskKind.STGCMT_SCU:
            outcome = CommitmentProcessor().perform(task, self.bench.context())
        else:
            outcome = self.bench.perform(task)
        with self.bench.ledger.transaction() as tx:
            tasks.finish(tx, task, outcome, Finish(outcome.status), actor="test")
        return outcome

    def export(self, study: str) -> Outcome:
        """Export a study by exporter EXP."""
        new = NewTask(
            TaskKind.EXPORT, "Export", DEVICE, "DCM4CHEE", "STORESCP", study, exporter_id="EXP"
        )
        with self.bench.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="test")
        return self.run(TaskKind.EXPORT, "Export")

    def ask(self) -> Outcome:
        """Perform the waiting request for commitment."""
        return self.run(TaskKind.STGCMT_SCU, "StgCmtSCU")

    def ask_again(self, error: type[Exception]) -> None:
        """Perform the waiting request, which ends with `error`, and leave it to be retried."""
        with self.bench.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, "StgCmtSCU", 100)
        with self.bench.ledger.transaction() as tx:
            task = tasks.claim(tx, hint, worker="test", lease_s=300.0)
        assert task is not None
        with pytest.raises(error):
            CommitmentProcessor().perform(task, self.bench.context())
        with self.bench.ledger.transaction() as tx:
            tasks.release(tx, task, actor="test", reason="test")

    def by_hand(self, study: str, held_by: str | None = "EXP") -> None:
        """Stage a request for commitment without an export."""
        new = NewTask(
            TaskKind.STGCMT_SCU,
            "StgCmtSCU",
            DEVICE,
            "DCM4CHEE",
            "STGCMTSCP",
            study,
            exporter_id="EXP",
            commitment=CommitmentDetails(held_by_exporter=held_by),
        )
        with self.bench.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="test")

    def report(self, report: Report) -> commitments.RecordedReport | None:
        """Enter a report as an SCP process does."""
        with self.bench.ledger.transaction() as tx:
            return commitments.record_report(tx, report, actor="test")

    def look(self) -> int:
        """Look at deadlines once."""
        source = self.bench
        deadlines = Deadlines(source.ledger, source, SYSTEM_CLOCK, config=DeadlinesConfig(DEVICE))
        return deadlines.run_once()

    def commitments(self, study: str) -> list[CommitmentSummary]:
        """Return the requests of a study, oldest first."""
        with self.bench.ledger.statement() as tx:
            return commitments.of_study(tx, study)

    def waiting(self) -> list[tuple[str, str | None]]:
        """Return kind and destination of the tasks that wait."""
        with self.bench.ledger.statement() as tx:
            rows = tx.execute(
                "SELECT kind, remote_aet FROM task WHERE status = 'SCHEDULED' ORDER BY pk"
            )
            return [(kind, aet) for kind, aet in rows]

    def status_of(self, kind: TaskKind) -> TaskStatus:
        """Return the status of the newest task of a kind."""
        with self.bench.ledger.statement() as tx:
            row = tx.execute(
                "SELECT status FROM task WHERE kind = %s ORDER BY pk DESC LIMIT 1", (kind,)
            ).fetchone()
        assert row is not None
        return TaskStatus(row[0])


@pytest.fixture
def commitment_bench(bench: ExportBench) -> CommitmentBench:
    """An export bench that also asks for commitment."""
    return CommitmentBench(bench)


@pytest.fixture
def commitment_scp() -> Iterator[Callable[..., CommitmentScp]]:
    """Start commitment SCPs: ``commitment_scp(title, status=..., then=...)``."""
    running: list[CommitmentScp] = []

    def start(*args: object, **kwargs: object) -> CommitmentScp:
        peer = CommitmentScp(*args, **kwargs)  # type: ignore[arg-type]
        peer.start()
        running.append(peer)
        return peer

    yield start
    for peer in running:
        peer.stop()


@pytest.fixture
def commitment_scu() -> Iterator[Callable[..., CommitmentScu]]:
    """Start commitment SCUs that take reports: ``commitment_scu(title, role=..., status=...)``."""
    running: list[CommitmentScu] = []

    def start(*args: object, **kwargs: object) -> CommitmentScu:
        peer = CommitmentScu(*args, **kwargs)  # type: ignore[arg-type]
        peer.start()
        running.append(peer)
        return peer

    yield start
    for peer in running:
        peer.stop()
