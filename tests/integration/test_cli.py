"""The celery command line: as programs start it, and in process for what it prints."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.configuration.records import Record
from archive.ledger import gates, tasks
from archive.ledger.connection import Ledger
from archive.ledger.gates import Gate
from archive.model.gates import CircuitPolicy
from archive.model.retry import Finish
from archive.model.task import Failure, NewTask, Outcome, Task, TaskKind, TaskStatus
from tests.fix_peer import StoreScp
from tests.fix_process import ROOT, free_port
from tests.fix_system import ARCHIVE, System
from workers.commands.destinations import destinations
from workers.commands.queues import queues
from workers.commands.studies import studies
from workers.commands.tasks import tasks as tasks_command

DEVICE = "dcm4chee-arc"
NEW = NewTask(TaskKind.EXPORT, "Export", DEVICE, "ARC", "PACS", "1.2.3", exporter_id="A")
HOSTILE = "refused \x1b[31m[red]by[/red]\x07 peer"
CELERY = str(Path(sys.executable).parent / "celery")
GROUPS = {
    group.name: group for group in (tasks_command, queues, destinations, studies) if group.name
}


@dataclass
class Terminal:
    """Gives commands, in this process or in one of their own."""

    ledger: Ledger
    environment: dict[str, str]

    def __call__(self, line: str, answer: str | None = None) -> Result:
        """Give the command in this process; `answer` is typed when it asks."""
        group, *arguments = line.split()
        return CliRunner(env=self.environment).invoke(
            GROUPS[group], arguments, input=answer, standalone_mode=True
        )

    def celery(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Give the command as people do, in a process without terminal."""
        return subprocess.run(
            [CELERY, "-A", "workers", *line.split()],
            env={**os.environ, **self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def stage(self, new: NewTask = NEW, count: int = 1) -> list[int]:
        """Stage tasks."""
        with self.ledger.transaction() as tx:
            return [tasks.stage(tx, new, actor="test") for _ in range(count)]

    def fail(self, message: str = HOSTILE) -> int:
        """Stage a task and let it fail with what a peer said."""
        (pk,) = self.stage()
        with self.ledger.transaction() as tx:
            (hint,) = tasks.dispatch(tx, DEVICE, "Export", 99)
            task = tasks.claim(tx, hint, worker="w", lease_s=60)
            assert task is not None
            outcome = Outcome(TaskStatus.FAILED, message, Failure.PERMANENT)
            tasks.finish(tx, task, outcome, Finish(TaskStatus.FAILED), actor="w")
        return pk

    def get(self, pk: int) -> Task:
        """Return a task."""
        with self.ledger.statement() as tx:
            return tasks.get(tx, pk)

    def statuses(self) -> list[TaskStatus]:
        """Return the statuses of all tasks, oldest first."""
        with self.ledger.statement() as tx:
            rows = tx.execute("SELECT status FROM task ORDER BY pk").fetchall()
        return [TaskStatus(row[0]) for row in rows]


@pytest.fixture
def terminal(ledger: Ledger, ledger_url: str, tmp_path: Path) -> Terminal:
    """A terminal whose directory is the default one."""
    environment = {
        "DATABASE_URL": ledger_url,
        "DICOMQ_DATA": str(tmp_path),
        "DICOMQ_DEVICE": DEVICE,
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    return Terminal(ledger, environment)


def ok(result: Result, status: int = 0) -> str:
    """Return the output of a command that has to end with `status`."""
    assert result.exit_code == status, result.output
    return result.output


# --- as a process


def test_commands_are_subcommands_of_celery(terminal: Terminal) -> None:
    """Found by their entry points; help shows examples; nothing else is printed."""
    told = terminal.celery("tasks --help")
    assert told.returncode == 0
    assert "celery -A workers tasks list -s failed --updated 2h" in told.stdout
    (pk,) = terminal.stage()
    listed = terminal.celery("tasks list -s scheduled --json")
    assert [task["taskID"] for task in json.loads(listed.stdout)] == [pk]
    assert (listed.returncode, listed.stderr) == (0, "")


def test_bulk_from_a_script(terminal: Terminal) -> None:
    """Exit status 0 all, 1 some, 2 none or an error; without --yes nothing happens."""
    terminal.stage(count=3)
    unasked = terminal.celery("tasks cancel -Q Export")
    assert unasked.returncode == 2
    assert "3 tasks would be canceled (SCHEDULED 3)" in unasked.stderr
    assert "--yes goes on without asking" in unasked.stderr
    assert set(terminal.statuses()) == {TaskStatus.SCHEDULED}
    done = terminal.celery("tasks cancel -Q Export --yes")
    assert (done.returncode, done.stdout) == (0, "3 tasks canceled (SCHEDULED 3)\n")
    terminal.stage()
    some = terminal.celery("tasks cancel -Q Export --yes --json")
    assert some.returncode == 1
    assert json.loads(some.stdout) == {
        "count": 1,
        "failed": 3,
        "changed": {"SCHEDULED": 1},
        "skipped": {"CANCELED": 3},
    }
    none = terminal.celery("tasks cancel -Q Export -s canceled --yes")
    assert (none.returncode, none.stdout) == (2, "0 tasks canceled, 4 skipped (CANCELED 4)\n")


def test_unreachable_ledger_is_one_line(terminal: Terminal) -> None:
    away = f"postgresql://127.0.0.1:{free_port()}/none"
    told = terminal.celery("tasks count", DATABASE_URL=away)
    assert told.returncode == 2
    assert told.stderr.startswith("Error: PostgreSQL cannot be reached")
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tasks list -s can", "canceled"),
        ("tasks list -k stg", "stgcmt_scu"),
        ("tasks resch", "reschedule"),
        ("queues pause IAN", "IANSCU"),
    ],
)
def test_shell_completion(terminal: Terminal, words: str, expected: str) -> None:
    line = f"celery -A workers {words}"
    completed = terminal.celery(
        "",
        _CELERY_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split()) - 1),
    )
    assert f"plain,{expected}" in completed.stdout.split()


