"""Sees to what has waited for long enough: commitments without a good report, notifications.

A request whose deadline is over goes up a ladder (`archive.model.commitment.next_step`): its open
instances are asked for again under a new Transaction UID, then sent again, then given up, which
a task that fails makes visible. Every step is staged in the transaction that closes the request,
so that a crash repeats or skips none. Notifications that wait for a study to be quiet, or for the
objects of a procedure step, are staged when their time has come. Any number of processes may look.
"""

import logging
import threading
from dataclasses import dataclass

from archive.clock import Clock
from archive.configuration.descriptors import Exporter, Snapshot
from archive.configuration.source import SnapshotSource
from archive.ledger import commitments, notifications, tasks
from archive.ledger.commitments import DueCommitment
from archive.ledger.connection import Ledger, Transaction
from archive.model.commitment import (
    CommitmentStatus,
    OpenInstance,
    Rung,
    Step,
    escalation,
    reasons_text,
)
from archive.model.task import (
    CommitmentDetails,
    ExportEntity,
    ExportIntent,
    NewTask,
    TaskKind,
)
from archive.telemetry import log_event
from workers import events
from workers.looking import NowAndThen, look_again_and_again

LOGGER = logging.getLogger(__name__)

ACTOR = "commitment deadline"
COMMITMENT_QUEUE = "StgCmtSCU"


@dataclass(frozen=True, slots=True)
class DeadlinesConfig:
    """How often deadlines are looked at.

    Attributes
    ----------
    device_name
        Device whose requests are looked after.
    look_every_s, purge_every_s
        Seconds between looks at deadlines, and at completed requests past their time.
    """

    device_name: str
    look_every_s: float = 2.0
    purge_every_s: float = 60.0


class Deadlines:
    """Looks after deadlines; see the module."""

    def __init__(
        self, ledger: Ledger, source: SnapshotSource, clock: Clock, *, config: DeadlinesConfig
    ) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._config = config

    def run_once(self) -> int:
        """Deal with requests whose deadline is over; return with how many."""
        snapshot = self._source.snapshot()
        with self._ledger.transaction() as tx:
            due = commitments.due(tx, self._config.device_name)
            steps = [_deal_with(tx, request, snapshot) for request in due]
        for request, taken in zip(due, steps, strict=True):
            _log(request, taken)
        return len(due)

    def trigger_once(self) -> int:
        """Stage the notifications whose time has come; return how many waits are over."""
        device_name = self._config.device_name
        with self._ledger.transaction() as tx:
            studies = notifications.trigger_studies(tx, device_name)
            steps = notifications.trigger_procedure_steps(tx, device_name)
        for each in steps:
            log_event(
                LOGGER,
                events.NOTIFICATIONS_TRIGGERED,
                level=logging.INFO if each.present == each.expected else logging.WARNING,
                mpps=each.mpps_sop_instance_uid,
                present=each.present,
                expected=each.expected,
                staged=each.staged,
            )
        return studies + len(steps)

    def purge_once(self) -> int:
        """Delete completed requests past dcmPurgeStgCmtCompletedDelay; return how many."""
        delay_s = self._source.snapshot().device.purge_commitment_completed_delay_s
        if delay_s is None:
            return 0
        with self._ledger.statement() as tx:
            purged = commitments.purge(tx, self._config.device_name, older_than_s=delay_s)
        if purged:
            log_event(LOGGER, events.COMMITMENTS_PURGED, count=purged)
        return purged

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        purge = NowAndThen(self._clock, self._config.purge_every_s, self.purge_once)

        def look() -> None:
            while self.run_once() + self.trigger_once():
                pass
            purge()

        look_again_and_again(stop, self._config.look_every_s, look, LOGGER)


Steps = dict[Step, list[OpenInstance]]


def _deal_with(tx: Transaction, request: DueCommitment, snapshot: Snapshot) -> Steps:
    """Take the next step for each open instance of a request; return what was done."""
    instances, delivered = commitments.open_instances(tx, request)
    exporter = snapshot.device.exporters.get(request.exporter_id or "")
    can_resend = delivered and exporter is not None and exporter.scheme == "dicom"
    steps = escalation(request.rung, instances, can_resend=can_resend)
    for step, members in steps.items():
        if members:
            commitments.note_step(tx, request.pk, step, members)
    if steps[Step.ASK_AGAIN]:
        tasks.stage(tx, _asked_again(request), actor=ACTOR, reason="no report came in time")
    if steps[Step.RESEND] and exporter is not None:
        intent = _sent_again(request, exporter)
        commitments.export_again(tx, intent, request.study_instance_uid, steps[Step.RESEND])
    if steps[Step.GIVE_UP]:
        verdict = _given_up(request, steps[Step.GIVE_UP])
        tasks.stage(tx, verdict, actor=ACTOR, reason="given up")
    commitments.close_due(tx, request.pk, _status(instances, steps))
    return steps


def _status(instances: list[OpenInstance], steps: Steps) -> CommitmentStatus | None:
    """Return the status of a request that was dealt with; None: it stays as it was."""
    if not instances:
        return CommitmentStatus.COMPLETED
    return CommitmentStatus.FAILED if steps[Step.GIVE_UP] else None


def _asked_again(request: DueCommitment) -> NewTask:
    details = CommitmentDetails(
        again_of=request.pk,
        rung=Rung.ASKED_AGAIN,
        after_committed=commitments.after_committed(request),
    )
    return _commitment_task(request, details)


def _given_up(request: DueCommitment, instances: list[OpenInstance]) -> NewTask:
    words = (
        f"{request.remote_aet} did not commit to {len(instances)} instance(s) of study "
        f"{request.study_instance_uid} ({reasons_text(instances)}); given up: look for the cause "
        "there, then reschedule this task to ask once more"
    )
    details = CommitmentDetails(
        again_of=request.pk,
        rung=Rung.ASKED,
        after_committed=commitments.after_committed(request),
        verdict=words,
    )
    return _commitment_task(request, details)


def _commitment_task(request: DueCommitment, details: CommitmentDetails) -> NewTask:
    return NewTask(
        kind=TaskKind.STGCMT_SCU,
        queue_name=COMMITMENT_QUEUE,
        device_name=request.device_name,
        local_aet=request.local_aet,
        remote_aet=request.remote_aet,
        study_instance_uid=request.study_instance_uid,
        exporter_id=request.exporter_id,
        batch_id=request.batch_id,
        commitment=details,
    )


def _sent_again(request: DueCommitment, exporter: Exporter) -> ExportIntent:
    return ExportIntent(
        exporter_id=exporter.exporter_id,
        queue_name=exporter.queue_name,
        device_name=request.device_name,
        local_aet=exporter.aet or request.local_aet,
        remote_aet=exporter.remote_aet,
        entity=ExportEntity.STUDY,
        due_in_s=0.0,
        rule_name="not committed",
    )


def _log(request: DueCommitment, steps: Steps) -> None:
    given_up = len(steps[Step.GIVE_UP])
    log_event(
        LOGGER,
        events.COMMITMENT_GIVEN_UP if given_up else events.COMMITMENT_DUE,
        level=logging.ERROR if given_up else logging.WARNING,
        destination=request.remote_aet,
        study=request.study_instance_uid,
        exporter=request.exporter_id,
        reports=request.reports,
        asked_again=len(steps[Step.ASK_AGAIN]) or None,
        sent_again=len(steps[Step.RESEND]) or None,
        given_up=given_up or None,
    )
