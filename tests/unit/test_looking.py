"""Caretakers go on after a failure, and say it once."""

import logging
import threading
from collections.abc import Iterator

import pytest

from archive.errors import LedgerUnavailableError
from workers.looking import NowAndThen, look_again_and_again


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the set instant."""
        return self.now


def test_a_failure_is_said_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def looks() -> Iterator[bool]:
        yield from [True, False, False, True, False]
        stop.set()
        yield True

    answers = looks()

    def look() -> None:
        if not next(answers):
            msg = "PostgreSQL cannot be reached"
            raise LedgerUnavailableError(msg)

    with caplog.at_level(logging.WARNING):
        look_again_and_again(stop, 0.001, look, logging.getLogger("caretaker"))
    assert [record.name for record in caplog.records] == ["caretaker"] * 2
    assert not list(answers)


def test_now_and_then() -> None:
    clock, done = Hands(), []

    def act() -> None:
        if clock.now == 20:
            msg = "not now"
            raise LedgerUnavailableError(msg)
        done.append(clock.now)

    purge = NowAndThen(clock, 10.0, act)  # type: ignore[arg-type] # all that it asks of a clock
    for now in (0.0, 5.0, 9.9, 10.0, 19.0):
        clock.now = now
        purge()
    clock.now = 20.0
    with pytest.raises(LedgerUnavailableError):
        purge()
    clock.now = 20.5
    purge()
    assert done == [0.0, 10.0, 20.5]
