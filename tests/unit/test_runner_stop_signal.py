"""How a running task is asked to stop."""

import pytest

from workers.processor import StopReason, StopSignal


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([], None),
        ([StopReason.CANCELED], StopReason.CANCELED),
        ([StopReason.CANCELED, StopReason.SHUTDOWN], StopReason.CANCELED),
        ([StopReason.SHUTDOWN, StopReason.CANCELED], StopReason.SHUTDOWN),
        ([StopReason.CANCELED, StopReason.CLAIM_LOST], StopReason.CLAIM_LOST),
        ([StopReason.CLAIM_LOST, StopReason.CANCELED], StopReason.CLAIM_LOST),
    ],
)
def test_first_reason_stands_unless_the_claim_is_lost(
    reasons: list[StopReason], expected: StopReason | None
) -> None:
    signal = StopSignal()
    for reason in reasons:
        signal.stop(reason)
    assert signal.reason is expected
    assert signal.wait(0) is bool(reasons)


def test_abort_calls_what_is_registered_at_the_time() -> None:
    signal = StopSignal()
    called: list[str] = []
    with signal.on_abort(lambda: called.append("over")):
        pass
    with signal.on_abort(lambda: called.append("outer")):
        with signal.on_abort(lambda: called.append("inner")):
            signal.abort()
        assert called == ["outer", "inner"]


def test_what_is_registered_after_the_abort_is_called_at_once() -> None:
    signal = StopSignal()
    signal.abort()
    called: list[str] = []
    with signal.on_abort(lambda: called.append("late")):
        assert called == ["late"]
