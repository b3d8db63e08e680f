"""Numbers that are dear to count: counted once for all, shown with their age, never waited for."""

import threading
from collections.abc import Iterator

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.errors import LedgerUnavailableError
from tests.fix_process import wait_until
from workers.monitor.recent import Known, Recent

LONG_S = 30.0


class Counter:
    """Counts how often it was asked; waits while it is held."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self) -> int:
        """Return how often."""
        self.asked += 1
        assert self.go_on.wait(LONG_S)
        return self.asked


@pytest.fixture
def counter() -> Counter:
    """What is dear to count."""
    return Counter()


@pytest.fixture
def recent() -> Iterator[Recent]:
    """Nothing counted yet."""
    made = Recent(SYSTEM_CLOCK)
    yield made
    made.close()


def value(recent: Recent, counter: Counter, age_s: float = LONG_S) -> int | None:
    return recent.get("key", age_s, counter, wait_s=LONG_S).value


def test_all_share_what_was_counted_once(recent: Recent, counter: Counter) -> None:
    assert [value(recent, counter) for _ in range(3)] == [1, 1, 1]
    assert value(recent, counter, age_s=0) == 2
    recent.forget()
    assert value(recent, counter) == 3


def test_nobody_waits_for_a_long_count(recent: Recent, counter: Counter) -> None:
    counter.go_on.clear()
    assert recent.get("key", LONG_S, counter, wait_s=0) == Known(None)
    assert recent.get("key", LONG_S, counter, wait_s=0) == Known(None)
    counter.go_on.set()
    assert value(recent, counter) == 1
    assert counter.asked == 1

    counter.go_on.clear()
    old = recent.get("key", 0, counter, wait_s=0)
    assert (old.value, old.age_s > 0) == (1, True)
    counter.go_on.set()
    wait_until(lambda: value(recent, counter) == 2, what="the new number")


def test_a_failure_is_told_and_counted_anew(recent: Recent) -> None:
    answers: list[int] = []

    def fail_once() -> int:
        if not answers:
            answers.append(1)
            msg = "PostgreSQL is away"
            raise LedgerUnavailableError(msg)
        return 7

    with pytest.raises(LedgerUnavailableError):
        recent.get("key", LONG_S, fail_once, wait_s=LONG_S)
    assert recent.get("key", LONG_S, fail_once, wait_s=LONG_S).value == 7
