"""Whether something has to be fetched from the fallback archive, and what came of it."""

from dataclasses import replace

import pytest

from archive.model.completeness import (
    FOR_EVER,
    Completeness,
    Holding,
    RefetchPolicy,
    has_to_be_fetched,
    judged,
)
from archive.model.entities import InstanceToSend, StoredFile
from archive.model.retrieval import RetrieveIdentifier, RetrieveLevel
from archive.model.retrieval_plan import (
    ForwardPolicy,
    ForwardReason,
    MatchedInstance,
    plan_retrieve,
)

UNKNOWN, PARTIAL, COMPLETE = Completeness
HERE = Holding("1.2", instances=3, study_date="20190101")
OLD = RefetchPolicy(study_older_than="20200101")


@pytest.mark.parametrize(
    ("holding", "policy", "wanted"),
    [
        (HERE, RefetchPolicy(), False),
        (replace(HERE, instances=0), RefetchPolicy(), True),
        (replace(HERE, instances=0, completeness=COMPLETE), RefetchPolicy(), True),
        (replace(HERE, completeness=UNKNOWN), RefetchPolicy(), True),
        (replace(HERE, completeness=COMPLETE), RefetchPolicy(FOR_EVER), False),
        (replace(HERE, completeness=PARTIAL, failed_retrieves=1), RefetchPolicy(), False),
        (replace(HERE, completeness=PARTIAL, failed_retrieves=2), RefetchPolicy(2), True),
        (replace(HERE, completeness=PARTIAL, failed_retrieves=3), RefetchPolicy(2), False),
        (replace(HERE, completeness=PARTIAL, failed_retrieves=99), RefetchPolicy(FOR_EVER), True),
        (HERE, OLD, True),
        (replace(HERE, study_date="20200101"), OLD, False),
        (replace(HERE, study_date=None), OLD, True),
        (replace(HERE, completeness=COMPLETE), OLD, False),
        (replace(HERE, completeness=COMPLETE, has_grown=True), OLD, True),
        (replace(HERE, completeness=COMPLETE, has_grown=True), RefetchPolicy(), False),
    ],
)
def test_what_has_to_be_fetched(holding: Holding, policy: RefetchPolicy, *, wanted: bool) -> None:
    assert has_to_be_fetched(holding, policy) is wanted


@pytest.mark.parametrize(
    ("expected", "held", "succeeded", "state"),
    [
        (None, 3, True, COMPLETE),
        (None, 3, False, PARTIAL),
        (3, 3, False, COMPLETE),
        (4, 3, True, PARTIAL),
        (2, 3, True, COMPLETE),
    ],
)
def test_what_came_of_it(
    expected: int | None, held: int, state: Completeness, *, succeeded: bool
) -> None:
    assert judged(expected=expected, held=held, succeeded=succeeded) is state


def _match(number: int, *, local: bool = False, external: str | None = None) -> MatchedInstance:
    file = StoredFile("fs1", "x", "1.2.840.10008.1.2.1", 10, 1, "d") if local else None
    instance = InstanceToSend(number, 1, "1.2.9", f"1.2.1.{number}", "1.2.1", "A", file)
    return MatchedInstance(instance, "1.2", external)


STUDY = RetrieveIdentifier(RetrieveLevel.STUDY, ("1.2",))
POLICY = ForwardPolicy(
    "HERE", fallback_c_move_scp="ELSEWHERE", fallback_destination="HERE", fallback_calling_aet="ME"
)


def test_the_fallback_is_asked_for_all_beside_what_is_here() -> None:
    matches = [
        _match(1, local=True),
        _match(2),
        _match(3, external="EXT"),
        _match(4, external="ELSEWHERE"),
    ]
    plan = plan_retrieve(STUDY, matches, POLICY, requester_aet="X", is_incomplete=True)
    assert [each.instance_pk for each in plan.local] == [1]
    assert not plan.unreachable
    external, fallback = plan.forwards
    assert (external.remote_aet, fallback.remote_aet) == ("EXT", "ELSEWHERE")
    assert (fallback.reason, fallback.identifiers) == (ForwardReason.FALLBACK, (STUDY,))
    assert (fallback.through_aet, fallback.calling_aet) == ("HERE", "ME")
    assert [each.instance.instance_pk for each in fallback.expected] == [2, 4]
    assert plan.total == 4


@pytest.mark.parametrize(
    ("policy", "requester", "is_incomplete"),
    [
        (POLICY, "X", False),
        (POLICY, "ELSEWHERE", True),
        (replace(POLICY, fallback_destination=None), "X", True),
        (replace(POLICY, fallback_c_move_scp=None), "X", True),
    ],
)
def test_the_fallback_is_not_asked(
    policy: ForwardPolicy, requester: str, *, is_incomplete: bool
) -> None:
    matches = [_match(1, local=True)]
    plan = plan_retrieve(
        STUDY, matches, policy, requester_aet=requester, is_incomplete=is_incomplete
    )
    assert not plan.forwards
