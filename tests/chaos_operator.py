"""An operator who cancels, reschedules and pauses at random while everything else breaks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from archive.clock import SYSTEM_CLOCK
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource, open_source
from archive.errors import IllegalTransitionError, LedgerUnavailableError, NoSuchTaskError
from archive.ledger.operations import Operation
from archive.model.task import TaskStatus
from archive.model.task_filter import TaskFilter
from tests.fix_system import System
from workers.gatekeeping import Gatekeeper
from workers.operations import BulkRun, Operations

OPERATOR = "chaos"
QUEUES = ("STORESCP", "IANSCU")
DESTINATIONS = ("STORESCP", "IANSCP")
ENDED_BADLY = (TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.WARNING)


@dataclass(frozen=True)
class Paused:
    """A queue or destination that was paused, by the database's clock."""

    name: str
    since: datetime
    until: datetime


@dataclass
class Operator:
    """Acts on tasks, queues and destinations; remembers what was paused when."""

    system: System
    random: Random
    pauses: list[Paused] = field(default_factory=list)

    def act(self) -> str:
        """Do one thing and say what; PostgreSQL may still be recovering."""
        actions: list[Callable[[], str]] = [
            self._cancel_one,
            self._cancel_one,
            self._cancel_all,
            self._reschedule_one,
            self._reschedule_one,
            self._reschedule_bad,
            self._reschedule_closed,
            self._pause_queue,
            self._pause_destination,
        ]
        action = self.random.choice(actions)
        try:
            return f"operator: {action()}"
        except (IllegalTransitionError, NoSuchTaskError, LedgerUnavailableError) as error:
            return f"operator was refused: {error}"

    def tidy_up(self) -> None:
        """Resume everything and have all done that was canceled or failed."""
        self.system.wait_until(self._tidied_up, what="the ledger to take the operator's wishes")

    def _tidied_up(self) -> bool:
        try:
            self._gatekeeper().resume_queues(QUEUES)
            self._gatekeeper().resume_destinations(DESTINATIONS)
            self._change(Operation.RESCHEDULE, TaskFilter(statuses=ENDED_BADLY))
        except LedgerUnavailableError:
            return False
        return True

    def _cancel_one(self) -> str:
        pk = self._any_task()
        return f"canceled task {pk}: {self._operations().cancel(pk)}"

    def _cancel_all(self) -> str:
        queue = self.random.choice(QUEUES)
        return f"canceled {self._change(Operation.CANCEL, TaskFilter(queue_names=(queue,)))} tasks"

    def _reschedule_one(self) -> str:
        pk = self._any_task()
        return f"rescheduled task {pk}: {self._operations().reschedule(pk)}"

    def _reschedule_bad(self) -> str:
        changed = self._change(Operation.RESCHEDULE, TaskFilter(statuses=ENDED_BADLY))
        return f"rescheduled {changed} tasks"

    def _reschedule_closed(self) -> str:
        """Rescheduled tasks wait for the window of their queue, too."""
        changed = self._change(Operation.RESCHEDULE, TaskFilter(queue_names=("CLOSED",)))
        return f"rescheduled {changed} tasks of the closed queue"

    def _pause_queue(self) -> str:
        gatekeeper, name = self._gatekeeper(), self.random.choice(QUEUES)
        gatekeeper.pause_queues([name], "chaos")
        self._keep_paused(name)
        gatekeeper.resume_queues([name])
        return f"paused queue {name} for a while"

    def _pause_destination(self) -> str:
        gatekeeper, name = self._gatekeeper(), self.random.choice(DESTINATIONS)
        gatekeeper.pause_destinations([name], "chaos")
        self._keep_paused(name)
        gatekeeper.resume_destinations([name])
        return f"paused destination {name} for a while"

    def _keep_paused(self, name: str) -> None:
        since = self._now()
        SYSTEM_CLOCK.sleep(self.random.uniform(1.5, 4))
        self.pauses.append(Paused(name, since, self._now()))

    def _now(self) -> datetime:
        with self.system.ledger.statement() as tx:
            row = tx.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def _any_task(self) -> int:
        """Return a task, or a number that none has."""
        pks = [task.pk for task in self.system.tasks() if task.exporter_id != "CLOSED"]
        return self.random.choice(pks or [0])

    def _change(self, operation: Operation, wanted: TaskFilter) -> int:
        return self._operations().change(operation, wanted, run=BulkRun(chunk=5)).changed

    def _operations(self) -> Operations:
        return Operations(self.system.ledger, self._source(), actor=OPERATOR)

    def _gatekeeper(self) -> Gatekeeper:
        device = Settings.from_environment(self.system.environment).device_name
        return Gatekeeper(
            self.system.ledger, self._source(), SYSTEM_CLOCK, device_name=device, actor=OPERATOR
        )

    def _source(self) -> ConfigurationSource:
        return open_source(Settings.from_environment(self.system.environment))
