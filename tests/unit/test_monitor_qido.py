"""Conditions in an address: what they mean, and that none is ever lost on the way to an order."""

import pytest

from archive.errors import InvalidValueError
from archive.model.query import AnyBelow, AnyLike, AnyOf, Between, JsonMatch, Level, NameLike
from archive.model.query_key import Key
from tests.fix_objects import secondary_capture
from workers.monitor.qido import (
    conditions,
    entity_of_match,
    identifier,
    index_query,
    is_unique,
    level_of,
)
from workers.monitor.rest_retrieves import split
from workers.ordering import Entity

STUDY, SERIES, IMAGE = Level.STUDY, Level.SERIES, Level.IMAGE


@pytest.mark.parametrize(
    ("name", "value", "level", "kind"),
    [
        ("PatientName", "DOE^J*", STUDY, NameLike),
        ("00100020", "4711", STUDY, AnyOf),
        ("StudyDate", "20260101-", STUDY, Between),
        ("ModalitiesInStudy", "CT", STUDY, AnyBelow),
        ("StudyDescription", "*knee*", STUDY, AnyLike),
        ("Modality", "CT", SERIES, AnyOf),
        ("InstitutionName", "Spital", SERIES, JsonMatch),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "S1", SERIES, JsonMatch),
        ("SOPClassUID", "1.2.3,1.2.4", IMAGE, AnyOf),
        ("PatientID", "4711", IMAGE, AnyOf),
    ],
)
def test_conditions_reach_the_index(name: str, value: str, level: Level, kind: type) -> None:
    query = index_query(conditions({name: [value]}), level)

    assert [type(each) for each in query.criteria] == [kind]


@pytest.mark.parametrize(
    ("name", "value", "level", "words"),
    [
        ("PatinetID", "1", STUDY, "'PatinetID' is neither a parameter"),
        ("incomplete", "true", STUDY, "is neither a parameter"),
        ("PatientID", " ", STUDY, "would mean everything"),
        ("StudyInstanceUID", "1.x", STUDY, "StudyInstanceUID"),
        ("StudyDate", "2026-11-21", STUDY, "no date or range"),
        ("PatientID", "a\x00b", STUDY, "cannot be printed"),
        ("Modality", "CT", STUDY, "does not match Modality at STUDY level"),
        ("KVP", "120", IMAGE, "does not match KVP"),
        ("NumberOfStudyRelatedSeries", "3", STUDY, "does not match"),
        ("RequestAttributesSequence", "x", SERIES, "write a sequence as"),
        ("PatientID.Modality", "x", SERIES, "write a sequence as"),
    ],
)
def test_what_cannot_be_kept_is_refused(name: str, value: str, level: Level, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        index_query(conditions({name: [value]}), level)


def test_keys_of_one_sequence_hold_together() -> None:
    sequence = "RequestAttributesSequence"
    keys = conditions(
        {f"{sequence}.RequestedProcedureID": ["R"], f"{sequence}.ScheduledProcedureStepID": ["S"]}
    )

    assert [(key.tag, len(key.items or ())) for key in keys] == [(0x00400275, 2)]


def test_unique_keys() -> None:
    study = conditions({"StudyInstanceUID": ["1.2"]})

    assert is_unique(study, level_of("study"))
    assert not is_unique(study, level_of("series"))


def test_identifier_of_a_query_to_another_archive() -> None:
    keys = conditions({"StudyInstanceUID": ["1.2"], "Modality": ["CT"], "PatientName": ["Müller*"]})
    asked = identifier(keys, level_of("series"))

    assert (asked.QueryRetrieveLevel, asked.StudyInstanceUID) == ("SERIES", "1.2")
    assert (asked.Modality, str(asked.PatientName)) == ("CT", "Müller*")
    assert asked.SeriesInstanceUID is None or not asked.SeriesInstanceUID
    assert "SOPInstanceUID" not in asked
    match = secondary_capture("1.2", 1, 3)
    series, image = match.SeriesInstanceUID, match.SOPInstanceUID
    assert entity_of_match(match, STUDY) == Entity("1.2")
    assert entity_of_match(match, SERIES) == Entity("1.2", series)
    assert entity_of_match(match, IMAGE) == Entity("1.2", series, image)
    del match.StudyInstanceUID
    with pytest.raises(InvalidValueError):
        entity_of_match(match, STUDY)


def test_split_of_a_range_of_dates() -> None:
    keys = conditions({"StudyDate": ["20260227-20260303"], "PatientID": ["4711"]})
    dates = [
        next(key.values[0] for key in part if key.tag == 0x00080020) for part in split(keys, "P2D")
    ]

    assert dates == ["20260227-20260228", "20260301-20260302", "20260303-20260303"]
    assert all(Key(0x00100020, "LO", ("4711",)) in part for part in split(keys, "P2D"))
    assert list(split(keys, None)) == [keys]


@pytest.mark.parametrize(
    ("date", "length"),
    [("20260101", "P1D"), ("20260101-", "P1D"), ("19000101-20261231", "P1D"), ("-20260101", "P1D")],
)
def test_ranges_that_cannot_be_split(date: str, length: str) -> None:
    with pytest.raises(InvalidValueError):
        list(split(conditions({"StudyDate": [date]}), length))