def test_celery_starts_without_heavy_imports(terminal: Terminal) -> None:
    """Every worker imports the commands: they bring neither rich nor psycopg with them."""
    modules = ", ".join(f"workers.commands.{name}" for name in GROUPS)
    code = f"import sys, {modules}; print({{'rich', 'psycopg', 'pynetdicom'}} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **terminal.environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "set()\n"


# --- tasks


def test_table_of_tasks_is_inert(terminal: Terminal) -> None:
    """What a peer said can neither colour nor clear the screen."""
    pk = terminal.fail()
    for line in ("tasks list", f"tasks show {pk}", "tasks list --csv"):
        printed = ok(terminal(line))
        assert "[red]by[/red]" in printed
        assert "\\x1b[31m" in printed
        assert "\x1b" not in printed
        assert "\x07" not in printed
    (task,) = json.loads(ok(terminal("tasks list --json")))
    assert task["errorMessage"] == HOSTILE


def test_list_pages_and_orders(terminal: Terminal) -> None:
    pks = terminal.stage(count=60)

    def listed(line: str) -> list[int]:
        return [task["taskID"] for task in json.loads(ok(terminal(line)))]

    assert listed("tasks list --order createdTime --json") == pks
    assert listed("tasks list --order -createdTime -n 2 --json") == pks[:-3:-1]
    assert listed(f"tasks list --json {pks[7]} {pks[3]} --order createdTime") == [pks[3], pks[7]]
    rows = ok(terminal("tasks list")).splitlines()
    assert sum("EXPORT" in row for row in rows) == 50


def test_csv_is_read_by_programs(terminal: Terminal) -> None:
    pk = terminal.fail('said "no", then left')
    (row,) = csv.DictReader(io.StringIO(ok(terminal("tasks list --csv"))))
    assert (row["taskID"], row["status"]) == (str(pk), "FAILED")
    assert row["errorMessage"] == 'said "no", then left'
    assert row["ExporterID"] == "A"


