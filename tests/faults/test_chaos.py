"""Random faults for a given time: ``make chaos SECONDS=600 SEED=7``, a short run without them."""

import os
import sys
from collections.abc import Callable
from random import SystemRandom

import pytest

from tests.chaos_attempts import Attempt, overlaps, read_attempts
from tests.fix_chaos import Chaos

SECONDS = float(os.environ.get("CHAOS_SECONDS") or 20)

pytestmark = pytest.mark.timeout(SECONDS + 400)


def test_promises_hold_under_random_faults(chaos: Callable[[int], Chaos]) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(10**6))
    sys.stderr.write(f"\nchaos: {SECONDS:g} s, SEED={seed}\n")
    run = chaos(seed)
    try:
        run.run(SECONDS)
    finally:
        sys.stderr.write("\n".join(run.journal) + "\n")
    run.check()
    sys.stderr.write(f"chaos: {len(run.accepted)} objects accepted, SEED={seed} holds\n")


def test_attempts_are_read_from_a_log() -> None:
    log = """\
2026-11-21T10:00:00.000+00:00 INFO    task.started task=5 attempt=1 queue=Q
2026-11-21T10:00:01.000+00:00 INFO    task.finished task=5 attempt=1 queue=Q status=FAILED
2026-11-21T10:00:02.000+00:00 INFO    task.started task=5 attempt=2 queue=Q
"""
    start = 1795255200.0
    assert read_attempts("w", log, [start + 7], start + 9) == [
        Attempt(5, 1, "w", start, start + 1),
        Attempt(5, 2, "w", start + 2, start + 7),
    ]


@pytest.mark.parametrize(
    ("first_end", "thaws", "found"),
    [
        (2.0, [], 0),
        (3.5, [], 1),
        (3.5, [3.4], 0),
        (3.5, [3.5004], 0),
        (3.5, [3.52], 1),
        (9.0, [3.4], 1),
        (3.5, [0.5], 1),
    ],
    ids=[
        "in turn",
        "side by side",
        "thawed just now",
        "thawed in the millisecond of its end",
        "thawed afterwards",
        "thawed long ago",
        "thawed before",
    ],
)
def test_overlaps_are_found(first_end: float, thaws: list[float], found: int) -> None:
    attempts = [Attempt(5, 2, "b", 3.0, 4.0), Attempt(5, 1, "a", 1.0, first_end)]
    assert len(overlaps(attempts, {"a": thaws})) == found
