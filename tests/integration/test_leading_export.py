"""Exports of studies whose attributes a leading archive knows better."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from archive.errors import DicomqError
from archive.ledger import leading
from archive.ledger.leading import LeadingStudy
from archive.model.coercion import (
    AnswerKind,
    CoercionRule,
    LeadingAnswer,
    Occasion,
    OnFailure,
    Scheme,
    Step,
    UpdatePolicy,
)
from archive.model.conditions import Conditions
from archive.model.task import TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, remote_ae
from tests.fix_leading import LeadingArchive, asking, leading_task
from tests.fix_objects import bundled, encoded_dataset, generate_studies, secondary_capture, write
from workers.leading_find import LeadingFindProcessor


def leading_rule(policy: UpdatePolicy = UpdatePolicy.MERGE, **changes: object) -> CoercionRule:
    """Return the rule of the documentation, in the form of the directory's descriptor."""
    step = Step(Scheme.LEADING, argument="QRSCP", policy=policy, rule="leading")
    step = dataclasses.replace(step, **changes)  # type: ignore[arg-type]
    conditions = Conditions.parse(["ReceivingApplicationEntityTitle=STORESCP"])
    return CoercionRule("leading", Occasion.SENT, (step,), conditions=conditions)


def use_rules(bench: ExportBench, *rules: CoercionRule) -> None:
    bench.device = dataclasses.replace(bench.device, coercion_rules=rules)


def answer(bench: ExportBench, study: str, found: LeadingAnswer | None = None, **keys: str) -> None:
    """Put an answer of QRSCP into the ledger."""
    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    with bench.ledger.transaction() as tx:
        leading.record(
            tx,
            "QRSCP",
            study,
            found or LeadingAnswer(AnswerKind.FOUND, dataset),
            freshness=leading.Freshness(),
        )


@pytest.fixture
def target(bench: ExportBench, dcmtk: Dcmtk) -> Callable[[], dict[str, Path]]:
    peer = dcmtk.storescp()
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    return peer.received


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("CT_small.dcm", UpdatePolicy.MERGE, "Neu^Jürgen"),
        ("CT_small.dcm", UpdatePolicy.SUPPLEMENT, "CompressedSamples^CT1"),
        ("JPEG2000.dcm", UpdatePolicy.OVERWRITE, "Neu^Jürgen"),
        ("MR_small.dcm", UpdatePolicy.PRESERVE, "CompressedSamples^MR1"),
        ("image_dfl.dcm", UpdatePolicy.MERGE, "Neu^Jürgen"),
    ],
)
def test_attributes_of_the_leading_archive_arrive(
    bench: ExportBench,
    target: Callable[[], dict[str, Path]],
    name: str,
    policy: UpdatePolicy,
    expected: str,
) -> None:
    path = bundled(name)
    original = dcmread(path)
    bench.store(path)
    study = str(original.StudyInstanceUID)
    use_rules(bench, leading_rule(policy))
    answer(bench, study, PatientName="Neu^Jürgen", PatientID="NEW", RetrieveAETitle="X")
    outcome = bench.perform(bench.export_task(study))
    assert outcome.status is TaskStatus.COMPLETED, outcome.message
    received = dcmread(target()[str(original.SOPInstanceUID)])
    assert str(received.PatientName) == expected
    assert "RetrieveAETitle" not in received
    assert received.PixelData == original.PixelData
    if policy is UpdatePolicy.PRESERVE:
        assert encoded_dataset(path) == encoded_dataset(target()[str(original.SOPInstanceUID)])


def test_a_query_is_staged_and_waited_for(
    bench: ExportBench,
    target: Callable[[], dict[str, Path]],
    leading_archive: LeadingArchive,
    tmp_path: Path,
) -> None:
    study = generate_studies(tmp_path, studies=1)[0]
    for path in study.files.values():
        bench.store(path)
    changed = dcmread(next(iter(study.files.values())))
    changed.PatientName = "Changed^Name"
    leading_archive.store(write(changed, tmp_path / "changed.dcm"))
    bench.add(remote_ae("QRSCP", leading_archive.port))
    use_rules(bench, leading_rule())
    with asking(bench):
        outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert outcome.status is TaskStatus.COMPLETED, outcome.message
    (received,) = target().values()
    assert str(dcmread(received).PatientName) == "Changed^Name"


@pytest.mark.parametrize(
    ("on_failure", "status"),
    [(OnFailure.RETHROW, TaskStatus.FAILED), (OnFailure.CONTINUE, TaskStatus.COMPLETED)],
)
def test_without_an_answer_the_rule_says_what_follows(
    bench: ExportBench,
    target: Callable[[], dict[str, Path]],
    tmp_path: Path,
    on_failure: OnFailure,
    status: TaskStatus,
) -> None:
    study = generate_studies(tmp_path, studies=1, instances=3)[0]
    for path in study.files.values():
        bench.store(path)
    use_rules(bench, leading_rule(on_failure=on_failure))
    bench.leading_wait_s = 0.5
    outcome = bench.perform(bench.export_task(study.study_instance_uid))
    assert outcome.status is status
    assert len(target()) == (3 if status is TaskStatus.COMPLETED else 0)


def test_an_error_is_no_answer(bench: ExportBench, leading_archive: LeadingArchive) -> None:
    bench.add(remote_ae("QRSCP", leading_archive.port))
    leading_archive.stop()
    task = leading_task(bench, "1.2.3")
    with pytest.raises(DicomqError):
        LeadingFindProcessor().perform(task, bench.context())
    with bench.ledger.statement() as tx:
        found = leading.answer(tx, "QRSCP", "1.2.3", leading.Freshness(negative_s=60))
        assert found is not None
        assert found.kind is AnswerKind.FAILED
        assert leading.answer(tx, "QRSCP", "1.2.3", leading.Freshness(negative_s=0)) is None


def test_no_match_is_an_answer(bench: ExportBench, leading_archive: LeadingArchive) -> None:
    bench.add(remote_ae("QRSCP", leading_archive.port))
    leading_archive.store(
        write(secondary_capture("1.2.4", 1, 1), leading_archive.directory / "other.dcm")
    )
    outcome = LeadingFindProcessor().perform(leading_task(bench, "1.2.3"), bench.context())
    assert outcome.status is TaskStatus.COMPLETED
    with bench.ledger.statement() as tx:
        found = leading.answer(tx, "QRSCP", "1.2.3", leading.Freshness())
    assert found == LeadingAnswer(AnswerKind.NO_MATCH)


def test_one_query_at_a_time(bench: ExportBench) -> None:
    study = LeadingStudy("QRSCP", "1.2.3", "DCM4CHEE", "dcm4chee-arc")
    with bench.ledger.transaction() as tx:
        assert leading.demand(tx, study, actor="test")
        assert not leading.demand(tx, study, actor="test")


def test_answers_used_longest_ago_are_dropped(bench: ExportBench) -> None:
    with bench.ledger.transaction() as tx:
        for number in range(5):
            found = LeadingAnswer(AnswerKind.NO_MATCH)
            size = leading.Freshness(size=3)
            leading.record(tx, "QRSCP", f"1.2.{number}", found, freshness=size)
            tx.execute("UPDATE leading_answer SET used_time = used_time - interval '1 hour'")
    with bench.ledger.statement() as tx:
        held = [
            number
            for number in range(5)
            if leading.answer(tx, "QRSCP", f"1.2.{number}", leading.Freshness())
        ]
    assert held == [2, 3, 4]
