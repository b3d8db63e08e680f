"""The ladder of commitments, failure reasons, properties of exporters, data sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from archive.errors import InvalidValueError
from archive.model.commitment import (
    CommitmentPolicy,
    EventType,
    FailureReason,
    OpenInstance,
    Report,
    ReportedInstance,
    Rung,
    Step,
    escalation,
    next_step,
    read_report,
    read_request,
    reason_words,
    reasons_text,
    report_dataset,
)

R = FailureReason
LADDER = [
    # reason, asked, asked again, resent
    (None, Step.ASK_AGAIN, Step.RESEND, Step.GIVE_UP),
    (R.PROCESSING_FAILURE, Step.ASK_AGAIN, Step.RESEND, Step.GIVE_UP),
    (R.RESOURCE_LIMITATION, Step.ASK_AGAIN, Step.RESEND, Step.GIVE_UP),
    (R.DUPLICATE_TRANSACTION_UID, Step.ASK_AGAIN, Step.RESEND, Step.GIVE_UP),
    (R.NO_SUCH_OBJECT_INSTANCE, Step.RESEND, Step.RESEND, Step.GIVE_UP),
    (R.CLASS_INSTANCE_CONFLICT, Step.GIVE_UP, Step.GIVE_UP, Step.GIVE_UP),
    (R.REFERENCED_SOP_CLASS_NOT_SUPPORTED, Step.GIVE_UP, Step.GIVE_UP, Step.GIVE_UP),
    (0xC001, Step.ASK_AGAIN, Step.RESEND, Step.GIVE_UP),
]


@pytest.mark.parametrize(("reason", "asked", "again", "resent"), LADDER)
def test_ladder(reason: int | None, asked: Step, again: Step, resent: Step) -> None:
    steps = [next_step(rung, reason, can_resend=True) for rung in Rung]
    assert steps == [asked, again, resent]


@pytest.mark.parametrize("rung", Rung)
@pytest.mark.parametrize("reason", [None, *FailureReason])
def test_what_cannot_be_sent_again_is_given_up(rung: Rung, reason: int | None) -> None:
    can, cannot = (next_step(rung, reason, can_resend=flag) for flag in (True, False))
    assert cannot is (Step.GIVE_UP if can is Step.RESEND else can)


@given(st.integers(1, 3), st.lists(st.sampled_from([None, *FailureReason]), max_size=20))
def test_every_instance_gets_one_step(rung: int, reasons: list[int | None]) -> None:
    instances = [OpenInstance(pk, str(pk), reason) for pk, reason in enumerate(reasons)]
    steps = escalation(rung, instances, can_resend=True)
    assert sorted(each.instance_pk for group in steps.values() for each in group) == list(
        range(len(reasons))
    )


def test_words_of_reasons() -> None:
    assert reason_words(None) == "not reported"
    assert reason_words(0x0112) == "0112 no such object instance"
    assert reason_words(0xC001) == "C001 reason not defined by the standard"
    instances = [
        OpenInstance(1, "1", None),
        OpenInstance(2, "2", 0x0110),
        OpenInstance(3, "3", None),
    ]
    assert reasons_text(instances) == "0110 processing failure: 1, not reported: 2"


def test_defaults_of_the_policy() -> None:
    policy = CommitmentPolicy.parse([("Other", "x")])
    assert (policy.deadline_s, policy.max_instances, policy.linger_s) == (3600.0, 10_000, 1.0)
    assert not policy.ian_after_commitment


def test_policy_as_written() -> None:
    policy = CommitmentPolicy.parse(
        [
            ("StgCmtDeadline", "PT10M"),
            ("StgCmtMaxInstances", "500"),
            ("StgCmtSameAssociation", "PT0S"),
            ("IANAfter", "Commitment"),
        ]
    )
    assert policy == CommitmentPolicy(600.0, 500, 0.0, ian_after_commitment=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StgCmtDeadline", "an hour"),
        ("StgCmtMaxInstances", "0"),
        ("StgCmtMaxInstances", "many"),
        ("StgCmtSameAssociation", "1"),
        ("IANAfter", "lunch"),
    ],
)
def test_a_wrong_property_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{name}={value}"):
        CommitmentPolicy.parse([(name, value)])


def test_retrieve_aet_stands_once_when_it_is_common() -> None:
    same = Report("1.2", (ReportedInstance("1.3", "1.4", None, "A"),) * 2)
    assert report_dataset(same).RetrieveAETitle == "A"
    two = (ReportedInstance("1.3", "1.4", None, "A"), ReportedInstance("1.3", "1.5", None, "B"))
    dataset = report_dataset(Report("1.2", two))
    assert "RetrieveAETitle" not in dataset
    assert [each.RetrieveAETitle for each in dataset.ReferencedSOPSequence] == ["A", "B"]


@pytest.mark.parametrize(
    ("reasons", "event_type"),
    [([None, None], EventType.ALL_COMMITTED), ([None, 0x0110], EventType.FAILURES_EXIST)],
)
def test_event_type(reasons: list[int | None], event_type: EventType) -> None:
    report = Report("1.2", tuple(ReportedInstance("1.3", "1.4", reason) for reason in reasons))
    assert report.event_type is event_type


def test_a_failure_without_reason_and_one_named_twice() -> None:
    dataset = report_dataset(Report("1.2", (ReportedInstance("1.3", "1.4"),)))
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.4"
    dataset.FailedSOPSequence = [item]
    (found,) = read_report(dataset).instances
    assert found.failure_reason == FailureReason.PROCESSING_FAILURE


def test_nothing_to_commit_is_refused() -> None:
    dataset = Dataset()
    dataset.TransactionUID = "1.2"
    with pytest.raises(InvalidValueError, match="0008,1199"):
        read_request(dataset)
