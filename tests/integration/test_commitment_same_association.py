"""Reports of storage commitment on the association of their request, and when they are not."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom.association import Association

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.errors import DicomqError
from archive.ledger import report_offers, tasks
from archive.model.commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    Report,
    ReportedInstance,
    SopReference,
    request_dataset,
)
from archive.model.task import Outcome, Task, TaskStatus
from archive.storage.base import Storages
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import CommitmentScu, send_files
from tests.fix_process import wait_until
from tests.fix_scp import Site
from tests.fix_system import ARCHIVE_AE, DEVICES, port_change
from workers.commitment_report import ReportProcessor
from workers.processor import StopSignal, TaskContext
from workers.route import NotConfiguredError

SC = "1.2.840.10008.5.1.4.1.1.7"
DEVICE = "dcm4chee-arc"


class Archive:
    """A listening process, and a worker that the test runs."""

    def __init__(self, site: Site, study: Study) -> None:
        self.site = site
        self.study = study
        self.stop_signal = StopSignal()

    @property
    def references(self) -> list[SopReference]:
        return [SopReference(SC, uid) for uid in self.study.files]

    def claimed(self) -> Task:
        """Wait for a request and claim its task."""
        wait_until(lambda: self.site.count("stgcmt_scp_task"), what="the request")
        with self.site.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, "StgCmtSCP", 10)
        with self.site.ledger.transaction() as tx:
            task = tasks.claim(tx, hint, worker="test", lease_s=60)
        assert task is not None
        return task

    def work(self) -> Outcome:
        """Verify and report, as a worker does."""
        settings = Settings.from_environment(self.site.environment)
        snapshot = open_source(settings).snapshot()
        context = TaskContext(
            ledger=self.site.ledger,
            snapshot=snapshot,
            storages=Storages(snapshot, settings),
            clock=SYSTEM_CLOCK,
            settings=settings,
            stop_signal=self.stop_signal,
        )
        return ReportProcessor().perform(self.claimed(), context)


class Working:
    """A worker in a thread of its own, because the requestor waits in the test's."""

    def __init__(self, archive: Archive) -> None:
        self.results: list[Outcome | Exception] = []
        self._archive = archive
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.results.append(self._archive.work())
        except DicomqError as error:
            self.results.append(error)

    def result(self) -> Outcome | Exception:
        """Return what came out."""
        self._thread.join(60)
        return self.results[0]


@pytest.fixture
def archive(site: Site, tmp_path: Path) -> Archive:
    """An archive with two objects that reports on the same association for 20 s."""
    site.modify(ARCHIVE_AE, dcmStgCmtPolicy="SAME_ASSOCIATION:PT20S")
    site.start()
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=2)
    send_files(list(study.files.values()), site.port)
    return Archive(site, study)


def waiting_for(peer: CommitmentScu, count: int = 1) -> Callable[[Association], object]:
    return lambda _association: peer.wait_for(count)


def test_report_comes_on_the_association_of_the_request(archive: Archive) -> None:
    peer, working = CommitmentScu("NOBODY"), Working(archive)
    asked = [*archive.references, SopReference(SC, "1.2.3.4.5")]
    status = peer.ask(archive.site.port, asked, "1.2.3", then=waiting_for(peer))
    assert status == 0x0000
    outcome = working.result()
    assert isinstance(outcome, Outcome)
    assert outcome.status is TaskStatus.WARNING
    assert "on the association of its request: committed:2 failed:1" in outcome.message
    ((event_type, report),) = peer.reports
    assert (event_type, report.transaction_uid) == (2, "1.2.3")
    assert [each.failure_reason for each in report.instances] == [None, None, 0x0112]
    assert "scp.commitment-report-sent" in archive.site.log()


def test_refused_report_is_retried_by_the_queue(archive: Archive) -> None:
    peer, working = CommitmentScu("NOBODY", status=lambda _event: 0x0110), Working(archive)
    peer.ask(archive.site.port, archive.references, "1.2.3", then=waiting_for(peer))
    outcome = working.result()
    assert isinstance(outcome, Outcome)
    assert outcome.status is TaskStatus.FAILED
    assert "0110" in outcome.message


def test_other_requests_are_served_while_the_report_is_awaited(
    archive: Archive, tmp_path: Path
) -> None:
    peer = CommitmentScu("NOBODY")
    (other,) = generate_studies(tmp_path / "other", studies=1, root="1.2.826.0.1.7")

    def busy(association: Association) -> None:
        information = request_dataset("1.2.4", archive.references)
        status, _ = association.send_n_action(
            information, 1, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
        )
        assert status.Status == 0x0000
        assert send_files(list(other.files.values()), archive.site.port).accepted
        with archive.site.ledger.transaction() as tx:
            hints = tasks.dispatch(tx, DEVICE, "StgCmtSCP", 10)
            assert len(hints) == 2
            for hint in reversed(hints):
                task = tasks.claim(tx, hint, worker="test", lease_s=60)
                assert task is not None
                uid = "1.2.3" if hint is hints[0] else "1.2.4"
                report = Report(uid, (ReportedInstance(SC, "1.9", None, "DCM4CHEE"),))
                assert report_offers.offer(tx, task.pk, report)
        peer.wait_for(2)

    peer.ask(archive.site.port, archive.references, "1.2.3", then=busy)
    assert {report.transaction_uid for _, report in peer.reports} == {"1.2.3", "1.2.4"}
    with archive.site.ledger.statement() as tx:
        rows = tx.execute("SELECT answered_status FROM stgcmt_scp_task").fetchall()
    assert rows == [(0,), (0,)]