def test_count(terminal: Terminal) -> None:
    terminal.fail()
    terminal.stage(count=2)
    counts = json.loads(ok(terminal("tasks count --json")))
    assert counts == {"count": 3, "status": {"FAILED": 1, "SCHEDULED": 2}}
    assert "total 3" in " ".join(ok(terminal("tasks count")).split())
    assert json.loads(ok(terminal("tasks count -s warning --json")))["count"] == 0


def test_show(terminal: Terminal) -> None:
    pk = terminal.fail("no")
    shown = json.loads(ok(terminal(f"tasks show {pk} --json")))
    assert [each["to"] for each in shown["history"]] == ["SCHEDULED", "IN PROCESS", "FAILED"]
    assert shown["instances"] == []
    assert "claimed" in ok(terminal(f"tasks show {pk}"))
    assert "there is no task 4711" in ok(terminal("tasks show 4711"), 2)


def test_show_says_why_a_task_waits(terminal: Terminal) -> None:
    """What was tried waits for its retry, what was not is SCHEDULED; both say for whom."""
    new, tried = terminal.stage(replace(NEW, remote_aet="STORESCP"), count=2)
    with terminal.ledger.transaction() as tx:
        hints = tasks.dispatch(tx, DEVICE, "Export", 1)
        (new, tried) = (tried, new) if hints[0].task_pk == new else (new, tried)
        task = tasks.claim(tx, hints[0], worker="w", lease_s=60)
        assert task is not None
        assert gates.note_failure(tx, task, "refused", CircuitPolicy(failures=1))
        tasks.release(tx, task, actor="w", reason="held", error_message="refused; not counted")
    shown = {pk: json.loads(ok(terminal(f"tasks show {pk} --json"))) for pk in (new, tried)}
    assert shown[new]["status"] == "SCHEDULED"
    assert shown[tried]["status"] == "SCHEDULED FOR RETRY"
    assert "failures" not in shown[tried]
    for each in shown.values():
        assert "STORESCP could not be reached 1 times in a row (refused)" in each["waitsFor"]
    assert "no attempt is made or counted" in ok(terminal(f"tasks show {new}"))
    (gate,) = [
        each
        for each in json.loads(ok(terminal("destinations list --json")))
        if each["aet"] == "STORESCP"
    ]
    assert (gate["state"], gate["waiting"]) == ("paused, probing", 2)


def test_batches(terminal: Terminal) -> None:
    terminal.stage(replace(NEW, batch_id="night[ly]"), count=2)
    (batch,) = json.loads(ok(terminal("tasks batches --json")))
    assert (batch["batchID"], batch["tasks"]) == ("night[ly]", {"scheduled": 2})
    assert "night[ly]" in ok(terminal("tasks batches"))
    assert "night[ly]" in ok(terminal("tasks batches --csv"))


def test_change_needs_a_selection(terminal: Terminal) -> None:
    terminal.stage()
    for verb in ("cancel", "reschedule", "delete"):
        assert "say which tasks" in ok(terminal(f"tasks {verb} --yes"), 2)
        assert "--all means every task" in ok(terminal(f"tasks {verb} --all -s failed --yes"), 2)
    assert terminal.statuses() == [TaskStatus.SCHEDULED]
    assert "1 task deleted" in ok(terminal("tasks delete --all --yes"))
    assert "no task matches" in ok(terminal("tasks delete --all --yes"))


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 2, 2), ("", 2, 2)])
def test_confirmation(terminal: Terminal, answer: str, status: int, left: int) -> None:
    terminal.stage(count=2)
    printed = ok(terminal("tasks delete -Q Export", answer), status)
    assert "2 tasks would be deleted (SCHEDULED 2)" in printed
    assert len(terminal.statuses()) == left


def test_named_tasks_need_no_confirmation(terminal: Terminal) -> None:
    """Those that do not exist are counted as skipped."""
    first, second = terminal.stage(count=2)
    assert "1 task canceled (SCHEDULED 1)" in ok(terminal(f"tasks cancel {first}"))
    printed = ok(terminal(f"tasks cancel {first} {second} 4711"), 1)
    assert "1 task canceled (SCHEDULED 1), 2 skipped (CANCELED 1, no such task 1)" in printed
    assert "skipped (no such task 1)" in ok(terminal("tasks cancel 4711"), 2)


