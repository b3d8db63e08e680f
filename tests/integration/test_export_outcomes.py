"""Export tasks against real storage SCPs: what arrives, what is recorded, how the task ends."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom.events import Event

from archive.errors import ConfigurationError
from archive.model.task import Failure, NewTask, TaskKind, TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import bundled, encoded_dataset, generate_studies
from tests.fix_peer import StoreScp
from tests.fix_process import free_port
from workers.processor import StopReason

StartStoreScp = Callable[..., StoreScp]
CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


def test_study_arrives_as_stored_and_is_notified(bench: ExportBench, dcmtk: Dcmtk) -> None:
    peer = dcmtk.storescp()
    bench.add(exporter(ian_destinations=("IANSCP",)), remote_ae("STORESCP", peer.port))
    source = bundled("CT_small.dcm")
    bench.store(source)
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert (outcome.status, outcome.failure) == (TaskStatus.COMPLETED, None)
    assert outcome.message == f"export of study {CT_STUDY} to STORESCP: completed:1"
    (received,) = peer.wait_for(1).values()
    assert encoded_dataset(received) == encoded_dataset(source)
    (ian,) = outcome.follow_ups
    assert isinstance(ian, NewTask)
    assert (ian.kind, ian.queue_name, ian.remote_aet) == (TaskKind.IAN, "IANSCU", "IANSCP")
    assert ian.ian is not None
    assert ian.ian.retrieve_aets == ("STORESCP",)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "JPEG2000.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "JPGExtended.dcm",
        "image_dfl.dcm",
    ],
)
def test_every_stored_syntax_is_sent_as_it_is(bench: ExportBench, dcmtk: Dcmtk, name: str) -> None:
    peer = dcmtk.storescp()
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    source = bundled(name)
    file = bench.store(source)
    study = _study_of(bench)
    assert bench.perform(bench.export_task(study)).status is TaskStatus.COMPLETED
    (received,) = peer.wait_for(1).values()
    stored = encoded_dataset(bench.path_of(file))
    assert encoded_dataset(received) == stored + b"\0" * (len(stored) % 2)


def test_one_of_a_hundred_refused_is_the_only_one_sent_again(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    refused = "1.2.826.0.1.9.1.1.50"
    answers = {refused: [0xA700]}

    def status(event: Event) -> int:
        left = answers.get(str(event.request.AffectedSOPInstanceUID))
        return left.pop() if left else 0x0000

    peer = store_scp(status=status)
    bench.add(exporter(ian_destinations=("IANSCP",)), remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=100)
    for path in study.files.values():
        bench.store(path)
    task = bench.export_task(study.study_instance_uid)
    first = bench.perform(task)
    assert (first.status, first.failure) == (TaskStatus.WARNING, Failure.TRANSIENT)
    assert "completed:99 failed:1; A700 refused: out of resources" in first.message
    assert first.follow_ups == ()
    assert refused not in peer.received_uids()
    second = bench.perform(task)
    assert second.status is TaskStatus.COMPLETED
    assert second.message.endswith("completed:1 delivered before:99")
    assert len(peer.received) == 100
    assert peer.received_uids()[-1] == refused
    assert len(second.follow_ups) == 1


def test_what_was_refused_for_good_is_not_sent_again(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    hopeless, unlucky = "1.2.826.0.1.9.1.1.3", "1.2.826.0.1.9.1.1.5"
    answers = {hopeless: [0xC000] * 9, unlucky: [0xA700]}

    def status(event: Event) -> int:
        left = answers.get(str(event.request.AffectedSOPInstanceUID))
        return left.pop() if left else 0x0000

    peer = store_scp(status=status)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=10)
    for path in study.files.values():
        bench.store(path)
    task = bench.export_task(study.study_instance_uid)
    first = bench.perform(task)
    assert (first.status, first.failure) == (TaskStatus.WARNING, Failure.TRANSIENT)
    second = bench.perform(task)
    assert (second.status, second.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert second.message.endswith("completed:1 delivered before:8 refused before:1")
    assert len(answers[hopeless]) == 8, "asked once"
    third = bench.perform(task)
    assert (third.status, third.failure) == (TaskStatus.WARNING, Failure.PERMANENT)


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        (0xB000, TaskStatus.COMPLETED, None),
        (0xA700, TaskStatus.FAILED, Failure.TRANSIENT),
        (0x0110, TaskStatus.FAILED, Failure.TRANSIENT),
        (0xA900, TaskStatus.FAILED, Failure.PERMANENT),
        (0xC000, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0122, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0124, TaskStatus.FAILED, Failure.PERMANENT),
    ],
)
def test_status_of_the_only_object(
    bench: ExportBench,
    store_scp: StartStoreScp,
    code: int,
    status: TaskStatus,
    failure: Failure | None,
) -> None:
    peer = store_scp(status=lambda _event: code)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    task = bench.export_task(CT_STUDY)
    outcome = bench.perform(task)
    assert (outcome.status, outcome.failure) == (status, failure)
    ((delivered, recorded, message),) = bench.results(task).values()
    assert (delivered, recorded) == (code == 0xB000, code)
    assert message.startswith(f"{code:04X} ")
    assert message in outcome.message


def test_permanent_failure_of_one_of_two_is_a_warning(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    peer = store_scp(status=lambda event: 0xC000 if event.message_id == 1 else 0)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=2)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert "completed:1 failed:1; C000 error: cannot understand" in outcome.message


def test_unknown_study_is_a_warning_and_a_covered_follow_up_is_complete(
    bench: ExportBench, store_scp: StartStoreScp
) -> None:
    peer = store_scp()
    bench.add(exporter(ian_destinations=("IANSCP",)), remote_ae("STORESCP", peer.port))
    unknown = bench.perform(bench.export_task("1.2.3"))
    assert (unknown.status, unknown.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    bench.store(bundled("CT_small.dcm"))
    assert bench.perform(bench.export_task(CT_STUDY)).status is TaskStatus.COMPLETED
    follow_up = bench.perform(bench.follow_up(CT_STUDY))
    assert (follow_up.status, follow_up.follow_ups) == (TaskStatus.COMPLETED, ())
    assert len(peer.received) == 1


def test_attempt_repeated_after_everything_was_recorded_still_notifies(
    bench: ExportBench, store_scp: StartStoreScp
) -> None:
    peer = store_scp()
    bench.add(exporter(ian_destinations=("A", "B", "A")), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"))
    task = bench.export_task(CT_STUDY)
    bench.perform(task)
    again = bench.perform(task)
    assert again.status is TaskStatus.COMPLETED
    assert [each.remote_aet for each in again.follow_ups] == ["A", "B"]
    assert len(peer.received) == 1


def test_missing_and_shortened_files_fail_alone(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    peer = store_scp()
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=3)
    files = [bench.store(path) for path in study.files.values()]
    bench.path_of(files[0]).unlink()
    shortened = bench.path_of(files[1])
    shortened.write_bytes(shortened.read_bytes()[:-2])
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert "completed:1 missing:2" in outcome.message
    assert peer.received_uids() == [list(study.files)[2]]


def test_several_associations_share_the_instances(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    ports: set[int] = set()

    def status(event: Event) -> int:
        ports.add(event.assoc.requestor.port)
        return 0

    peer = store_scp(status=status)
    bench.add(local_ae(multiple_store_associations=("2", "STORESCP:4")), exporter())
    bench.add(remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=60)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert outcome.status is TaskStatus.COMPLETED
    assert sorted(peer.received_uids()) == sorted(study.files)
    assert len(ports) == 4


def test_additional_associations_that_are_refused_only_make_fewer(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    peer = store_scp()
    peer._ae.maximum_associations = 1  # noqa: SLF001
    bench.add(local_ae(multiple_store_associations=("3",)), exporter())
    bench.add(remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=20)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert outcome.status is TaskStatus.COMPLETED
    assert sorted(peer.received_uids()) == sorted(study.files)


def test_calling_title_of_the_source(bench: ExportBench, store_scp: StartStoreScp) -> None:
    peer = store_scp()
    bench.add(exporter(export_as_source_ae=True), remote_ae("STORESCP", peer.port))
    bench.store(bundled("CT_small.dcm"), sending_aet="CT99")
    bench.perform(bench.export_task(CT_STUDY))
    assert [each.calling_aet for each in peer.received] == ["CT99"]


def test_masquerading(bench: ExportBench, store_scp: StartStoreScp) -> None:
    titles: list[tuple[str, str]] = []

    def status(event: Event) -> int:
        request = event.assoc.requestor.primitive
        titles.append((request.calling_ae_title, request.called_ae_title))
        return 0

    peer = store_scp(status=status)
    bench.add(
        local_ae(
            masquerade_calling_titles=("OTHER", "[STORESCP]MASK"),
            masquerade_called_titles=("STORESCP:REAL",),
        ),
        exporter(),
        remote_ae("STORESCP", peer.port),
    )
    bench.store(bundled("CT_small.dcm"))
    bench.perform(bench.export_task(CT_STUDY))
    assert titles == [("MASK", "REAL")]


def test_canceled_between_two_objects(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    def status(event: Event) -> int:
        if event.message_id == 3:
            bench.stop_signal.stop(StopReason.CANCELED)
        return 0

    peer = store_scp(status=status)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = generate_studies(tmp_path, studies=1, instances=10)
    for path in study.files.values():
        bench.store(path)
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert outcome.status is TaskStatus.CANCELED
    assert "completed:3 remaining:7" in outcome.message
    assert len(bench.held(study.study_instance_uid)) == 3


def test_noop_sends_nothing_and_notifies_of_the_whole_study(bench: ExportBench) -> None:
    bench.add(exporter("x", scheme="noop", ian_destinations=("IANSCP",), retrieve_aets=("PACS",)))
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert outcome.status is TaskStatus.COMPLETED
    assert outcome.message.startswith("NOOP")
    (ian,) = outcome.follow_ups
    assert ian.ian is not None
    assert (ian.ian.retrieve_aets, ian.ian.held_by_exporter) == (("PACS",), None)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((), "dcmExporterID=EXP"),
        ((exporter(scheme="stow"),), "dicom and noop"),
        ((exporter(),), "dicomAETitle=STORESCP"),
        ((exporter(aet=None),), "dicomAETitle"),
        ((exporter(aet="GHOST"),), "dicomAETitle=GHOST"),
        ((exporter(), remote_ae("STORESCP", 1, installed=False)), "dicomInstalled"),
        ((exporter(), remote_ae("STORESCP", 1, connections=())), "dicomPort"),
    ],
)
def test_lacking_configuration_names_the_entry_and_is_retried(
    bench: ExportBench, entries: tuple[object, ...], words: str
) -> None:
    bench.add(*entries)  # type: ignore[arg-type]
    bench.store(bundled("CT_small.dcm"))
    with pytest.raises(ConfigurationError, match=words) as caught:
        bench.perform(bench.export_task(CT_STUDY))
    assert caught.value.retryable


def test_nobody_listens(bench: ExportBench) -> None:
    bench.add(exporter(), remote_ae("STORESCP", free_port()))
    bench.store(bundled("CT_small.dcm"))
    outcome = bench.perform(bench.export_task(CT_STUDY))
    assert (outcome.status, outcome.failure) == (TaskStatus.FAILED, Failure.TRANSIENT)
    assert "remaining:1; stopped: cannot connect to STORESCP (127.0.0.1:" in outcome.message
    assert "connection refused" in outcome.message


def _study_of(bench: ExportBench) -> str:
    with bench.ledger.transaction() as tx:
        row = tx.execute("SELECT study_instance_uid FROM study").fetchone()
    assert row is not None
    return str(row[0])
