"""Which presentation contexts are proposed, and in which one an object is sent."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.descriptors import NetworkAE, TransferCapability, TransferRole
from tests.fix_export import local_ae, remote_ae
from workers.contexts import (
    EXPLICIT_VR_LE,
    IMPLICIT_VR_LE,
    MAX_PRESENTATION_CONTEXTS,
    choose,
    is_video,
    plan_contexts,
    scu_syntaxes,
)

CT, MR, VIDEO = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1",
)
J2K, JPEG, MPEG4 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.102"
NATIVE = [EXPLICIT_VR_LE, IMPLICIT_VR_LE]


def _scp(sop_class: str, *syntaxes: str, preferred: tuple[str, ...] = ()) -> TransferCapability:
    return TransferCapability(sop_class, TransferRole.SCP, syntaxes, preferred)


def _remote(*capabilities: TransferCapability) -> NetworkAE:
    return remote_ae("STORESCP", 104, transfer_capabilities=capabilities)


@pytest.mark.parametrize(
    ("stored", "capabilities", "proposed"),
    [
        ([(CT, EXPLICIT_VR_LE)], (), [(CT, EXPLICIT_VR_LE), (CT, IMPLICIT_VR_LE)]),
        ([(CT, J2K)], (), [(CT, J2K), (CT, EXPLICIT_VR_LE), (CT, IMPLICIT_VR_LE)]),
        ([(VIDEO, MPEG4)], (), [(VIDEO, MPEG4)]),
        (
            [(VIDEO, MPEG4), (VIDEO, JPEG)],
            (),
            [(VIDEO, MPEG4), (VIDEO, JPEG), (VIDEO, EXPLICIT_VR_LE), (VIDEO, IMPLICIT_VR_LE)],
        ),
        ([(CT, J2K)], (_scp(CT, IMPLICIT_VR_LE),), [(CT, IMPLICIT_VR_LE)]),
        ([(CT, J2K)], (_scp("*", J2K),), [(CT, J2K)]),
        ([(CT, J2K)], (_scp(CT, "*"),), [(CT, J2K), (CT, EXPLICIT_VR_LE), (CT, IMPLICIT_VR_LE)]),
        ([(CT, J2K), (MR, J2K)], (_scp(MR, J2K),), [(MR, J2K)]),
        ([(VIDEO, MPEG4)], (_scp(VIDEO, EXPLICIT_VR_LE),), []),
    ],
)
def test_proposals(
    stored: list[tuple[str, str]],
    capabilities: tuple[TransferCapability, ...],
    proposed: list[tuple[str, str]],
) -> None:
    plan = plan_contexts(stored, local_ae(), _remote(*capabilities))
    flat = [
        (context.sop_class_uid, syntax)
        for group in plan.groups
        for context in group
        for syntax in context.transfer_syntax_uids
    ]
    assert flat == proposed
    left_out = {pair for pair in stored if pair[0] not in {each[0] for each in proposed}}
    assert set(plan.excluded) >= left_out


def test_native_syntaxes_are_those_of_the_local_capability() -> None:
    only_implicit = TransferCapability("*", TransferRole.SCU, (IMPLICIT_VR_LE,))
    local = local_ae(transfer_capabilities=(only_implicit,))
    plan = plan_contexts([(CT, J2K)], local, _remote())
    assert [context.transfer_syntax_uids for context in plan.groups[0]] == [
        (J2K,),
        (IMPLICIT_VR_LE,),
    ]


def test_class_without_local_capability_is_excluded_with_the_entry_to_change() -> None:
    only_ct = TransferCapability(CT, TransferRole.SCU, (IMPLICIT_VR_LE,))
    local = local_ae(transfer_capabilities=(only_ct,), dn="dicomAETitle=DCM4CHEE,dc=x")
    plan = plan_contexts([(CT, IMPLICIT_VR_LE), (MR, IMPLICIT_VR_LE)], local, _remote())
    ((pair, reason),) = plan.excluded.items()
    assert pair == (MR, IMPLICIT_VR_LE)
    assert "dicomAETitle=DCM4CHEE,dc=x" in reason


def test_video_is_excluded_when_only_its_native_neighbour_can_be_sent() -> None:
    plan = plan_contexts(
        [(VIDEO, MPEG4), (VIDEO, JPEG)], local_ae(), _remote(_scp("*", EXPLICIT_VR_LE))
    )
    assert list(plan.excluded) == [(VIDEO, MPEG4)]


@pytest.mark.parametrize(
    ("stored", "accepted", "preferred", "chosen"),
    [
        (J2K, [J2K, *NATIVE], (), J2K),
        (J2K, NATIVE, (), EXPLICIT_VR_LE),
        (J2K, [IMPLICIT_VR_LE], (), IMPLICIT_VR_LE),
        (J2K, [JPEG], (), None),
        (J2K, [J2K, *NATIVE], (IMPLICIT_VR_LE,), IMPLICIT_VR_LE),
        (J2K, [J2K, *NATIVE], (JPEG,), J2K),
        (IMPLICIT_VR_LE, NATIVE, (), IMPLICIT_VR_LE),
        (MPEG4, NATIVE, (), None),
        (MPEG4, [MPEG4], (), MPEG4),
        (CT, [], (), None),
    ],
)
def test_choice(
    stored: str, accepted: list[str], preferred: tuple[str, ...], chosen: str | None
) -> None:
    assert choose(stored, accepted, preferred) == chosen


@pytest.mark.parametrize(
    ("syntax", "expected"),
    [
        ("1.2.840.10008.1.2.4.100", True),
        ("1.2.840.10008.1.2.4.100.1", True),
        ("1.2.840.10008.1.2.4.108", True),
        ("1.2.840.10008.1.2.4.10", False),
        ("1.2.840.10008.1.2.4.110", False),
        (J2K, False),
    ],
)
def test_video(syntax: str, expected: bool) -> None:
    assert is_video(syntax) is expected


pairs = st.lists(
    st.tuples(
        st.integers(1, 200).map("1.2.840.10008.5.1.4.1.1.{}".format),
        st.integers(50, 93).map("1.2.840.10008.1.2.4.{}".format),
    ),
    max_size=400,
)


@given(pairs)
def test_groups_fit_an_association_and_cover_every_class_once(
    stored: list[tuple[str, str]],
) -> None:
    plan = plan_contexts(stored, local_ae(), _remote())
    assert not plan.excluded
    home: dict[str, int] = {}
    for index, group in enumerate(plan.groups):
        assert 0 < len(group) <= MAX_PRESENTATION_CONTEXTS
        for context in group:
            assert home.setdefault(context.sop_class_uid, index) == index
    proposed = {
        (context.sop_class_uid, *context.transfer_syntax_uids)
        for group in plan.groups
        for context in group
    }
    assert proposed >= set(stored)


def test_syntaxes_of_the_local_capability() -> None:
    capability = TransferCapability(CT, TransferRole.SCU, ("*", IMPLICIT_VR_LE))
    local = dataclasses.replace(local_ae(), transfer_capabilities=(capability,))
    assert scu_syntaxes(local, CT) == (IMPLICIT_VR_LE,)
    assert scu_syntaxes(local, MR) == ()
