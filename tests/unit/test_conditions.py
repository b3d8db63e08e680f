from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from archive.clock import SYSTEM_CLOCK
from archive.errors import InvalidValueError
from archive.model.conditions import AssociationFacts, Conditions
from archive.model.patterns import compile_pattern

NOW = datetime(2024, 5, 6, 23, 30, tzinfo=UTC)
FACTS = AssociationFacts(calling_aet="CT1", called_aet="DCM4CHEE", calling_host="ct1.local")


def coded(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = "whatever"
    return item


def example() -> Dataset:
    dataset = Dataset()
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName = "Doe^John"
    dataset.PatientID = "37605030299"
    dataset.StudyDate = "20240506"
    dataset.AccessionNumber = ""
    dataset.Rows = 512
    dataset.SliceThickness = "1.50"
    dataset.PixelData = b"\0\0"
    dataset["PixelData"].VR = "OB"
    first, second = Dataset(), Dataset()
    first.ScheduledProcedureStepID = "SPS1"
    second.ScheduledProcedureStepID = "SPS2"
    dataset.RequestAttributesSequence = [first, second]
    dataset.ProcedureCodeSequence = [coded("P1", "99X"), coded("P2", "99X")]
    return dataset


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Modality=CT", True),
        ("Modality=CT|MR", True),
        ("Modality=C", False),
        ("Modality=ct", False),
        ("Modality!=CT", False),
        ("Modality!=MR", True),
        ("00080060=CT", True),
        ("ImageType=PRIMARY", True),
        ("ImageType!=PRIMARY", False),
        ("ImageType[3]=AXIAL", True),
        ("ImageType[1]=AXIAL", False),
        ("ImageType[4]=.*", False),
        ("ImageType[4]!=.*", True),
        ("ImageType[1]!=AXIAL", True),
        ("Rows=512", True),
        ("SliceThickness=1.50", True),
        ("PatientName=Doe.*", True),
        ("AccessionNumber=", True),
        ("AccessionNumber!=", False),
        ("AccessionNumber=.*", False),
        ("AccessionNumber!=.*", True),
        ("StudyID=", True),
        ("StudyID!=", False),
        ("Modality=", False),
        ("Modality!=", True),
        ("PixelData=.*", False),
        ("PixelData!=", True),
        ("StudyDate=§CURRENT_DATE", True),
        ("StudyDate!=§CURRENT_DATE", False),
        ("PatientID=§PATIENT_ID_EST", True),
        ("Modality=§PATIENT_ID_EST", False),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS2", True),
        ("RequestAttributesSequence.ScheduledProcedureStepID!=SPS2", False),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS3", False),
        ("00400275.00400009=SPS1", True),
        ("Modality.ScheduledProcedureStepID=SPS3", False),
        ('ProcedureCodeSequence=(P1,99X,"other words")', True),
        ('ProcedureCodeSequence=(P2,99X,"only the first item counts")', False),
        ('ProcedureCodeSequence=(P9,99X,"x")|(P1, 99X, "y")', True),
        ('ProcedureCodeSequence!=(P1,99X,"x")', False),
        ("ProcedureCodeSequence=P1", False),
        ("SendingApplicationEntityTitle=CT.", True),
        ("SendingApplicationEntityTitle!=CT1", False),
        ("ReceivingApplicationEntityTitle=DCM4CHEE", True),
        ("SendingHostname=ct1\\..*", True),
        ("ReceivingHostname=.*", False),
        ("ReceivingHostname!=.*", True),
        ("ReceivingHostname=", True),
        ("SendingHostname=", False),
        ("SendingHostname!=", True),
    ],
)
def test_one_condition(text: str, *, holds: bool) -> None:
    assert Conditions.parse([text]).match(example(), FACTS, NOW) is holds


def test_all_conditions_have_to_hold() -> None:
    both = Conditions.parse(["Modality=CT", "SendingApplicationEntityTitle=CT2"])
    assert not both.match(example(), FACTS, NOW)


def test_without_conditions_everything_matches() -> None:
    assert Conditions().match(Dataset(), AssociationFacts(), NOW)


def test_of_the_same_key_the_later_value_counts() -> None:
    assert Conditions.parse(["Modality=MR", "Modality=CT"]).match(example(), FACTS, NOW)


def test_a_key_and_its_negation_are_two_conditions() -> None:
    both = Conditions.parse(["Modality=CT", "Modality!=CT"])
    assert not both.match(example(), FACTS, NOW)


@pytest.mark.parametrize("code", ["37605030299", "47101010033", "38001085718", "49403136526"])
def test_estonian_personal_codes(code: str) -> None:
    dataset = Dataset()
    dataset.PatientID = code
    conditions = Conditions.parse(["PatientID=§PATIENT_ID_EST"])
    assert conditions.match(dataset, FACTS, NOW)
    dataset.PatientID = code[:-1] + str((int(code[-1]) + 1) % 10)
    assert not conditions.match(dataset, FACTS, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "Modality",
        "=CT",
        "NoSuchKeyword=1",
        "Modality[0]=CT",
        "Modality[-1]=CT",
        "Modality[x]=CT",
        "Modality=(",
        "RequestAttributesSequence..Modality=1",
        "0008006=CT",
    ],
)
def test_every_bad_value_is_named(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Conditions.parse(["Modality=CT", text, "AlsoWrong=1"])
    assert "AlsoWrong" in str(caught.value)
    assert text.partition("=")[2][:1] in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(a|a)*b", "(aa?)*b", "(?:a*)*b", "((a)*)*b", "(a{1,50}){1,50}b", ".*.*.*.*.*.*.*b"],
)
def test_patterns_that_could_hang_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidValueError, match="repeat"):
        Conditions.parse([f"Modality={pattern}"])


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        ("CT|MR", "MR", "CTMR"),
        ("1\\.2\\.840\\..*", "1.2.840.5", "1.2.8405"),
        ("(?:CT|MR).*", "MR2", "2MR"),
        ("[^+*(]+", "abc", "a+c"),
        ("a{3}", "aaa", "aaaa"),
        ("(ab)+", "abab", "aba"),
        ("\\(.*\\)", "(x)", "x)"),
        ("[]*]+", "]*", "[*"),
        (".+?", "ab", ""),
    ],
)
def test_usual_patterns_are_taken(pattern: str, taken: str, refused: str) -> None:
    compiled = compile_pattern(pattern)
    assert (compiled.matches(taken), compiled.matches(refused)) == (True, False)


@pytest.mark.parametrize(
    "pattern", [".*a.*b", ".*a.*b.*c.*d", "\\w*\\w*\\w*\\w*x", "a*a*a*a*a*a*b"]
)
def test_a_hostile_value_costs_little_time(pattern: str) -> None:
    started = SYSTEM_CLOCK.monotonic()
    compile_pattern(pattern).matches("a" * 10240)
    assert SYSTEM_CLOCK.monotonic() - started < 10


@given(st.text(max_size=30))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        conditions = Conditions.parse([text])
    except InvalidValueError:
        return
    assert conditions.match(example(), FACTS, NOW) in {True, False}
