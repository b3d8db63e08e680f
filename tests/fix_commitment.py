"""An archive that asks for commitment, step by step."""

from dataclasses import dataclass, field

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.ledger import commitments, tasks
from archive.ledger.commitments import CommitmentSummary
from archive.model.commitment import Report
from archive.model.retry import Finish
from archive.model.task import CommitmentDetails, NewTask, Outcome, Task, TaskKind, TaskStatus
from tests.fix_export import DEVICE, ExportBench
from workers.deadlines import Deadlines, DeadlinesConfig
from workers.storage_commitment import CommitmentProcessor


@dataclass
class CommitmentBench:
    """An export bench whose tasks are performed and finished by the test, step by step."""

    bench: ExportBench
    staged: list[Task] = field(default_factory=list)

    def run(self, kind: TaskKind, queue: str) -> Outcome:
        """Perform and finish the one due task of a queue; what follows from it is staged."""
        task = self._claimed(queue)
        assert task.kind is kind
        if kind is TaskKind.STGCMT_SCU:
            outcome = CommitmentProcessor().perform(task, self.bench.context())
        else:
            outcome = self.bench.perform(task)
        with self.bench.ledger.transaction() as tx:
            tasks.finish(tx, task, outcome, Finish(outcome.status), actor="test")
        return outcome

    def _claimed(self, queue: str) -> Task:
        """Claim the one due task of a queue."""
        with self.bench.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, queue, 100)
        return self.bench.claimed(hint)

    def export(self, study: str, series_instance_uid: str | None = None) -> Outcome:
        """Export a study, or one of its series, by exporter EXP."""
        new = NewTask(
            TaskKind.EXPORT,
            "Export",
            DEVICE,
            "DCM4CHEE",
            "STORESCP",
            study,
            series_instance_uid,
            exporter_id="EXP",
        )
        with self.bench.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="test")
        return self.run(TaskKind.EXPORT, "Export")

    def ask(self) -> Outcome:
        """Perform the waiting request for commitment."""
        return self.run(TaskKind.STGCMT_SCU, "StgCmtSCU")

    def ask_again(self, error: type[Exception]) -> None:
        """Perform the waiting request, which ends with `error`, and leave it to be retried."""
        task = self._claimed("StgCmtSCU")
        with pytest.raises(error):
            CommitmentProcessor().perform(task, self.bench.context())
        with self.bench.ledger.transaction() as tx:
            tasks.release(tx, task, actor="test", reason="test")

    def by_hand(self, study: str, held_by: str | None = "EXP") -> None:
        """Stage a request for commitment without an export."""
        new = NewTask(
            TaskKind.STGCMT_SCU,
            "StgCmtSCU",
            DEVICE,
            "DCM4CHEE",
            "STGCMTSCP",
            study,
            exporter_id="EXP",
            commitment=CommitmentDetails(held_by_exporter=held_by),
        )
        with self.bench.ledger.transaction() as tx:
            tasks.stage(tx, new, actor="test")

    def report(self, report: Report) -> commitments.RecordedReport | None:
        """Enter a report as an SCP process does."""
        with self.bench.ledger.transaction() as tx:
            return commitments.record_report(tx, report, actor="test")

    def look(self) -> int:
        """Look at deadlines once."""
        source = self.bench
        deadlines = Deadlines(source.ledger, source, SYSTEM_CLOCK, config=DeadlinesConfig(DEVICE))
        return deadlines.run_once()

    def commitments(self, study: str) -> list[CommitmentSummary]:
        """Return the requests of a study, oldest first."""
        with self.bench.ledger.statement() as tx:
            return commitments.of_study(tx, study)

    def waiting(self) -> list[tuple[str, str | None]]:
        """Return kind and destination of the tasks that wait."""
        with self.bench.ledger.statement() as tx:
            rows = tx.execute(
                "SELECT kind, remote_aet FROM task WHERE status = 'SCHEDULED' ORDER BY pk"
            )
            return [(kind, aet) for kind, aet in rows]

    def status_of(self, kind: TaskKind) -> TaskStatus:
        """Return the status of the newest task of a kind."""
        with self.bench.ledger.statement() as tx:
            row = tx.execute(
                "SELECT status FROM task WHERE kind = %s ORDER BY pk DESC LIMIT 1", (kind,)
            ).fetchone()
        assert row is not None
        return TaskStatus(row[0])


@pytest.fixture
def commitment_bench(bench: ExportBench) -> CommitmentBench:
    """An export bench that also asks for commitment."""
    return CommitmentBench(bench)
