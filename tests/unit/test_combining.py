"""Threads that want the same at the same time: who does it, for whom, and what fails whom."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from archive.combining import Combiner
from archive.errors import LedgerConflictError, LedgerError, LedgerUnavailableError
from tests.fix_process import wait_until


class Desk:
    """Doubles numbers; the first caller is kept busy until the others wait."""

    def __init__(self) -> None:
        self.together: list[list[int]] = []
        self.alone: list[int] = []
        self.go_on = threading.Event()
        self.answer: Callable[[Sequence[int]], Sequence[int | None]] = lambda items: [
            2 * item for item in items
        ]

    def do_together(self, items: Sequence[int]) -> Sequence[int | None]:
        """Double all of them."""
        self.together.append(sorted(items))
        return self.answer(items)

    def do_alone(self, item: int) -> int:
        """Double one; 0 waits until it may go on, 13 fails."""
        self.alone.append(item)
        if item == 0:
            assert self.go_on.wait(10)
        if item == 13:
            msg = "13 cannot be doubled"
            raise LedgerError(msg)
        return 2 * item


def queue_up(desk: Desk, items: Sequence[int]) -> list[Future[int]]:
    """Have one caller at work and the others wait, let them go on, and return what they got."""
    combiner = Combiner(desk.do_together, desk.do_alone, everybodys=LedgerUnavailableError)
    with ThreadPoolExecutor(len(items) + 1) as pool:
        first = pool.submit(combiner.do, 0)
        wait_until(lambda: desk.alone == [0], what="the first one")
        others = [pool.submit(combiner.do, item) for item in items]
        wait_until(lambda: len(combiner._waiting) == len(items), what="the others")  # noqa: SLF001 - nothing else shows that they wait
        desk.go_on.set()
    assert first.result() == 0
    assert combiner.do(50) == 100  # nobody is left at work
    return others


def test_whoever_comes_first_does_it_alone_and_one_of_the_others_for_all() -> None:
    desk = Desk()
    answers = queue_up(desk, [1, 2, 3])
    assert [answer.result() for answer in answers] == [2, 4, 6]
    assert desk.together == [[1, 2, 3]]
    assert desk.alone == [0, 50]


def test_a_single_one_that_waited_does_it_alone() -> None:
    desk = Desk()
    (answer,) = queue_up(desk, [1])
    assert answer.result() == 2
    assert desk.together == []


def test_who_gets_no_answer_does_it_alone() -> None:
    desk = Desk()
    desk.answer = lambda items: [None if item == 2 else 2 * item for item in items]
    answers = queue_up(desk, [1, 2, 3])
    assert [answer.result() for answer in answers] == [2, 4, 6]
    assert desk.alone == [0, 2, 50]


def test_one_that_fails_does_not_fail_the_others() -> None:
    desk = Desk()

    def refuse(_items: Sequence[int]) -> Sequence[int | None]:
        msg = "one of them cannot be doubled"
        raise LedgerConflictError(msg)

    desk.answer = refuse
    fine, bad, also_fine = queue_up(desk, [1, 13, 3])
    assert (fine.result(), also_fine.result()) == (2, 6)
    with pytest.raises(LedgerError, match="13 cannot be doubled"):
        bad.result()


def test_an_error_that_is_everybodys_is_raised_to_each_without_another_try() -> None:
    desk = Desk()

    def lose(_items: Sequence[int]) -> Sequence[int | None]:
        msg = "PostgreSQL is gone"
        raise LedgerUnavailableError(msg)

    desk.answer = lose
    for answer in queue_up(desk, [1, 2, 3]):
        with pytest.raises(LedgerUnavailableError, match="PostgreSQL is gone"):
            answer.result()
    assert desk.alone == [0, 50]


def test_a_defect_ends_its_leader_and_sends_the_others_alone() -> None:
    desk = Desk()

    def break_down(_items: Sequence[int]) -> Sequence[int | None]:
        msg = "a defect"
        raise RuntimeError(msg)

    desk.answer = break_down
    results = [answer.exception() or answer.result() for answer in queue_up(desk, [1, 2, 3])]
    assert len([result for result in results if isinstance(result, RuntimeError)]) == 1
    assert len([result for result in results if isinstance(result, int)]) == 2


def test_those_who_wait_prepare_meanwhile_and_an_error_then_is_theirs_alone() -> None:
    desk = Desk()
    prepared: list[int] = []

    def prepare(item: int) -> None:
        prepared.append(item)
        if item == 2:
            msg = "2 cannot be prepared"
            raise LedgerError(msg)

    combiner = Combiner(
        desk.do_together, desk.do_alone, everybodys=LedgerUnavailableError, prepare=prepare
    )
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(combiner.do, 0)
        wait_until(lambda: desk.alone == [0], what="the first one")
        others = [pool.submit(combiner.do, item) for item in (1, 2, 3)]
        wait_until(lambda: len(combiner._waiting) == 2, what="the others")  # noqa: SLF001 - nothing else shows that they wait
        wait_until(others[1].done, what="the one that fails")
        desk.go_on.set()
    assert [each.result() for each in (first, others[0], others[2])] == [0, 2, 6]
    assert sorted(prepared) == [1, 2, 3]
    assert desk.together == [[1, 3]]
    with pytest.raises(LedgerError, match="prepared"):
        others[1].result()
