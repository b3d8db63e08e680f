"""What follows from the counts of an export attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.descriptors import ArchiveDevice
from archive.errors import AssociationRejectedPermanentlyError, DicomqError, PeerUnreachableError
from archive.model.entities import DeliverySummary, InstanceToSend
from archive.model.task import Failure, TaskStatus
from tests.fix_export import DEVICE, local_ae
from workers.contexts import ProposedContext
from workers.export import associations_for, grouped
from workers.tally import Tally, conclude, describe

NOBODY = PeerUnreachableError("cannot connect to STORESCP: connection refused")
REJECTED = AssociationRejectedPermanentlyError("rejected permanently")
W, F, C, X = TaskStatus.WARNING, TaskStatus.FAILED, TaskStatus.COMPLETED, TaskStatus.CANCELED
T, P = Failure.TRANSIENT, Failure.PERMANENT


@pytest.mark.parametrize(
    ("tally", "delivered", "cancelled", "expected"),
    [
        (Tally(completed=3), 3, False, (C, None)),
        (Tally(completed=2, warning=1), 3, False, (C, None)),
        (Tally(), 0, False, (C, None)),
        (Tally(completed=3), 3, True, (C, None)),
        (Tally(completed=2, transient=1), 2, False, (W, T)),
        (Tally(completed=2, permanent=1), 2, False, (W, P)),
        (Tally(completed=2, missing=1), 2, False, (W, P)),
        (Tally(transient=1, permanent=4), 0, False, (F, T)),
        (Tally(permanent=4), 0, False, (F, P)),
        (Tally(permanent=1), 99, False, (W, P)),
        (Tally(remaining=5, stopped_by=NOBODY), 0, False, (F, T)),
        (Tally(remaining=5, stopped_by=NOBODY), 7, False, (W, T)),
        (Tally(remaining=5, stopped_by=REJECTED), 0, False, (F, P)),
        (Tally(completed=1, remaining=5), 1, True, (X, None)),
        (Tally(completed=5, transient=1), 5, True, (W, T)),
    ],
)
def test_conclusion(
    tally: Tally,
    delivered: int,
    cancelled: bool,
    expected: tuple[TaskStatus, Failure | None],
) -> None:
    assert conclude(tally, DeliverySummary(delivered, 0, 0), cancelled=cancelled) == expected


counts = st.integers(0, 3)
errors = st.sampled_from([None, NOBODY, REJECTED])


@given(counts, counts, counts, counts, counts, counts, errors)
def test_completed_means_every_instance_was_acknowledged(
    completed: int,
    warning: int,
    transient: int,
    permanent: int,
    missing: int,
    remaining: int,
    stopped_by: DicomqError | None,
) -> None:
    tally = Tally(completed, warning, transient, permanent, missing, remaining, stopped_by)
    status, failure = conclude(
        tally, DeliverySummary(completed + warning, warning, 0), cancelled=False
    )
    left = transient + permanent + missing + remaining
    assert (status is TaskStatus.COMPLETED) == (left == 0)
    assert (failure is None) == (left == 0)
    if transient:
        assert failure is Failure.TRANSIENT


def test_description() -> None:
    tally = Tally(completed=97, warning=1, transient=2, missing=1, remaining=4, stopped_by=NOBODY)
    tally.reasons["A700 refused: out of resources"] = 2
    text = describe("export of study 1.2 to X", tally, DeliverySummary(100, 1, 2))
    assert text == (
        "export of study 1.2 to X: completed:97 warning:1 failed:2 missing:1 remaining:4 "
        "delivered before:2; 2 × A700 refused: out of resources; "
        "stopped: cannot connect to STORESCP: connection refused"
    )


@pytest.mark.parametrize(
    ("at_ae", "at_device", "expected"),
    [
        ((), (), 1),
        (("3",), (), 3),
        ((), ("4",), 4),
        (("3",), ("4",), 3),
        (("2", "STORESCP:5"), (), 5),
        (("STORESCP:5", "2"), (), 5),
        (("OTHER:7",), ("STORESCP:6",), 6),
        (("OTHER:7", "2"), ("STORESCP:6",), 2),
        (("STORESCP:x", "0"), ("-1",), 1),
    ],
)
def test_associations_per_destination(
    at_ae: tuple[str, ...], at_device: tuple[str, ...], expected: int
) -> None:
    device = ArchiveDevice(DEVICE, {}, {}, {}, {}, multiple_store_associations=at_device)
    local = local_ae(multiple_store_associations=at_ae)
    assert associations_for("STORESCP", local, device) == expected


def test_instances_follow_the_contexts_of_their_class() -> None:
    first = (ProposedContext("1.1", ("1.2.840.10008.1.2",)),)
    second = (ProposedContext("1.2", ("1.2.840.10008.1.2",)),)
    instances = [
        InstanceToSend(pk, 1, sop_class, f"9.{pk}", "8", None, None)
        for pk, sop_class in enumerate(["1.2", "1.1", "1.2"])
    ]
    sorted_out = grouped(instances, (first, second))
    assert [
        (contexts, [each.instance_pk for each in members]) for contexts, members in sorted_out
    ] == [
        (first, [1]),
        (second, [0, 2]),
    ]
