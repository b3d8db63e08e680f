"""The attribute list of an availability notification against PS3.3 §C.4.23 and PS3.4 §R.3.2.1."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import DataElement

from archive.model.entities import AnnouncedInstance, InstanceReference
from archive.model.status import Service, classify
from archive.model.task import Failure, IanDetails, TaskStatus
from workers.instance_availability import outcome_of
from workers.notification import build_notification, problems_of

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY = "1.3.6.1.4.1.5962.1.2.0.1175775772.5723.0"
SERIES = "1.3.6.1.4.1.5962.1.3.0.1.1175775772.5723.0"
OBJECT = "1.3.6.1.4.1.5962.1.1.0.1.1.1175775772.5723.0"
ONLINE = IanDetails(("STORESCP",), "ONLINE")

# the data set printed in the wiki page "Export Triggered IAN": level, tag, VR, value
PRINTED = [
    (0, 0x00081111, "SQ", 0),
    (0, 0x00081115, "SQ", 1),
    (1, 0x00081199, "SQ", 1),
    (2, 0x00080054, "AE", "STORESCP"),
    (2, 0x00080056, "CS", "ONLINE"),
    (2, 0x00081150, "UI", SC),
    (2, 0x00081155, "UI", OBJECT),
    (1, 0x0020000E, "UI", SERIES),
    (0, 0x0020000D, "UI", STUDY),
]


def announced(reference: InstanceReference, availability: str = "ONLINE") -> AnnouncedInstance:
    return AnnouncedInstance(reference, availability)


def _flat(dataset: Dataset, level: int = 0) -> list[tuple[int, int, str, object]]:
    rows: list[tuple[int, int, str, object]] = []
    for element in dataset:
        value = len(element.value) if element.VR == "SQ" else str(element.value)
        rows.append((level, int(element.tag), str(element.VR), value))
        if element.VR == "SQ":
            for item in element.value:
                rows += _flat(item, level + 1)
    return rows


def _printed() -> Dataset:
    return build_notification(STUDY, [announced(InstanceReference(SERIES, SC, OBJECT))], ONLINE)


def test_equals_the_printed_data_set_attribute_for_attribute() -> None:
    assert _flat(_printed()) == PRINTED


def test_stays_the_same_through_the_ledger() -> None:
    assert _flat(Dataset.from_json(_printed().to_json())) == PRINTED


def test_instances_are_grouped_by_series_in_their_order() -> None:
    references = [
        InstanceReference("2.1", SC, "3.1"),
        InstanceReference("2.2", SC, "3.2"),
        InstanceReference("2.1", SC, "3.3"),
    ]
    dataset = build_notification("1.1", list(map(announced, references)), ONLINE)
    assert [
        (
            str(series.SeriesInstanceUID),
            [str(sop.ReferencedSOPInstanceUID) for sop in series.ReferencedSOPSequence],
        )
        for series in dataset.ReferencedSeriesSequence
    ] == [("2.1", ["3.1", "3.3"]), ("2.2", ["3.2"])]


def test_several_titles_and_a_location() -> None:
    details = IanDetails(("A", "B"), "NEARLINE", "1.2.9")
    instance = announced(InstanceReference("2.1", SC, "3.1"), "NEARLINE")
    dataset = build_notification("1.1", [instance], details)
    item = dataset.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert list(item.RetrieveAETitle) == ["A", "B"]
    assert (item.InstanceAvailability, item.RetrieveLocationUID) == ("NEARLINE", "1.2.9")
    assert problems_of(dataset) == ()


uids = st.integers(1, 10**30).map("1.2.{}".format)
references = st.builds(InstanceReference, uids, uids, uids)


@given(uids, st.lists(references, min_size=1, max_size=20))
def test_every_built_notification_is_valid(study: str, built: list[InstanceReference]) -> None:
    assert problems_of(build_notification(study, list(map(announced, built)), ONLINE)) == ()


def _sop(dataset: Dataset) -> Dataset:
    item: Dataset = dataset.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    return item


def _performed_step(*keywords: str) -> Dataset:
    step = Dataset()
    for keyword in keywords:
        setattr(step, keyword, [] if keyword.endswith("Sequence") else "1.2")
    return step


BROKEN: list[tuple[Callable[[Dataset], object], str]] = [
    (lambda d: d.__delattr__("StudyInstanceUID"), "StudyInstanceUID is missing (type 1)"),
    (lambda d: setattr(d, "StudyInstanceUID", ""), "StudyInstanceUID is empty (type 1)"),
    (lambda d: setattr(d, "StudyInstanceUID", "1.x"), "is not a UID"),
    (
        lambda d: d.__delattr__("ReferencedPerformedProcedureStepSequence"),
        "ReferencedPerformedProcedureStepSequence is missing (type 2)",
    ),
    (lambda d: setattr(d, "ReferencedSeriesSequence", []), "ReferencedSeriesSequence is empty"),
    (
        lambda d: setattr(d.ReferencedSeriesSequence[0], "ReferencedSOPSequence", []),
        "ReferencedSeriesSequence[1].ReferencedSOPSequence is empty",
    ),
    (lambda d: setattr(_sop(d), "RetrieveAETitle", []), "RetrieveAETitle is empty (type 1)"),
    (lambda d: setattr(_sop(d), "RetrieveAETitle", "A" * 17), "is not an AE title"),
    (lambda d: setattr(_sop(d), "InstanceAvailability", "SOON"), "'SOON', not one of"),
    (lambda d: setattr(d, "PatientID", "4711"), "PatientID is not allowed"),
    (lambda d: setattr(_sop(d), "AccessionNumber", ""), "AccessionNumber is not allowed"),
    (lambda d: d.add(DataElement(0x00091001, "LO", "x")), "is not allowed"),
    (
        lambda d: setattr(
            d,
            "ReferencedPerformedProcedureStepSequence",
            [_performed_step("ReferencedSOPClassUID")],
        ),
        "ReferencedPerformedProcedureStepSequence[1].ReferencedSOPInstanceUID is missing",
    ),
    (
        lambda d: setattr(
            d,
            "ReferencedPerformedProcedureStepSequence",
            2
            * [
                _performed_step(
                    "ReferencedSOPClassUID",
                    "ReferencedSOPInstanceUID",
                    "PerformedWorkitemCodeSequence",
                )
            ],
        ),
        "has 2 items, 1 allowed",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), BROKEN)
def test_violations(spoil: Callable[[Dataset], object], words: str) -> None:
    dataset = _printed()
    spoil(dataset)
    assert any(words in problem for problem in problems_of(dataset))


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        (0x0000, TaskStatus.COMPLETED, None),
        (0x0111, TaskStatus.COMPLETED, None),
        (0x0107, TaskStatus.WARNING, Failure.PERMANENT),
        (0x0116, TaskStatus.WARNING, Failure.PERMANENT),
        (0x0105, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0106, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0110, TaskStatus.FAILED, Failure.TRANSIENT),
        (0x0117, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0118, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0120, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0121, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0124, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0210, TaskStatus.FAILED, Failure.TRANSIENT),
        (0x0211, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0212, TaskStatus.FAILED, Failure.PERMANENT),
        (0x0213, TaskStatus.FAILED, Failure.TRANSIENT),
    ],
)
def test_outcome_by_status(code: int, status: TaskStatus, failure: Failure | None) -> None:
    outcome = outcome_of(classify(Service.N_CREATE, code), "", "IAN")
    assert (outcome.status, outcome.failure) == (status, failure)


def test_procedure_step_and_rejected_instances() -> None:
    details = IanDetails(("ARCHIVE",), "ONLINE", mpps_sop_instance_uid="1.2.7")
    instances = [
        announced(InstanceReference("2.1", SC, "3.1")),
        announced(InstanceReference("2.1", SC, "3.2"), "UNAVAILABLE"),
    ]
    dataset = build_notification("1.1", instances, details)
    (step,) = dataset.ReferencedPerformedProcedureStepSequence
    assert step.ReferencedSOPInstanceUID == "1.2.7"
    assert step.PerformedWorkitemCodeSequence == []
    items = dataset.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [each.InstanceAvailability for each in items] == ["ONLINE", "UNAVAILABLE"]
    assert problems_of(dataset) == ()
