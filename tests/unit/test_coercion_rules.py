"""Which coercion rules apply, and what each does."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from pydicom import Dataset

from archive.errors import InvalidValueError
from archive.model.coercion import (
    AnswerKind,
    Coerced,
    CoercionFailedError,
    CoercionRule,
    LeadingAnswer,
    Occasion,
    OnFailure,
    Scheme,
    Step,
    UpdatePolicy,
    coerce,
    leading_tags,
    merge,
    original_attributes,
    select_steps,
)
from archive.model.conditions import AssociationFacts, Conditions
from archive.model.merge_attributes import parse_merge_attributes

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NO_ANSWER = LeadingAnswer(AnswerKind.NO_MATCH)


def dataset(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def rule(name: str, *schemes: Scheme, **changes: object) -> CoercionRule:
    steps = tuple(Step(scheme, argument="ARC", rule=name) for scheme in schemes)
    return CoercionRule(name, Occasion.SENT, steps, **changes)  # type: ignore[arg-type]


def selected(*rules: CoercionRule, target: Dataset | None = None) -> list[tuple[str, Scheme]]:
    facts = AssociationFacts("DCM4CHEE", "STORESCP")
    steps = select_steps(rules, Occasion.SENT, target or Dataset(), facts, now=NOW)
    return [(step.rule, step.scheme) for step in steps]


LEGACY = rule("legacy", Scheme.LEADING, Scheme.TRIM, is_legacy=True)
LATER = rule("later", Scheme.MERGE, is_legacy=True, priority=-1)
NEWER = rule("newer", Scheme.MERGE)
FIRST = rule("first", Scheme.TRIM, priority=5)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), []),
        ((LATER, LEGACY), [("legacy", Scheme.LEADING), ("legacy", Scheme.TRIM)]),
        ((NEWER, FIRST), [("first", Scheme.TRIM), ("newer", Scheme.MERGE)]),
        ((NEWER, LEGACY), [("legacy", Scheme.LEADING), ("newer", Scheme.MERGE)]),
        ((NEWER, LATER), [("newer", Scheme.MERGE)]),
        ((rule("x", Scheme.TRIM, sop_classes=("1.2",)),), []),
        ((rule("x", Scheme.TRIM, conditions=Conditions.parse(["PatientID=.+"])),), []),
    ],
)
def test_which_steps_are_taken(
    rules: tuple[CoercionRule, ...], expected: list[tuple[str, Scheme]]
) -> None:
    assert selected(*rules) == expected


def test_rules_of_another_occasion_do_not_apply() -> None:
    received = CoercionRule("x", Occasion.RECEIVED, (Step(Scheme.TRIM),))
    assert selected(received, CoercionRule("y", None, (Step(Scheme.TRIM),))) == []


P = UpdatePolicy


@pytest.mark.parametrize(
    ("policy", "absent", "empty", "different", "leading_empty"),
    [
        (P.SUPPLEMENT, "new", "new", "old", "old"),
        (P.MERGE, "new", "new", "new", "old"),
        (P.OVERWRITE, "new", "new", "new", ""),
        (P.PRESERVE, "", "", "old", "old"),
        (P.REPLACE, "new", "new", "new", ""),
    ],
)
def test_update_policies(
    policy: UpdatePolicy, absent: str, empty: str, different: str, leading_empty: str
) -> None:
    target = dataset(StudyID="", AccessionNumber="old", PatientID="old")
    source = dataset(
        PatientComments="new",
        StudyID="new",
        AccessionNumber="new",
        PatientID="",
        RetrieveAETitle="X",
        SpecificCharacterSet="ISO_IR 192",
    )
    coerced = Coerced(target)
    merge(coerced, source, policy)
    assert target.get("PatientComments") == absent
    assert target.StudyID == empty
    assert target.AccessionNumber == different
    assert (target.PatientID or "") == leading_empty
    assert "RetrieveAETitle" not in target
    assert "SpecificCharacterSet" not in target
    replaced = {"AccessionNumber"} if different == "new" else set()
    replaced |= {"PatientID"} if leading_empty == "" else set()
    assert {element.keyword for element in coerced.originals} == replaced


@pytest.mark.parametrize(
    ("value", "keyword", "expected"),
    [
        ("PatientID=X", "PatientID", "X"),
        ("PatientID=X-{AccessionNumber}-{00080060}", "PatientID", "X-A1-CT"),
        ("PatientID={StudyID}", "PatientID", ""),
        ("00100020=", "PatientID", ""),
        ("PatientID!", "PatientID", None),
        ("Manufacturer!", "Manufacturer", None),
    ],
)
def test_merge_attributes(value: str, keyword: str, expected: str | None) -> None:
    target = dataset(PatientID="P", AccessionNumber="A1", Modality="CT")
    step = Step(Scheme.MERGE, attributes=parse_merge_attributes([value]))
    coerce(target, [step], lambda *_: NO_ANSWER)
    found = target.get(keyword)
    assert (found or "") == expected if expected is not None else found is None


def test_merge_attributes_in_sequences() -> None:
    target = dataset(RequestAttributesSequence=[dataset(RequestedProcedureID="R")])
    values = [
        "RequestAttributesSequence[2].RequestedProcedureID=R2",
        "RequestAttributesSequence.ScheduledProcedureStepID={RequestAttributesSequence.RequestedProcedureID}",
    ]
    step = Step(Scheme.MERGE, attributes=parse_merge_attributes(values))
    coerce(target, [step], lambda *_: NO_ANSWER)
    first, second = target.RequestAttributesSequence
    assert (first.RequestedProcedureID, first.ScheduledProcedureStepID) == ("R", "R")
    assert second.RequestedProcedureID == "R2"


@pytest.mark.parametrize("value", ["PatientID", "=X", "Nobody=X", "PatientID={Nobody}", "a b=X"])
def test_wrong_merge_attributes_are_refused(value: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_merge_attributes([value])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ISO 2022 IR 100", "ISO_IR 100"),
        ("ISO_IR 192", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], ["", "ISO 2022 IR 87"]),
    ],
)
def test_trim_of_character_sets(given: object, expected: object) -> None:
    target = dataset(SpecificCharacterSet=given)
    coerce(target, [Step(Scheme.TRIM)], lambda *_: NO_ANSWER)
    assert target.SpecificCharacterSet == expected


def ask(kind: AnswerKind) -> Callable[[Step, str], LeadingAnswer]:
    return lambda step, study: LeadingAnswer(kind, dataset(PatientID=f"{step.argument} {study}"))


def test_leading_attributes_are_merged() -> None:
    target = dataset(StudyInstanceUID="1.2", PatientID="P")
    coerce(target, [Step(Scheme.LEADING, argument="ARC")], ask(AnswerKind.FOUND))
    assert target.PatientID == "ARC 1.2"


def test_a_data_set_without_study_is_not_asked_about() -> None:
    target = dataset(PatientID="P")
    coerce(target, [Step(Scheme.LEADING, argument="ARC")], ask(AnswerKind.FOUND))
    assert target.PatientID == "P"


@pytest.mark.parametrize(
    ("on_failure", "expected"), [(OnFailure.CONTINUE, "B"), (OnFailure.SUFFICIENT, "P")]
)
def test_what_follows_a_failure(on_failure: OnFailure, expected: str) -> None:
    target = dataset(StudyInstanceUID="1.2", PatientID="P")
    steps = [
        Step(Scheme.LEADING, argument="ARC", on_failure=on_failure),
        Step(Scheme.MERGE, attributes=parse_merge_attributes(["PatientID=B"])),
    ]
    coerce(target, steps, ask(AnswerKind.FAILED))
    assert target.PatientID == expected


def test_a_failure_fails_all_by_default() -> None:
    with pytest.raises(CoercionFailedError):
        coerce(dataset(StudyInstanceUID="1"), [Step(Scheme.LEADING)], ask(AnswerKind.FAILED))


@pytest.mark.parametrize(("kind", "expected"), [(AnswerKind.FOUND, 1), (AnswerKind.NO_MATCH, 2)])
def test_a_sufficient_step_ends_the_chain_when_it_applied(kind: AnswerKind, expected: int) -> None:
    asked = []

    def remember(step: Step, study: str) -> LeadingAnswer:
        asked.append(step.argument)
        return ask(kind)(step, study)

    steps = [Step(Scheme.LEADING, argument=arc, sufficient=True) for arc in ("A", "B")]
    coerce(dataset(StudyInstanceUID="1.2"), steps, remember)
    assert len(asked) == expected


def test_original_attributes_tell_who_changed_what() -> None:
    target = dataset(PatientID="P", PatientName="N")
    step = Step(Scheme.MERGE, attributes=parse_merge_attributes(["PatientID=X"]))
    coerced = coerce(target, [step], lambda *_: NO_ANSWER)
    item = original_attributes(coerced, modifying_system="ARC", source="CT", now=NOW)
    assert (item.ModifyingSystem, item.SourceOfPreviousValues) == ("ARC", "CT")
    assert item.ReasonForTheAttributeModification == "COERCE"
    (modified,) = item.ModifiedAttributesSequence
    assert modified.PatientID == "P"
    assert "PatientName" not in modified


def test_the_set_of_an_archive_goes_before_the_general_one() -> None:
    sets = {"*": (1,), "ARC": (2,)}
    assert leading_tags(sets, "ARC") == (2,)
    assert leading_tags(sets, "OTHER") == (1,)
    assert 0x00100010 in leading_tags({}, "ARC")
