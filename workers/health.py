"""Tells from outside whether a process does its work; small enough to be asked every few seconds.

A process that runs but is stuck, cannot reach what it needs, or has lost its place in the broker
is not healthy. What can be wrong elsewhere (a peer, a paused queue, a long backlog) is no matter
of a process's health: that is for alerts.
"""

import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from celery import Celery
from kombu.exceptions import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.errors import InvalidValueError
from workers.metrics import LAST_PASS, LEDGER_UP
from workers.queues import parse_kinds

STUCK_AFTER_POLLS: Final = 6
"""A dispatcher that completed no pass for so many of its longest pauses is stuck."""

_OLDEST_DUE = "dicomq_queue_oldest_due_seconds"
_ANYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a process does its work, and the sentence that says so."""

    healthy: bool
    text: str


def worker_health(app: Celery, kind: str, hostname: str | None, timeout_s: float) -> Finding:
    """Send a ping through the broker to a worker and wait for its answer.

    Parameters
    ----------
    kind
        Kind of its queues, which its node is called after.
    hostname
        Name of its node; None for ``<kind>@<host>``.
    timeout_s
        Longest time to wait for the answer, seconds.

    Raises
    ------
    InvalidValueError
        When there is no such kind.
    """
    parse_kinds([kind])
    node = hostname or f"{kind}@{socket.gethostname()}"
    try:
        with app.connection_for_write(connect_timeout=timeout_s, transport_options={}) as broker:
            broker.ensure_connection(max_retries=1, timeout=timeout_s)
            answers = app.control.ping(
                destination=[node], timeout=timeout_s, limit=1, connection=broker
            )
    except (OperationalError, OSError) as error:
        return Finding(healthy=False, text=f"Redis cannot be asked for worker {node}: {error}")
    if any(node in answer for answer in answers or ()):
        return Finding(healthy=True, text=f"worker {node} answers through the broker")
    text = (
        f"worker {node} did not answer through the broker within {timeout_s:g} s: it is not "
        "running, is stuck, or has another node name (--hostname)"
    )
    return Finding(healthy=False, text=text)


def dispatcher_health(settings: Settings, timeout_s: float) -> Finding:
    """Read from the metrics of the dispatcher on this host when it last completed a pass.

    Raises
    ------
    InvalidValueError
        When DICOMQ_METRICS_PORT is not set.
    """
    if settings.metrics_port is None:
        msg = "the health of a dispatcher is read from its metrics: set DICOMQ_METRICS_PORT"
        raise InvalidValueError(msg)
    address = settings.metrics_address
    host = "127.0.0.1" if address in _ANYWHERE else address
    try:
        text = _get(f"http://{host}:{settings.metrics_port}/metrics", timeout_s)
    except (OSError, urllib.error.URLError) as error:
        return Finding(healthy=False, text=f"the dispatcher does not answer: {error}")
    limit_s = STUCK_AFTER_POLLS * settings.poll_s
    return judge_dispatcher(_values(text), now_s=SYSTEM_CLOCK.now().timestamp(), limit_s=limit_s)


def judge_dispatcher(values: Mapping[str, float], *, now_s: float, limit_s: float) -> Finding:
    """Decide from a dispatcher's metrics whether it works.

    Parameters
    ----------
    values
        Highest value of each metric by its name.
    now_s
        The present, Unix time.
    limit_s
        Longest time without a pass, seconds.
    """
    if values.get(LEDGER_UP) != 1:
        return Finding(healthy=False, text="the dispatcher cannot reach PostgreSQL")
    age_s = now_s - values.get(LAST_PASS, 0.0)
    if age_s > limit_s:
        when = f"{age_s:.0f} s ago" if values.get(LAST_PASS) else "never"
        text = f"the dispatcher completed its last pass {when}; at most {limit_s:.0f} s are right"
        return Finding(healthy=False, text=text)
    oldest_s = values.get(_OLDEST_DUE, 0.0)
    text = f"the dispatcher passed {max(0.0, age_s):.1f} s ago; oldest due task {oldest_s:.0f} s"
    return Finding(healthy=True, text=text)


def flower_health(url: str, timeout_s: float) -> Finding:
    """Ask Flower's `/healthcheck`."""
    try:
        answer = _get(url, timeout_s).strip()
    except (OSError, urllib.error.URLError) as error:
        return Finding(healthy=False, text=f"Flower does not answer at {url}: {error}")
    if answer != "OK":
        return Finding(healthy=False, text=f"Flower answers {answer[:40]!r} at {url}, not OK")
    return Finding(healthy=True, text="Flower answers")


def _get(url: str, timeout_s: float) -> str:
    # The address comes from the command line or the settings of whoever starts the check.
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - see above
        body: bytes = answer.read()
    return body.decode(errors="replace")


def _values(text: str) -> dict[str, float]:
    """Return the highest value of each metric."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = max(sample.value, values.get(sample.name, sample.value))
    return values
