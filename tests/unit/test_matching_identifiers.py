"""From identifiers of queries to what is asked of the index."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from archive.model.query import (
    ATTRIBUTES,
    AnyBelow,
    AnyLike,
    AnyNumber,
    AnyOf,
    Between,
    Computed,
    Criterion,
    JsonMatch,
    Level,
    MomentBetween,
    NameLike,
)
from archive.model.wildcards import like_pattern
from scp.matching import MODELS, FindStatus, RefusedQueryError, Terms, plan_find

PATIENT_ROOT, STUDY_ROOT, PATIENT_STUDY_ONLY = MODELS
STUDY = "1.2.3"
NAME, DATE, TIME = ATTRIBUTES[0x00100010], ATTRIBUTES[0x00080020], ATTRIBUTES[0x00080030]
ACCESSION, DESCRIPTION = ATTRIBUTES[0x00080050], ATTRIBUTES[0x00081030]
PATIENT_ID, UID = ATTRIBUTES[0x00100020], ATTRIBUTES[0x0020000D]
NUMBER = ATTRIBUTES[0x00200011]


def identifier(level: str | None = "STUDY", **keys: object) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    if level is not None:
        dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


RELATIONAL = Terms(relational=True)


def criteria(
    keys: dict[str, object], level: str = "STUDY", terms: Terms = RELATIONAL
) -> list[Criterion]:
    return list(plan_find(identifier(level, **keys), PATIENT_ROOT, terms).query.criteria)


@pytest.mark.parametrize(
    ("model", "level", "keys", "offending"),
    [
        (STUDY_ROOT, None, {}, 0x00080052),
        (STUDY_ROOT, "", {}, 0x00080052),
        (STUDY_ROOT, "FRAME", {}, 0x00080052),
        (STUDY_ROOT, "PATIENT", {}, 0x00080052),
        (STUDY_ROOT, ["STUDY", "SERIES"], {}, 0x00080052),
        (PATIENT_STUDY_ONLY, "SERIES", {}, 0x00080052),
        (PATIENT_ROOT, "STUDY", {}, 0x00100020),
        (PATIENT_ROOT, "STUDY", {"PatientID": ""}, 0x00100020),
        (PATIENT_ROOT, "STUDY", {"PatientID": "A*"}, 0x00100020),
        (STUDY_ROOT, "SERIES", {}, 0x0020000D),
        (STUDY_ROOT, "SERIES", {"StudyInstanceUID": ["1.2", "1.3"]}, 0x0020000D),
        (STUDY_ROOT, "IMAGE", {"StudyInstanceUID": STUDY}, 0x0020000E),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    model: str, level: str | None, keys: dict[str, object], offending: int
) -> None:
    with pytest.raises(RefusedQueryError) as refused:
        plan_find(identifier(level, **keys), model, Terms())
    assert refused.value.status is FindStatus.IDENTIFIER_MISMATCH
    assert refused.value.offending == (offending,)


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        (STUDY_ROOT, "STUDY", {}),
        (STUDY_ROOT, "study", {}),
        (STUDY_ROOT, "IMAGE", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "1.4"}),
        (PATIENT_ROOT, "PATIENT", {}),
        (PATIENT_STUDY_ONLY, "STUDY", {"PatientID": "P"}),
    ],
)
def test_what_fits_is_planned(model: str, level: str, keys: dict[str, object]) -> None:
    plan = plan_find(identifier(level, **keys), model, Terms())
    assert plan.level is Level(level.upper())


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"StudyInstanceUID": STUDY}, AnyOf(UID, (STUDY,))),
        ({"StudyInstanceUID": ["1.2", "1.3"]}, AnyOf(UID, ("1.2", "1.3"))),
        ({"PatientID": "P1"}, AnyOf(PATIENT_ID, ("P1",))),
        ({"PatientID": "P_1*"}, AnyLike(PATIENT_ID, ("P\\_1%",))),
        ({"AccessionNumber": ["A", "B?"]}, AnyLike(ACCESSION, ("A", "B_"))),
        ({"StudyDescription": "Chest CT"}, AnyLike(DESCRIPTION, ("chest ct",), folded=True)),
        ({"StudyDate": "20250101"}, Between(DATE, "20250101", "20250101")),
        ({"StudyDate": "20250101-"}, Between(DATE, "20250101", "")),
        ({"StudyDate": "-20250101"}, Between(DATE, "", "20250101")),
        ({"StudyDate": "2025.01.01-2025.02.01"}, Between(DATE, "20250101", "20250201")),
        ({"StudyTime": "10"}, Between(TIME, "10", "10~")),
        ({"StudyTime": "100000-12"}, Between(TIME, "10", "12~")),
        ({"StudyTime": "103000.000-"}, Between(TIME, "1030", "")),
        ({"PatientName": "Doe"}, NameLike(NAME, (("doe", "doe^%"),), any_group=True)),
        ({"PatientName": "DOE^J*"}, NameLike(NAME, (("doe^j%",),), any_group=True)),
        ({"PatientName": "Doe^*"}, NameLike(NAME, (("doe", "doe^%"),), any_group=True)),
        ({"PatientName": "*^Jane"}, NameLike(NAME, (("%^jane", "%^jane^%"),), any_group=True)),
        (
            {"PatientName": "Yamada=山田"},
            NameLike(NAME, (("yamada", "yamada^%"), ("山田", "山田^%")), any_group=False),
        ),
        ({"ModalitiesInStudy": ["CT", "M?"]}, AnyBelow(Computed.MODALITIES, ("CT", "M_"))),
    ],
)
def test_keys_become_criteria(keys: dict[str, object], expected: Criterion) -> None:
    assert criteria(keys) == [expected]


@pytest.mark.parametrize(
    "keys",
    [
        {"StudyInstanceUID": ""},
        {"StudyInstanceUID": "*"},
        {"PatientName": "*"},
        {"PatientName": "^^"},
        {"StudyDate": "-"},
        {"SeriesInstanceUID": "1.2"},
        {"NumberOfStudyRelatedInstances": "3"},
        {"RetrieveAETitle": "X"},
        {"ProcedureCodeSequence": []},
        {"ProcedureCodeSequence": [Dataset()]},
        {"Rows": 3},
    ],
)
def test_universal_keys_and_those_below_the_level_demand_nothing(keys: dict[str, object]) -> None:
    assert criteria(keys) == []


def test_numbers_are_compared_as_numbers() -> None:
    assert criteria({"SeriesNumber": "3"}, "SERIES") == [AnyNumber(NUMBER, (3,))]
    raw = identifier("SERIES")
    raw[0x00200011] = RawDataElement(BaseTag(0x00200011), "IS", 4, b"abc ", 0, False, True)
    assert plan_find(raw, PATIENT_ROOT, Terms(relational=True)).query.criteria == ()


def test_dates_and_times_are_combined_when_negotiated() -> None:
    keys: dict[str, object] = {"StudyDate": "20250101-20250102", "StudyTime": "10-12"}
    moment = MomentBetween(DATE, TIME, ("20250101", "10"), ("20250102", "12~"))
    assert criteria(keys, terms=Terms(relational=True, combined=True)) == [moment]
    assert len(criteria(keys)) == 2


def test_sequences_are_matched_by_one_item() -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = 'X"1', "99*"
    (match,) = criteria({"ProcedureCodeSequence": [item]})
    assert match == JsonMatch(
        Level.STUDY,
        '$."00081032".Value[*] ? ((@."00080100".Value[*] == "X\\"1") && '
        '(@."00080102".Value[*] like_regex "^99.*$" flag "i"))',
    )


def test_private_keys_of_group_7777_are_not_repeated() -> None:
    asked = identifier(StudyID="")
    asked.add_new(0x77770010, "LO", "X")
    plan = plan_find(asked, STUDY_ROOT, Terms())
    assert [key.tag for key in plan.keys] == [0x00200010]


def test_the_limit_holds_without_a_unique_key_only() -> None:
    terms = Terms(limit=5)
    assert plan_find(identifier(), STUDY_ROOT, terms).query.limit == 5
    assert plan_find(identifier(StudyInstanceUID=STUDY), STUDY_ROOT, terms).query.limit == 0


@pytest.mark.parametrize(
    ("value", "pattern"),
    [("A*", "A%"), ("A?", "A_"), ("50%", "50\\%"), ("a_b", "a\\_b"), ("\\*", "\\\\%"), ("", "")],
)
def test_only_stars_and_question_marks_are_wildcards(value: str, pattern: str) -> None:
    assert like_pattern(value) == pattern


@given(st.binary(max_size=60), st.sampled_from(sorted(ATTRIBUTES)))
def test_whatever_a_key_holds_it_is_planned_or_refused(value: bytes, tag: int) -> None:
    asked = identifier("IMAGE")
    vr = ATTRIBUTES[tag].vr
    if vr == "SQ":
        return
    asked[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
    plan = plan_find(asked, PATIENT_ROOT, Terms(relational=True, combined=True))
    assert json.dumps([str(each) for each in plan.query.criteria])
