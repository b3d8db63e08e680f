import pytest

from workers.health import judge_dispatcher
from workers.metrics import LAST_PASS, LEDGER_UP

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("values", "healthy", "words"),
    [
        ({LEDGER_UP: 1, LAST_PASS: NOW - 2}, True, "passed 2.0 s ago"),
        ({LEDGER_UP: 1, LAST_PASS: NOW - 30}, True, "30.0 s ago"),
        ({LEDGER_UP: 1, LAST_PASS: NOW - 31}, False, "31 s ago"),
        ({LEDGER_UP: 1, LAST_PASS: 0.0}, False, "never"),
        ({LEDGER_UP: 1}, False, "never"),
        ({LEDGER_UP: 0, LAST_PASS: NOW}, False, "PostgreSQL"),
        ({}, False, "PostgreSQL"),
        # a backlog is not the dispatcher's fault
        (
            {LEDGER_UP: 1, LAST_PASS: NOW, "dicomq_queue_oldest_due_seconds": 7200},
            True,
            "oldest due task 7200 s",
        ),
    ],
)
def test_a_dispatcher_is_judged(values: dict[str, float], *, healthy: bool, words: str) -> None:
    finding = judge_dispatcher(values, now_s=NOW, limit_s=30)
    assert (finding.healthy, words in finding.text) == (healthy, True), finding.text
