"""Runs one attempt of a task: claim, perform, finish; the only writer of task state in a worker.

Every write names the attempt, so a worker that lost its claim changes nothing: neither a
cancel, nor a reschedule, nor the result of a newer attempt. What follows a result is staged in
the transaction that records it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from archive.clock import Clock
from archive.configuration.descriptors import Snapshot, implicit_queue
from archive.configuration.settings import Settings
from archive.configuration.source import SnapshotSource
from archive.errors import DicomqError, LedgerError
from archive.ledger import gates, tasks
from archive.ledger.attempts import Ending
from archive.ledger.connection import Ledger, Transaction
from archive.model.gates import CircuitPolicy
from archive.model.retry import RetryIn, RetryPolicy
from archive.model.task import Failure, Hint, Outcome, Task, TaskKind, TaskStatus
from archive.storage.base import Storages
from archive.telemetry import LEDGER_UNAVAILABLE, bound, checkpoint, log_event
from workers import events
from workers.bookkeeping import Bookkeeping
from workers.conclusion import (
    INTERNAL_ERROR,
    Conclusion,
    Drop,
    Release,
    Settle,
    conclude,
    outcome_of_error,
)
from workers.kept import KeptAssociations
from workers.leases import LeaseKeeper
from workers.metrics import WorkerMetrics
from workers.processor import Processor, StopReason, StopSignal, TaskContext

LOGGER = logging.getLogger(__name__)

FINISH_RETRY_S = 0.5
_LOST = "dropped: another attempt took over"


@dataclass(frozen=True, slots=True)
class RunnerServices:
    """What a runner works with."""

    ledger: Ledger
    source: SnapshotSource
    processors: Mapping[TaskKind, Processor]
    settings: Settings
    clock: Clock
    worker: str
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    kept: KeptAssociations = field(default_factory=KeptAssociations)


class Runner:
    """Runs tasks that hints name.

    Parameters
    ----------
    services
        What it works with.
    keeper
        Keeps the leases of the claimed tasks.
    """

    def __init__(self, services: RunnerServices, keeper: LeaseKeeper) -> None:
        self._services = services
        self._keeper = keeper
        self._circuit = CircuitPolicy(failures=services.settings.breaker_failures)
        self._bookkeeping = Bookkeeping(
            services.ledger, worker=services.worker, lease_s=services.settings.lease_s
        )

    def run(self, task_pk: int, attempt: int) -> str:
        """Claim, perform and finish attempt number `attempt` of a task.

        Nothing escapes: what goes wrong is recorded in the ledger, or the row is left for the
        dispatcher (not claimed) or the rescuer (not finished).

        Returns
        -------
        str
            What became of the hint, in a few words for Celery's log and Flower.
        """
        task = self._claim(Hint(task_pk, attempt))
        if task is None:
            return "dropped: nothing to claim"
        checkpoint(events.CHECKPOINT_CLAIMED)
        with bound(task=task.pk, attempt=task.attempt):
            closed = self._closed(task)
            if closed is not None:
                return self._put_back(task, closed)
            log_event(LOGGER, events.TASK_STARTED, queue=task.queue_name)
            with self._services.metrics.attempt(task):
                return self._carry_out(task)

    def _carry_out(self, task: Task) -> str:
        with self._keeper.hold(task) as stop_signal:
            outcome, policy = self._attempt(task, stop_signal)
            stop_signal.conclude()
            checkpoint(events.CHECKPOINT_PERFORMED)
            conclusion = conclude(outcome, stop_signal.reason, policy, failures=task.failures)
            return self._finish(task, conclusion)

    def cancel(self, task_pk: int, *, actor: str) -> None:
        """Cancel a task on behalf of `actor`; a finished one is left alone."""
        try:
            with self._services.ledger.transaction() as tx:
                tasks.cancel(tx, task_pk, actor=actor)
        except DicomqError as error:
            log_event(LOGGER, events.TASK_REVOKED, task=task_pk, actor=actor, message=str(error))
        else:
            log_event(LOGGER, events.TASK_REVOKED, task=task_pk, actor=actor)

    def _claim(self, hint: Hint) -> Task | None:
        if self._keeper.shutting_down:
            return None
        try:
            return self._bookkeeping.claim(hint)
        except LedgerError as error:
            message = f"the hint is dropped and the task handed over again: {error}"
            self._log_ledger_trouble(hint.task_pk, hint.attempt, message)
            return None

    def _closed(self, task: Task) -> str | None:
        """Say why a task may not start though it was handed over when it still might."""
        try:
            queue = self._services.source.snapshot().queue(task.queue_name)
        except DicomqError:
            return None  # the attempt reports it
        if not queue.installed:
            return f"queue {queue.name} is not installed (dicomInstalled) any more"
        # The ledger's clock, by which the dispatcher decided: the clocks of hosts may differ.
        if not queue.schedule.contains(task.start_time or self._services.clock.now()):
            return f"the window of queue {queue.name} (dcmSchedule) has closed"
        return None

    def _put_back(self, task: Task, why: str) -> str:
        """Release a task that came too late; it waits, uncounted, until its queue opens."""
        reason = f"not started: {why}"
        self._services.metrics.ended(task, "not started")
        try:
            with self._services.ledger.statement() as tx:
                released = tasks.release(tx, task, actor=self._services.worker, reason=reason)
        except LedgerError as error:
            message = f"the task goes back when its lease ends: {error}"
            self._log_ledger_trouble(task.pk, task.attempt, message)
            return "unfinished: the task could not be put back"
        log_event(LOGGER, events.TASK_OUTSIDE_WINDOW, queue=task.queue_name, message=reason)
        return reason if released else _LOST

    def _attempt(self, task: Task, stop_signal: StopSignal) -> tuple[Outcome, RetryPolicy]:
        """Perform the task; return how it ended, and the policy that decides what follows."""
        policy = implicit_queue(task.queue_name).retry
        try:
            snapshot = self._services.source.snapshot()
            policy = snapshot.queue(task.queue_name).retry
            return self._perform(task, snapshot, stop_signal), policy
        except DicomqError as error:
            return outcome_of_error(error), policy
        except Exception:  # noqa: BLE001 - whatever a processor does, its task gets an outcome
            log_event(
                LOGGER,
                events.TASK_FAILED_INTERNALLY,
                level=logging.ERROR,
                exc_info=True,
                task=task.pk,
                attempt=task.attempt,
            )
            return INTERNAL_ERROR, policy

    def _perform(self, task: Task, snapshot: Snapshot, stop_signal: StopSignal) -> Outcome:
        services = self._services
        processor = services.processors.get(task.kind)
        if processor is None:
            message = f"this version cannot perform tasks of kind {task.kind}; upgrade the workers"
            return Outcome(TaskStatus.FAILED, message, Failure.PERMANENT)
        context = TaskContext(
            ledger=services.ledger,
            snapshot=snapshot,
            storages=Storages(snapshot, services.settings),
            clock=services.clock,
            settings=services.settings,
            stop_signal=stop_signal,
            kept=services.kept,
        )
        return processor.perform(task, context)

    def _finish(self, task: Task, conclusion: Conclusion) -> str:
        """Write the conclusion; keep trying for as long as the lease would have lasted."""
        checkpoint(events.CHECKPOINT_BEFORE_FINISH)
        clock = self._services.clock
        deadline = clock.monotonic() + self._services.settings.lease_s
        while True:
            try:
                word = self._write(task, conclusion)
            except LedgerError as error:
                if not error.retryable or clock.monotonic() >= deadline:
                    message = f"the result is given up and the task will run again: {error}"
                    self._log_ledger_trouble(task.pk, task.attempt, message)
                    return "unfinished: the result could not be recorded"
                clock.sleep(FINISH_RETRY_S)
            else:
                checkpoint(events.CHECKPOINT_FINISHED)
                return word

    def _write(self, task: Task, conclusion: Conclusion) -> str:
        match conclusion:
            case Drop():
                return _LOST
            case Release():
                return self._release(task)
            case Settle():
                return self._settle(task, conclusion)
            case _:
                assert_never(conclusion)

    def _release(self, task: Task) -> str:
        worker = self._services.worker
        with self._services.ledger.statement() as tx:
            released = tasks.release(tx, task, actor=worker, reason=StopReason.SHUTDOWN)
        self._services.metrics.ended(task, "released")
        log_event(LOGGER, events.TASK_RELEASED, task=task.pk, attempt=task.attempt)
        return "released: the worker shuts down" if released else _LOST

    def _settle(self, task: Task, settle: Settle) -> str:
        outcome = settle.outcome
        ending = Ending(task, outcome, settle.decision)
        if ending.is_plain:
            status = self._bookkeeping.finish(ending)
        else:
            with self._services.ledger.transaction() as tx:
                if self._is_held(tx, task, settle):
                    return self._hold(tx, task, settle.cause)
                worker = self._services.worker
                status = tasks.finish(tx, task, outcome, settle.decision, actor=worker)
        if status is None:
            log_event(LOGGER, events.CLAIM_LOST, task=task.pk, attempt=task.attempt)
            return _LOST
        self._services.metrics.ended(task, status)
        log_event(
            LOGGER,
            events.TASK_FINISHED,
            level=logging.WARNING if outcome.failure else logging.INFO,
            task=task.pk,
            attempt=task.attempt,
            queue=task.queue_name,
            status=status,
            message=outcome.message,
        )
        return f"{status}: {outcome.message}"

    def _is_held(self, tx: Transaction, task: Task, settle: Settle) -> bool:
        """Tell whether the task waits, uncounted, until its destination answers again."""
        if not settle.outcome.unreached:
            return False
        paused = gates.note_failure(tx, task, settle.cause, self._circuit)
        return paused and isinstance(settle.decision, RetryIn)

    def _hold(self, tx: Transaction, task: Task, cause: str) -> str:
        """Put a task back until the circuit breaker lets tasks for its destination go again."""
        message = f"{cause}; not counted: {task.remote_aet} is probed, tasks for it wait meanwhile"
        log_event(
            LOGGER,
            events.TASK_HELD,
            level=logging.WARNING,
            task=task.pk,
            attempt=task.attempt,
            destination=task.remote_aet,
            message=message,
        )
        worker = self._services.worker
        self._services.metrics.ended(task, "held")
        held = tasks.release(tx, task, actor=worker, reason=message, error_message=message)
        return f"held: {message}" if held else _LOST

    def _log_ledger_trouble(self, task_pk: int, attempt: int, message: str) -> None:
        log_event(
            LOGGER,
            LEDGER_UNAVAILABLE,
            level=logging.WARNING,
            task=task_pk,
            attempt=attempt,
            message=message,
        )
