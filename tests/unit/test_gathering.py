"""Groups that are dealt with a little later."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from scp.gathering import GROUP, MOST_WAITING, Gathering

DEADLINE_S = 20


class Worker:
    """Notes groups; waits for `go` before each."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = threading.Event()
        self.begun = threading.Event()
        self.gathering = Gathering(self._work)

    def _work(self, group: Sequence[int]) -> None:
        self.begun.set()
        assert self.go.wait(DEADLINE_S)
        self.groups.append(list(group))
        if 13 in group:
            msg = "a defect"
            raise RuntimeError(msg)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.go.set()
    made.gathering.close()


def test_order_and_groups(worker: Worker) -> None:
    worker.gathering.add(0)
    assert worker.begun.wait(DEADLINE_S)
    numbers = [worker.gathering.add(item) for item in range(1, 50)]
    worker.go.set()
    worker.gathering.settle(numbers[-1])
    assert numbers == list(range(2, 51))
    assert [len(group) for group in worker.groups] == [1, GROUP, 49 - GROUP]
    assert [item for group in worker.groups for item in group] == list(range(50))


def test_settling_waits_for_what_was_added_before(worker: Worker) -> None:
    number = worker.gathering.add(7)
    with ThreadPoolExecutor(1) as pool:
        settled = pool.submit(worker.gathering.settle, number)
        assert worker.begun.wait(DEADLINE_S)
        assert not settled.done()
        worker.go.set()
        settled.result(DEADLINE_S)
    assert worker.groups == [[7]]


def test_nothing_to_settle(worker: Worker) -> None:
    worker.gathering.settle(0)
    assert worker.groups == []


def test_no_more_than_so_many_wait(worker: Worker) -> None:
    worker.gathering.add(0)
    assert worker.begun.wait(DEADLINE_S)
    for item in range(MOST_WAITING):
        worker.gathering.add(item)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(worker.gathering.add, 99)
        assert not late.done()
        worker.go.set()
        worker.gathering.settle(late.result(DEADLINE_S))
    assert worker.groups[-1][-1] == 99


def test_a_defect_does_not_end_it(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    worker.go.set()
    worker.gathering.settle(worker.gathering.add(13))
    worker.gathering.settle(worker.gathering.add(14))
    assert worker.groups == [[13], [14]]
    assert "a defect" in caplog.text


def test_closing_does_what_waits() -> None:
    worker = Worker()
    worker.go.set()
    for item in range(3):
        worker.gathering.add(item)
    worker.gathering.close()
    assert [item for group in worker.groups for item in group] == [0, 1, 2]