def reachable(archive: Archive, start: Callable[..., CommitmentScu]) -> CommitmentScu:
    """Have STORESCP listen for reports where the directory says."""
    peer = start("STORESCP")
    connection = f"cn=dicom,dicomDeviceName=storescp,{DEVICES}"
    archive.site.configure(port_change(connection, peer.port))
    return peer


def test_released_association_is_not_waited_for(
    archive: Archive, commitment_scu: Callable[..., CommitmentScu]
) -> None:
    peer = reachable(archive, commitment_scu)
    assert peer.ask(archive.site.port, archive.references, "1.2.3") == 0x0000
    wait_until(lambda: not _held(archive), what="the end of the hold")
    outcome = archive.work()
    assert outcome.status is TaskStatus.COMPLETED
    assert f"{peer.title}" in outcome.message
    assert "association of its request" not in outcome.message
    assert len(peer.reports) == 1


def test_aborted_while_the_report_is_on_its_way(
    archive: Archive, commitment_scu: Callable[..., CommitmentScu]
) -> None:
    listening = reachable(archive, commitment_scu)
    aborting: list[Association] = []

    def abort(_event: object) -> int:
        aborting[0].abort()
        return 0

    peer, working = CommitmentScu("STORESCP", status=abort), Working(archive)
    peer.ask(archive.site.port, archive.references, "1.2.3", then=_remembered(aborting, peer))
    outcome = working.result()
    assert isinstance(outcome, Outcome)
    assert outcome.status is TaskStatus.COMPLETED
    assert len(peer.reports) == len(listening.reports) == 1


def _remembered(associations: list[Association], peer: CommitmentScu) -> Callable[..., object]:
    def remember(association: Association) -> None:
        associations.append(association)
        peer.wait_for(1)

    return remember


def test_killed_listening_process_leaves_the_report_to_the_worker(
    archive: Archive, commitment_scu: Callable[..., CommitmentScu]
) -> None:
    archive.site.modify(ARCHIVE_AE, dcmStgCmtPolicy="SAME_ASSOCIATION:PT3S")
    listening = reachable(archive, commitment_scu)
    archive.site.stop()
    archive.site.start()  # with the 3 s
    peer = CommitmentScu("STORESCP")
    peer.ask(
        archive.site.port,
        archive.references,
        "1.2.3",
        then=lambda _association: archive.site.stop(),
    )
    assert _held(archive)
    assert archive.work().status is TaskStatus.COMPLETED
    assert (len(peer.reports), len(listening.reports)) == (0, 1)


def test_listening_process_that_took_the_report_and_went_is_not_waited_for(
    archive: Archive, commitment_scu: Callable[..., CommitmentScu]
) -> None:
    listening = reachable(archive, commitment_scu)
    peer = CommitmentScu("STORESCP")

    def take_and_go(_association: Association) -> None:
        archive.site.stop()
        working.append(Working(archive))
        wait_until(lambda: _offered(archive), what="the offer")
        with archive.site.ledger.transaction() as tx:
            (pk,) = tx.execute("SELECT task_fk FROM stgcmt_scp_task").fetchone() or (0,)
            assert report_offers.take(tx, pk) is not None
            tx.execute(
                "UPDATE stgcmt_scp_task SET taken_time = taken_time - make_interval(secs => %s)",
                [report_offers.ANSWER_S + 1],
            )

    working: list[Working] = []
    peer.ask(archive.site.port, archive.references, "1.2.3", then=take_and_go)
    outcome = working[0].result()
    assert isinstance(outcome, Outcome)
    assert outcome.status is TaskStatus.COMPLETED
    assert (len(peer.reports), len(listening.reports)) == (0, 1)


def _offered(archive: Archive) -> bool:
    with archive.site.ledger.statement() as tx:
        row = tx.execute("SELECT report IS NOT NULL FROM stgcmt_scp_task").fetchone()
    return bool(row and row[0])


def test_nobody_to_report_to_after_the_association(archive: Archive) -> None:
    CommitmentScu("NOBODY").ask(archive.site.port, archive.references, "1.2.3")
    wait_until(lambda: not _held(archive), what="the end of the hold")
    with pytest.raises(NotConfiguredError, match="NOBODY"):
        archive.work()


def test_without_these_terms_the_association_is_left_alone(site: Site, tmp_path: Path) -> None:
    site.start()
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    archive = Archive(site, study)
    assert CommitmentScu("NOBODY").ask(site.port, archive.references, "1.2.3") == 0x0110
    assert site.count("stgcmt_scp_task") == 0


def _held(archive: Archive) -> bool:
    with archive.site.ledger.statement() as tx:
        row = tx.execute(
            "SELECT same_association_until > clock_timestamp() FROM stgcmt_scp_task"
        ).fetchone()
    return bool(row and row[0])
