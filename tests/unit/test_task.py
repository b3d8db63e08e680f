"""Every cell of the transition table, and the sets derived from it."""

import pytest

from archive.errors import IllegalTransitionError
from archive.model.task import (
    FINAL_STATUSES,
    TRANSITIONS,
    WAITING_STATUSES,
    TaskEvent,
    TaskStatus,
    next_status,
)

S = TaskStatus
E = TaskEvent

LEGAL = {
    (S.SCHEDULED, E.CLAIM): S.IN_PROCESS,
    (S.SCHEDULED, E.CANCEL): S.CANCELED,
    (S.SCHEDULED, E.RESCHEDULE): S.SCHEDULED,
    (S.SCHEDULED_FOR_RETRY, E.CLAIM): S.IN_PROCESS,
    (S.SCHEDULED_FOR_RETRY, E.CANCEL): S.CANCELED,
    (S.SCHEDULED_FOR_RETRY, E.RESCHEDULE): S.SCHEDULED,
    (S.IN_PROCESS, E.COMPLETE): S.COMPLETED,
    (S.IN_PROCESS, E.WARN): S.WARNING,
    (S.IN_PROCESS, E.FAIL): S.FAILED,
    (S.IN_PROCESS, E.RETRY): S.SCHEDULED_FOR_RETRY,
    (S.IN_PROCESS, E.RELEASE): S.SCHEDULED_FOR_RETRY,
    (S.IN_PROCESS, E.CANCEL): S.CANCELED,
    (S.COMPLETED, E.RESCHEDULE): S.SCHEDULED,
    (S.WARNING, E.RESCHEDULE): S.SCHEDULED,
    (S.FAILED, E.RESCHEDULE): S.SCHEDULED,
    (S.CANCELED, E.RESCHEDULE): S.SCHEDULED,
}


@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("event", E)
def test_each_cell(status: TaskStatus, event: TaskEvent) -> None:
    """A legal event leads to its status; an illegal one is an error that says what is wrong."""
    expected = LEGAL.get((status, event))
    if expected is not None:
        assert next_status(status, event) is expected
        return
    with pytest.raises(IllegalTransitionError, match=f"a task that is {status} cannot {event}"):
        next_status(status, event)


def test_every_status_has_a_row() -> None:
    """The table forgets no status."""
    assert set(TRANSITIONS) == set(S)


def test_final_and_waiting_statuses() -> None:
    """Only an operator leads out of a final status; only waiting ones can be claimed."""
    for status in S:
        events = set(TRANSITIONS[status])
        assert status.is_final == (events == {E.RESCHEDULE}) == (status in FINAL_STATUSES)
        assert status.is_waiting == (E.CLAIM in events) == (status in WAITING_STATUSES)