def test_dry_run_changes_nothing(terminal: Terminal) -> None:
    terminal.fail()
    terminal.stage()
    printed = ok(terminal("tasks cancel --all --dry-run"), 1)
    assert "1 task would be canceled (SCHEDULED 1), 1 skipped (FAILED 1)" in printed
    assert terminal.statuses() == [TaskStatus.FAILED, TaskStatus.SCHEDULED]


def test_reschedule_at_a_time(terminal: Terminal) -> None:
    pk = terminal.fail()
    ok(terminal(f"tasks reschedule {pk} --at 210006011200"))
    task = terminal.get(pk)
    assert task.status is TaskStatus.SCHEDULED
    assert f"{task.scheduled_time.astimezone():%Y%m%d%H%M}" == "210006011200"
    assert "is not a time" in ok(terminal(f"tasks reschedule {pk} --at noon"), 2)


def test_reschedule_elsewhere_is_checked(terminal: Terminal) -> None:
    pk = terminal.fail()
    assert "there is no exporter NOPE" in ok(
        terminal(f"tasks reschedule {pk} --to-exporter NOPE"), 2
    )
    printed = ok(terminal(f"tasks reschedule {pk} --to-queue IANSCU"), 2)
    assert "1 skipped (EXPORT is no retrieve 1)" in printed


# --- queues and destinations


def test_queues(terminal: Terminal) -> None:
    terminal.stage(count=2)
    assert ok(terminal("queues pause Export --reason back[up]")) == "Export: paused\n"
    assert ok(terminal("queues pause Export"), 2) == "Export: paused already\n"
    by_name = {each["name"]: each for each in json.loads(ok(terminal("queues list --json")))}
    export = by_name["Export"]
    assert (export["state"], export["pauseReason"], export["scheduled"]) == (
        "paused",
        "back[up]",
        2,
    )
    assert by_name["IANSCU"]["pool"] == "notify"
    assert "back[up]" in ok(terminal("queues list"))
    assert "there is no queue called NOPE" in ok(terminal("queues pause Export NOPE"), 2)
    assert ok(terminal("queues resume Export IANSCU"), 1) == "Export: resumed\nIANSCU: not paused\n"


def test_destinations(terminal: Terminal) -> None:
    """State, since when, failures and why; pausing one that only tasks name."""
    first, _ = terminal.stage(count=2)
    with terminal.ledger.transaction() as tx:
        gates.note_failure(tx, terminal.get(first), HOSTILE, CircuitPolicy(failures=1))
    listed = {each["aet"]: each for each in json.loads(ok(terminal("destinations list --json")))}
    pacs = listed["PACS"]
    assert (pacs["state"], pacs["failures"], pacs["waiting"]) == ("paused, probing", 1, 2)
    assert pacs["nextProbe"] is not None
    printed = ok(terminal("destinations list"))
    assert "paused, probing" in printed
    assert "[red]by[/red]" in printed
    assert "\x1b" not in printed
    assert ok(terminal("destinations pause PACS --reason upgrade")) == "PACS: paused\n"
    assert "upgrade" in ok(terminal("destinations list"))
    assert ok(terminal("destinations resume PACS")) == "PACS: resumed\n"
    assert "no destination AE called NOPE" in ok(terminal("destinations pause NOPE"), 2)
    with terminal.ledger.transaction() as tx:
        assert gates.close_circuit(tx, Gate(DEVICE, "PACS"))


def test_echo(idle_system: System, store_scp: Callable[..., StoreScp]) -> None:
    """Answered, silent and unknown destinations."""
    peer = store_scp()
    idle_system.place_peer("STORESCP", peer.port)
    idle_system.place_peer("IANSCP", free_port())
    terminal = Terminal(idle_system.ledger, idle_system.environment)
    assert "called by DCM4CHEE: status 0000" in ok(terminal("destinations echo STORESCP"))
    printed = ok(terminal("destinations echo STORESCP IANSCP NOPE"), 1)
    assert "IANSCP: cannot connect to IANSCP" in printed
    assert "NOPE: the C-ECHO needs the remote AE NOPE" in printed
    ok(terminal("destinations echo NOPE"), 2)


