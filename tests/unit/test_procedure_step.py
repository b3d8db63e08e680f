"""What a performed procedure step says that it produced, and for which study."""

import pytest
from pydicom import Dataset

from archive.model.procedure_step import produced_instances, status_of, study_of


def series(**sequences: list[str]) -> Dataset:
    item = Dataset()
    for keyword, uids in sequences.items():
        setattr(item, keyword, [reference(uid) for uid in uids])
    return item


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid
    return item


def step(*performed: Dataset) -> Dataset:
    dataset = Dataset()
    dataset.PerformedSeriesSequence = list(performed)
    return dataset


IMAGES, OTHERS = "ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"


@pytest.mark.parametrize(
    ("dataset", "uids"),
    [
        (Dataset(), ()),
        (step(), ()),
        (step(series()), ()),
        (step(series(**{IMAGES: []})), ()),
        (step(series(**{OTHERS: ["1.1"]})), ("1.1",)),
        (step(series(**{IMAGES: ["1.1"], OTHERS: ["1.2"]})), ("1.1", "1.2")),
        (
            step(series(**{IMAGES: ["1.1", "1.1"]}), series(**{IMAGES: ["1.1", "1.3"]})),
            ("1.1", "1.3"),
        ),
        (step(series(**{IMAGES: ["", "1.4"]})), ("1.4",)),
    ],
    ids=["nothing", "no series", "no sequence", "empty", "other", "both", "repeated", "no UID"],
)
def test_produced_instances(dataset: Dataset, uids: tuple[str, ...]) -> None:
    assert produced_instances(dataset) == uids


def test_status_and_study_of_an_empty_step() -> None:
    assert (status_of(Dataset()), study_of(Dataset())) == ("", None)


def test_first_study_that_is_named() -> None:
    dataset = Dataset()
    dataset.ScheduledStepAttributesSequence = [Dataset(), Dataset(), Dataset()]
    dataset.ScheduledStepAttributesSequence[1].StudyInstanceUID = "1.2"
    dataset.ScheduledStepAttributesSequence[2].StudyInstanceUID = "1.3"
    assert study_of(dataset) == "1.2"
