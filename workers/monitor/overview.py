"""The overview: what needs somebody's attention, worst first."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from archive.configuration.descriptors import Problem
from archive.configuration.source import Outage
from archive.ledger.commitments import CommitmentGauges
from archive.model.gates import GateState
from archive.model.task import TaskStatus
from archive.model.task_filter import TaskFilter, TimeRange
from workers.gatekeeping import DestinationView, Loads, QueueView
from workers.monitor import wording
from workers.monitor.handler import PageHandler

LATE_S = 600.0
_RANKS = {"bad": 0, "warn": 1, "good": 2, "gone": 3}


@dataclass(frozen=True, slots=True)
class Notice:
    """Something on the overview.

    Attributes
    ----------
    tone
        bad, warn or gone.
    advice
        What to do about it.
    page, query
        Where it is shown in full.
    """

    tone: str
    title: str
    advice: str
    page: str
    query: str = ""


class OverviewPage(PageHandler):
    """What needs attention first."""

    template = "overview.html"
    tab = "overview"

    @override
    def load(self, *_names: str) -> dict[str, Any]:
        """Return counts by status and notices."""
        services = self.services
        now = services.clock.now()
        services.start_counting()
        counts, loads, gauges = services.counts(), services.loads(), services.gauges()
        gatekeeper = services.gatekeeper()
        queues = gatekeeper.queues(loads.value or Loads())
        destinations = gatekeeper.destinations(loads.value or Loads())
        long_running = TaskFilter(
            statuses=(TaskStatus.IN_PROCESS,), updated=TimeRange(until=now - timedelta(hours=1))
        )
        notices = [
            *task_notices(counts.value or {}),
            *long_notices(services.operations(self.actor).count(long_running)),
            *(notice for view in queues for notice in queue_notices(view, now)),
            *(notice for view in destinations for notice in destination_notices(view, now)),
            *(commitment_notices(gauges.value) if gauges.value else ()),
            *problem_notices(self.services.source.snapshot().problems),
            *outage_notices(self.services.source.outage()),
        ]
        return {
            "counts": [(each, (counts.value or {}).get(each, 0)) for each in TaskStatus],
            "is_counted": all(each.value is not None for each in (counts, loads, gauges)),
            "age_s": max(counts.age_s, loads.age_s, gauges.age_s),
            "notices": sorted(notices, key=lambda notice: _RANKS[notice.tone]),
            "queues": [view for view in queues if view.load.waiting + view.load.running],
        }


def task_notices(counts: dict[TaskStatus, int]) -> list[Notice]:
    """Return what the numbers of tasks mean."""
    failed = counts.get(TaskStatus.FAILED, 0)
    warned = counts.get(TaskStatus.WARNING, 0)
    found = []
    if failed:
        advice = "Read the message of one, mend its cause, then reschedule all with this filter"
        title = f"{wording.number(failed)} tasks failed"
        found.append(Notice("bad", title, advice, "dicomq-queues", "status=FAILED"))
    if warned:
        advice = "Something was not delivered as it should: see the instances of the task"
        title = f"{wording.number(warned)} tasks ended with a warning"
        found.append(Notice("warn", title, advice, "dicomq-queues", "status=WARNING"))
    return found


def long_notices(count: int) -> list[Notice]:
    """Return what tasks mean that have been IN PROCESS for more than an hour."""
    if not count:
        return []
    title = f"{wording.number(count)} tasks are in process for more than an hour"
    advice = "A slow peer, or a very large study: see the task; cancel it to give its place free"
    return [Notice("warn", title, advice, "dicomq-queues", "status=IN+PROCESS&orderby=updatedTime")]


def queue_notices(view: QueueView, now: datetime) -> list[Notice]:
    """Return what is wrong with a queue."""
    name, load = view.queue.name, view.load
    query = wording.query({"queue": (name,)})
    if view.pause is not None:
        why = f"by {view.pause.actor}: {view.pause.reason or 'no reason given'}"
        return [Notice("warn", f"Queue {name} is paused", why, "dicomq-destinations")]
    late_s = (now - load.oldest_due).total_seconds() if load.oldest_due else 0.0
    if late_s < LATE_S or view.opens_time is not None:
        return []
    title = f"Queue {name}: its oldest task is due since {wording.span(late_s)}"
    advice = (
        "Its destinations are slow or paused, or dcmMaxTasksParallel is low"
        if load.in_flight
        else f"Nothing of it runs: is a worker of kind {view.pool} up, and the dispatcher?"
    )
    return [Notice("warn" if load.in_flight else "bad", title, advice, "dicomq-queues", query)]


def destination_notices(view: DestinationView, now: datetime) -> list[Notice]:
    """Return what is wrong with a destination."""
    gate = view.gate
    if gate.state is GateState.OPEN:
        if view.is_configured or ":" in gate.remote_aet or not view.waiting:
            return []
        advice = "Add an AE of this title to the directory, or cancel the tasks"
        return [
            Notice("bad", f"{gate.remote_aet} is not configured", advice, "dicomq-destinations")
        ]
    since = wording.span((now - gate.since).total_seconds()) if gate.since else ""
    if gate.pause is not None:
        why = f"by {gate.pause.actor}: {gate.pause.reason or 'no reason given'}"
        title = f"{gate.remote_aet} is paused since {since}"
        return [Notice("warn", title, why, "dicomq-destinations")]
    title = f"{gate.remote_aet} cannot be reached since {since}; {view.waiting} tasks wait"
    error = f"{gate.last_error}. " if gate.last_error else ""
    advice = f"{error}It is probed with C-ECHO and goes on by itself"
    return [Notice("bad", title, advice, "dicomq-destinations")]


def commitment_notices(gauges: CommitmentGauges) -> list[Notice]:
    """Return what is wrong with storage commitment."""
    found = []
    if gauges.given_up:
        title = f"Storage commitment given up for {wording.number(gauges.given_up)} requests"
        advice = "The archive asked says it does not have the objects: export the studies again"
        query = "type=STGCMT_SCU&status=FAILED"
        found.append(Notice("bad", title, advice, "dicomq-queues", query))
    if gauges.overdue:
        title = f"{wording.number(gauges.overdue)} reports of storage commitment are overdue"
        advice = "They are asked for again by themselves; can the archive reach our port?"
        found.append(Notice("warn", title, advice, "dicomq-queues", "type=STGCMT_SCU"))
    return found


def outage_notices(outage: Outage | None) -> list[Notice]:
    """Return that the directory cannot be used, if it cannot."""
    if outage is None:
        return []
    title = "The directory is unreachable; work goes on with the configuration that is known"
    return [Notice("bad", title, outage.text(), "dicomq-destinations")]


def problem_notices(problems: tuple[Problem, ...]) -> list[Notice]:
    """Return what is wrong with the configuration, without what is merely worth knowing."""
    return [
        Notice(
            "bad" if problem.severity == "error" else "warn",
            f"{problem.dn}: {problem.attribute} {problem.reason}".replace(":  ", ": "),
            "Correct the entry; running processes see it within seconds",
            "dicomq-destinations",
        )
        for problem in problems
        if problem.severity != "notice"
    ]