# --- studies


@pytest.fixture
def exporting(terminal: Terminal) -> Terminal:
    """A terminal whose directory has the exporter STORE with a destination of notifications."""
    ok(terminal("queues list"))  # makes the directory
    directory = EmbeddedDirectory(Path(terminal.environment["DICOMQ_DATA"]) / "directory.ldif")
    for record in exporter_records():
        directory.apply(record)
    return terminal


def exporter_records() -> list[Record]:
    ldif = f"""dn: dcmExporterID=STORE,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: STORE
dcmURI: dicom:STORESCP
dcmQueueName: Export
dicomAETitle: DCM4CHEE
dcmIanDestination: IANSCP
"""
    return list(parse_ldif(ldif.encode()).records)


def test_export_by_hand(exporting: Terminal) -> None:
    printed = ok(exporting("studies export 1.2.3 1.2.4 -e STORE --batch b --at 210006011200"))
    assert "2 tasks scheduled: 1, 2" in printed
    assert "the archive has no study 1.2.3 yet" in printed
    task = exporting.get(1)
    assert (task.exporter_id, task.remote_aet, task.queue_name) == ("STORE", "STORESCP", "Export")
    assert (task.batch_id, task.follow_up_only) == ("b", False)
    assert f"{task.scheduled_time.astimezone():%Y%m%d%H%M}" == "210006011200"
    ok(exporting("studies export 1.2.3 --series 1.2.3.1 --instance 1.2.3.1.1 -e STORE"))
    assert exporting.get(3).sop_instance_uid == "1.2.3.1.1"


def test_notifications_by_hand(exporting: Terminal) -> None:
    ok(exporting("studies export 1.2.3 -e STORE --only-ian"))
    task = exporting.get(1)
    assert (task.kind, task.remote_aet, task.queue_name) == (TaskKind.IAN, "IANSCP", "IANSCU")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("studies export -e STORE", "give Study Instance UIDs"),
        ("studies export x!y -e STORE", "is not a UID"),
        ("studies export 1.2.3 -e NOPE", "there is no exporter NOPE"),
        ("studies export 1.2.3 1.2.4 --series 1.2.3.1 -e STORE", "goes with one Study"),
        ("studies export 1.2.3 --instance 1.2.3.1 -e STORE", "needs the UID of its series"),
        ("studies export 1.2.3 -e STORE --only-stgcmt", "no storage commitment SCP"),
        ("studies export 1.2.3 -e STORE --only-stgcmt --only-ian", "give either"),
        ("studies export 1.2.3 -e STORE --at noon", "is not a time"),
        ("studies export 1.2.3 -e STORE --csv -", "--csv goes without UIDs"),
    ],
)
def test_refused_exports(exporting: Terminal, line: str, words: str) -> None:
    assert words in " ".join(ok(exporting(line), 2).split())
    assert exporting.statuses() == []


def test_export_of_a_csv_file(exporting: Terminal, tmp_path: Path) -> None:
    """Good rows are exported, bad ones named with their line."""
    path = tmp_path / "studies.csv"
    path.write_text("Series;Study\n1.2.3.1;1.2.3\nbad!;1.2.4\n1.2.5.1;1.2.5\n")
    line = f"studies export -e STORE --csv {path} --column 2 --series-column 1 --delimiter ;"
    printed = ok(exporting(line), 1)
    assert "line 3 refused: Series Instance UID 'bad!' is not a UID" in printed
    assert "2 tasks scheduled, 1 rows refused" in printed
    assert [exporting.get(pk).series_instance_uid for pk in (1, 2)] == ["1.2.3.1", "1.2.5.1"]
    path.write_text("Study\nbad!\n")
    assert "nothing to export" in ok(exporting(f"studies export -e STORE --csv {path}"), 2)
    path.write_bytes(b"\xff\xfe1")
    assert "is not UTF-8" in ok(exporting(f"studies export -e STORE --csv {path}"), 2)
