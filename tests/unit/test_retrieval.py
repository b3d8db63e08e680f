from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from archive.model.retrieval import (
    LEVELS,
    STUDY_ROOT_MOVE,
    IdentifierError,
    Leniency,
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveStatus,
    SubOperations,
    check_identifier,
    comment,
    final_status,
    identifier_dataset,
)

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3.2"
LEVEL, PATIENT, STUDY, SERIES, SOP = 0x00080052, 0x00100020, 0x0020000D, 0x0020000E, 0x00080018

S = {"StudyInstanceUID": "1.2"}
E = {"SeriesInstanceUID": "1.2.3"}
I = {"SOPInstanceUID": "1.2.3.4"}  # noqa: E741 - as PS3.4 calls the level's key
P = {"PatientID": "P1"}


def identifier(level: str | None, keys: Mapping[str, object]) -> Dataset:
    dataset = Dataset()
    if level is not None:
        dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("model", "level", "keys", "offending"),
    [
        # level
        (STUDY_ROOT_MOVE, None, S, LEVEL),
        (STUDY_ROOT_MOVE, "", S, LEVEL),
        (STUDY_ROOT_MOVE, "FRAME", S, LEVEL),
        (STUDY_ROOT_MOVE, "PATIENT", P, LEVEL),
        (PATIENT_STUDY_ONLY, "SERIES", P | S | E, LEVEL),
        # keys of upper levels
        (STUDY_ROOT_MOVE, "SERIES", E, STUDY),
        (STUDY_ROOT_MOVE, "IMAGE", S | I, SERIES),
        (PATIENT_ROOT, "STUDY", S, PATIENT),
        (PATIENT_ROOT, "STUDY", S | {"PatientID": "P*"}, PATIENT),
        (STUDY_ROOT_MOVE, "SERIES", E | {"StudyInstanceUID": "1.?"}, STUDY),
        # key of the level itself
        (STUDY_ROOT_MOVE, "STUDY", {}, STUDY),
        (STUDY_ROOT_MOVE, "STUDY", {"StudyInstanceUID": ""}, STUDY),
        (STUDY_ROOT_MOVE, "STUDY", {"StudyInstanceUID": "*"}, STUDY),
        (PATIENT_ROOT, "PATIENT", {}, PATIENT),
        (STUDY_ROOT_MOVE, "IMAGE", S | E, SOP),
        # lists above the level
        (STUDY_ROOT_MOVE, "SERIES", E | {"StudyInstanceUID": ["1.2", "1.3"]}, STUDY),
        (STUDY_ROOT_MOVE, "IMAGE", S | I | {"SeriesInstanceUID": ["1.2", "1.3"]}, SERIES),
        (PATIENT_ROOT, "PATIENT", {"PatientID": ["P1", "P2"]}, PATIENT),
        # the first mistake is the one that is named
        (STUDY_ROOT_MOVE, "IMAGE", {"SeriesInstanceUID": ["1", "2"]}, STUDY),
    ],
)
def test_identifier_is_refused(
    model: str, level: str | None, keys: Mapping[str, object], offending: int
) -> None:
    with pytest.raises(IdentifierError) as caught:
        check_identifier(model, identifier(level, keys), Leniency())
    assert caught.value.offending_tag == offending


@pytest.mark.parametrize(
    ("model", "level", "keys", "expected"),
    [
        (STUDY_ROOT_MOVE, "STUDY", S, RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2",))),
        (
            STUDY_ROOT_MOVE,
            "STUDY",
            {"StudyInstanceUID": ["1.2", "1.3", "1.2"]},
            RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2", "1.3")),
        ),
        (
            STUDY_ROOT_MOVE,
            "STUDY",
            S | P,
            RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2",), patient_id="P1"),
        ),
        (PATIENT_ROOT, "PATIENT", P, RetrieveIdentifier(RetrieveLevel.PATIENT, patient_id="P1")),
        (
            STUDY_ROOT_MOVE,
            "IMAGE",
            S | E | {"SOPInstanceUID": ["1", "2"]},
            RetrieveIdentifier(RetrieveLevel.IMAGE, ("1.2",), ("1.2.3",), ("1", "2")),
        ),
        # keys below the level say nothing
        (STUDY_ROOT_MOVE, "STUDY", S | E | I, RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2",))),
    ],
)
def test_identifier_is_taken(
    model: str, level: str, keys: Mapping[str, object], expected: RetrieveIdentifier
) -> None:
    assert check_identifier(model, identifier(level, keys), Leniency()) == expected


def test_relational_retrieve_needs_the_key_of_the_level_only() -> None:
    found = check_identifier(STUDY_ROOT_MOVE, identifier("IMAGE", I), Leniency(relational=True))
    assert found == RetrieveIdentifier(RetrieveLevel.IMAGE, sop_instance_uids=("1.2.3.4",))
    with pytest.raises(IdentifierError):
        check_identifier(STUDY_ROOT_MOVE, identifier("IMAGE", S), Leniency(relational=True))


UIDS = st.lists(
    st.from_regex(r"[1-9](\.[1-9][0-9]?){1,5}", fullmatch=True), min_size=1, unique=True
)


@given(UIDS, UIDS, UIDS, st.sampled_from(["STUDY", "SERIES", "IMAGE"]))
def test_identifier_survives_its_data_set(
    studies: list[str], series: list[str], sops: list[str], level: str
) -> None:
    depth = ["STUDY", "SERIES", "IMAGE"].index(level)
    lists = [tuple(uids) for uids in (studies, series, sops)[: depth + 1]]
    lists = [uids[:1] for uids in lists[:-1]] + lists[-1:]
    keys = dict(zip(("study", "series", "sop"), lists, strict=False))
    fields = {f"{name}_instance_uids": uids for name, uids in keys.items()}
    made = RetrieveIdentifier(RetrieveLevel(level), **fields)  # type: ignore[arg-type] # no others
    assert check_identifier(STUDY_ROOT_MOVE, identifier_dataset(made), Leniency()) == made


@pytest.mark.parametrize(
    ("counts", "canceled", "status"),
    [
        (SubOperations(0, 0, 0, 0), False, RetrieveStatus.SUCCESS),
        (SubOperations(0, 3, 0, 0), False, RetrieveStatus.SUCCESS),
        (SubOperations(0, 3, 0, 1), False, RetrieveStatus.SOME_FAILED),
        (SubOperations(0, 3, 1, 0), False, RetrieveStatus.SOME_FAILED),
        (SubOperations(0, 0, 1, 1), False, RetrieveStatus.SOME_FAILED),
        (SubOperations(0, 0, 3, 0), False, RetrieveStatus.CANNOT_PERFORM),
        (SubOperations(2, 1, 0, 0), True, RetrieveStatus.CANCELED),
        (SubOperations(0, 3, 0, 0), True, RetrieveStatus.SUCCESS),
    ],
)
def test_final_status(counts: SubOperations, canceled: bool, status: RetrieveStatus) -> None:
    assert final_status(counts, canceled=canceled) == status


def test_what_remains_at_the_end_has_failed() -> None:
    assert SubOperations(2, 3, 1, 1).settled() == SubOperations(0, 3, 3, 1)


@given(st.text())
def test_comment_is_an_lo(text: str) -> None:
    made = comment(text)
    assert len(made) <= 64
    assert made.isascii()
    assert "\\" not in made
    assert made.isprintable()


def test_models_are_those_of_the_standard() -> None:
    assert {uid.rsplit(".", 2)[1] for uid in LEVELS} == {"1", "2", "3"}
