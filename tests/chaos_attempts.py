"""Attempts as the logs of workers tell them, and which of them ran side by side."""

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

# After SIGCONT a worker needs a moment until it sees that its leases are gone.
THAW_S = 2.0
# Logs tell whole milliseconds: what happened just after an instant may seem to be before it.
LOGGED_S = 0.001
ATTEMPT_ENDS = {"task.finished", "task.released", "task.held", "task.claim-lost"}
EVENT = re.compile(
    r"^(?P<time>\S+) \w+ +(?P<event>[\w.-]+) (?:.* )?task=(?P<task>\d+) attempt=(?P<attempt>\d+)"
)


@dataclass(frozen=True)
class Attempt:
    """One attempt as its worker's log tells it; seconds since 1970."""

    task: int
    number: int
    worker: str
    start: float
    end: float


def read_attempts(worker: str, log: str, deaths: list[float], now: float) -> list[Attempt]:
    """Return the attempts that a worker's log tells of; a death ends those under way."""
    started: dict[tuple[int, int], float] = {}
    ended: dict[tuple[int, int], float] = {}
    for line in log.splitlines():
        found = EVENT.match(line)
        if found is None:
            continue
        key = (int(found["task"]), int(found["attempt"]))
        instant = datetime.fromisoformat(found["time"]).timestamp()
        if found["event"] == "task.started":
            started[key] = instant
        elif found["event"] in ATTEMPT_ENDS:
            ended[key] = instant
    return [
        Attempt(*key, worker, start, ended.get(key) or _next(deaths, start, now))
        for key, start in started.items()
    ]


def _next(deaths: list[float], start: float, now: float) -> float:
    return min((death for death in deaths if death >= start), default=now)


def overlaps(
    attempts: list[Attempt], thaws: dict[str, list[float]]
) -> list[tuple[Attempt, Attempt]]:
    """Return pairs of attempts of one task that ran side by side.

    An attempt of a worker that had been frozen may end shortly after the worker was thawed.
    """
    found = []
    by_task: dict[int, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda each: each.start):
        by_task.setdefault(attempt.task, []).append(attempt)
    for group in by_task.values():
        for first, second in pairwise(group):
            excused = any(
                first.start <= thaw < first.end + LOGGED_S and first.end <= thaw + THAW_S
                for thaw in thaws.get(first.worker, [])
            )
            if first.end > second.start and not excused:
                found.append((first, second))
    return found
