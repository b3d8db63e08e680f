import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.model.entities import InstanceToSend, StoredFile
from archive.model.retrieval import RetrieveIdentifier, RetrieveLevel
from archive.model.retrieval_plan import (
    Forward,
    ForwardPolicy,
    ForwardReason,
    MatchedInstance,
    narrowed,
    plan_retrieve,
)

FILE = StoredFile("fs1", "a", "1.2.840.10008.1.2", 10, 1, "x")
STUDY = RetrieveIdentifier(RetrieveLevel.STUDY, ("1",))
FULL = ForwardPolicy(
    external_destination="HERE",
    alt_c_move_scp="ALT",
    fallback_c_move_scp="FALL",
    fallback_destination="BACK",
    fallback_calling_aet="AS",
)


def match(
    number: int,
    holder: str | None = None,
    *,
    here: bool = False,
    elsewhere: bool = False,
    series: str = "1.1",
    study: str = "1",
) -> MatchedInstance:
    instance = InstanceToSend(
        number, 1, "1.2.3", f"{series}.{number}", series, None, FILE if here else None
    )
    return MatchedInstance(instance, study, holder, is_elsewhere=elsewhere)


def summary(forward: Forward) -> tuple[str, ForwardReason, str | None, int]:
    return forward.remote_aet, forward.reason, forward.through_aet, len(forward.expected)


@pytest.mark.parametrize(
    ("matches", "policy", "forwards", "local", "unreachable"),
    [
        ([], ForwardPolicy(), [], 0, 0),
        ([], ForwardPolicy(external_destination="HERE"), [], 0, 0),
        ([], FULL, [("FALL", ForwardReason.FALLBACK, "BACK", 0)], 0, 0),
        ([match(1, here=True)], FULL, [], 1, 0),
        ([match(1, "EXT", here=True)], FULL, [], 1, 0),
        ([match(1, "EXT")], FULL, [("EXT", ForwardReason.EXTERNAL, "HERE", 1)], 0, 0),
        ([match(1, "EXT")], ForwardPolicy(), [("EXT", ForwardReason.EXTERNAL, None, 1)], 0, 0),
        ([match(1)], FULL, [("ALT", ForwardReason.ALTERNATIVE, None, 1)], 0, 0),
        ([match(1)], ForwardPolicy(), [], 0, 1),
        (
            [match(1, "EXT", elsewhere=True)],
            FULL,
            [("ALT", ForwardReason.ALTERNATIVE, None, 1)],
            0,
            0,
        ),
        (
            [match(1, here=True), match(2, "EXT"), match(3, "LTA"), match(4, "EXT")],
            FULL,
            [
                ("EXT", ForwardReason.EXTERNAL, "HERE", 2),
                ("LTA", ForwardReason.EXTERNAL, "HERE", 1),
            ],
            1,
            0,
        ),
        # who asks is never asked back
        ([match(1, "ASKER"), match(2, here=True)], FULL, [], 1, 1),
        ([match(1), match(2, here=True)], ForwardPolicy(alt_c_move_scp="ASKER"), [], 1, 0),
        ([], ForwardPolicy(fallback_c_move_scp="ASKER"), [], 0, 0),
    ],
)
def test_plan(
    matches: list[MatchedInstance],
    policy: ForwardPolicy,
    forwards: list[tuple[str, ForwardReason, str | None, int]],
    local: int,
    unreachable: int,
) -> None:
    plan = plan_retrieve(STUDY, matches, policy, requester_aet="ASKER")
    assert [summary(each) for each in plan.forwards] == forwards
    assert (len(plan.local), len(plan.unreachable)) == (local, unreachable)


def test_fallback_carries_the_original_identifier_and_calling_title() -> None:
    (forward,) = plan_retrieve(STUDY, [], FULL, requester_aet="A").forwards
    assert (forward.identifiers, forward.calling_aet) == ((STUDY,), "AS")


def test_asked_for_as_a_whole_where_possible() -> None:
    first = [match(n, "EXT", series="1.1") for n in (1, 2)]
    second = [match(n, "EXT" if n == 3 else None, here=n != 3, series="1.2") for n in (3, 4)]
    matches = [*first, *second]
    group = [each for each in matches if each.instance.file is None]
    assert narrowed(STUDY, group, matches) == (
        RetrieveIdentifier(RetrieveLevel.SERIES, ("1",), ("1.1",)),
        RetrieveIdentifier(RetrieveLevel.IMAGE, ("1",), ("1.2",), ("1.2.3",)),
    )
    assert narrowed(STUDY, matches, matches) == (STUDY,)


instances = st.lists(
    st.tuples(st.sampled_from("123"), st.sampled_from("12"), st.booleans()),
    min_size=1,
    max_size=30,
)


@given(instances, st.sampled_from([RetrieveLevel.PATIENT, RetrieveLevel.STUDY]))
def test_exactly_what_is_missing_is_asked_for(
    drawn: list[tuple[str, str, bool]], level: RetrieveLevel
) -> None:
    matches = [
        match(n, "EXT", here=here, study=study, series=f"{study}.{series}")
        for n, (study, series, here) in enumerate(drawn)
    ]
    group = [each for each in matches if each.instance.file is None]
    whole = RetrieveIdentifier(level, ("1", "2", "3"), patient_id="P")
    asked = [_covered(each, matches) for each in narrowed(whole, group, matches)]
    found = [uid for uids in asked for uid in uids]
    assert sorted(found) == sorted(each.instance.sop_instance_uid for each in group)


def _covered(identifier: RetrieveIdentifier, matches: list[MatchedInstance]) -> list[str]:
    return [
        each.instance.sop_instance_uid
        for each in matches
        if identifier.level is RetrieveLevel.PATIENT
        or (
            each.study_instance_uid in identifier.study_instance_uids
            and each.instance.series_instance_uid
            in (identifier.series_instance_uids or (each.instance.series_instance_uid,))
            and each.instance.sop_instance_uid
            in (identifier.sop_instance_uids or (each.instance.sop_instance_uid,))
        )
    ]
