"""Dispatcher and workers as processes over real servers, with scripted processors."""

import base64
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import NewTask, Task, TaskKind, TaskStatus
from tests.fix_process import RunningProcess, Spawn, wait_until
from tests.fix_redis import RedisServer

DEVICE = "dcm4chee-arc"
QUEUE = "Export"


DEVICE_DN = f"dicomDeviceName={DEVICE},cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
DEVICE_LDIF = f"""version: 1

dn: cn=DICOM Configuration,dc=dcm4che,dc=org
objectClass: dicomConfigurationRoot
cn: DICOM Configuration

dn: cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
objectClass: dicomDevicesRoot
cn: Devices

dn: {DEVICE_DN}
objectClass: dicomDevice
objectClass: dcmDevice
objectClass: dcmArchiveDevice
dicomDeviceName: {DEVICE}
dicomInstalled: TRUE
"""
DEFAULTS = {"dcmMaxTasksParallel": "4", "dcmMaxRetries": "2", "dcmRetryDelay": "PT1S"}


@dataclass(frozen=True)
class Run:
    """One performance of a task, as its processor recorded it."""

    task_pk: int
    attempt: int
    pid: int
    started: float
    ended: float | None


@dataclass
class Engine:
    """A dispatcher and workers under test; see `engine_app` for what their tasks do."""

    ledger: Ledger
    redis: RedisServer
    directory: Path
    environment: dict[str, str]
    spawn: Spawn
    processes: list[RunningProcess] = field(default_factory=list)

    def configure(self, queues: Mapping[str, Mapping[str, str]]) -> None:
        """Write the directory: `queues` by name, each with its LDAP attributes."""
        path = self.directory / "directory.ldif"
        temporary = path.with_suffix(".new")
        temporary.write_text("".join((DEVICE_LDIF, *map(_queue_ldif, queues, queues.values()))))
        temporary.replace(path)

    def start_dispatcher(self, **environment: str) -> RunningProcess:
        """Start a dispatcher and wait until it is at work."""
        return self._start(["dispatcher"], "dispatcher.started", environment)

    def start_worker(self, *options: str, **environment: str) -> RunningProcess:
        """Start a worker and wait until it consumes."""
        name = f"w{len(self.processes)}@test"
        argv = ["worker", "-P", "threads", "-c", "4", "-n", name, *options]
        return self._start(argv, "worker.queues-changed", environment)

    def stage(self, script: str = "noop", *, queue: str = QUEUE, due_in_s: float = 0.0) -> int:
        """Stage one task."""
        return self.stage_many(1, script, queue=queue, due_in_s=due_in_s)[0]

    def stage_many(
        self, count: int, script: str = "noop", *, queue: str = QUEUE, due_in_s: float = 0.0
    ) -> list[int]:
        """Stage tasks in one transaction."""
        new = NewTask(
            kind=TaskKind.RETRIEVE,
            queue_name=queue,
            device_name=DEVICE,
            local_aet="DCM4CHEE",
            remote_aet="STORESCP",
            study_instance_uid="1.2.3",
            exporter_id=script,
            due_in_s=due_in_s,
        )
        with self.ledger.transaction() as tx:
            return [tasks.stage(tx, new, actor="test") for _ in range(count)]

    def get(self, pk: int) -> Task:
        """Return a task as it stands."""
        with self.ledger.statement() as tx:
            return tasks.get(tx, pk)

    def cancel(self, pk: int) -> TaskStatus:
        """Cancel a task."""
        with self.ledger.transaction() as tx:
            return tasks.cancel(tx, pk, actor="test")

    def counts(self) -> dict[TaskStatus, int]:
        """Return how many tasks stand in each status."""
        with self.ledger.statement() as tx:
            counted = tasks.count_by_status(tx)
        totals: dict[TaskStatus, int] = {}
        for (_, status), count in counted.items():
            totals[status] = totals.get(status, 0) + count
        return totals

    def await_status(self, pk: int, *wanted: TaskStatus, deadline_s: float = 30.0) -> Task:
        """Return the task once it stands in one of the statuses `wanted`."""

        def reached() -> Task | None:
            task = self.get(pk)
            return task if task.status in wanted else None

        what = f"task {pk} to be {' or '.join(wanted)}"
        found = wait_until(reached, deadline_s=deadline_s, what=what)
        assert found is not None
        return found

    def await_all_done(self, *, deadline_s: float = 60.0) -> dict[TaskStatus, int]:
        """Return the counts once every task has reached a final status."""

        def done() -> dict[TaskStatus, int] | None:
            counts = self.counts()
            return counts if all(status.is_final for status in counts) else None

        found = wait_until(done, deadline_s=deadline_s, what="all tasks to be done")
        assert found is not None
        return found

    def runs(self) -> list[Run]:
        """Return the performances so far; one that never ended has no end."""
        path = self.directory / "runs.log"
        started: dict[tuple[int, int, int], Run] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            word, pk, attempt, pid, instant = line.split()
            key = (int(pk), int(attempt), int(pid))
            if word == "start":
                started[key] = Run(*key, float(instant), None)
            else:
                started[key] = Run(*key, started[key].started, float(instant))
        return list(started.values())

    def celery(self, *arguments: str, **environment: str) -> RunningProcess:
        """Start a celery command of the application without waiting for anything."""
        return self.spawn(self._argv([*arguments]), self.environment | environment)

    def _start(
        self, arguments: list[str], event: str, environment: dict[str, str]
    ) -> RunningProcess:
        process = self.spawn(self._argv(arguments), self.environment | environment)
        self.processes.append(process)
        wait_until(_shows(process, event), what=f"{event} of {arguments}")
        return process

    def _argv(self, arguments: list[str]) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", "tests.engine_app", *arguments]


def _queue_ldif(name: str, attributes: Mapping[str, str]) -> str:
    dn = f"dcmQueueName={name},{DEVICE_DN}"
    values = {"dcmQueueName": name} | DEFAULTS | dict(attributes)
    lines = [f"dn:: {_base64(dn)}", "objectClass: dcmQueue"]
    lines += [f"{attribute}:: {_base64(value)}" for attribute, value in values.items()]
    return "\n" + "\n".join(lines) + "\n"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _shows(process: RunningProcess, event: str) -> Callable[[], bool]:
    def shown() -> bool:
        is_alive = process.is_alive()  # asked first: all that an ended process wrote is read then
        output = process.output()
        if event in output:  # a worker may end as soon as it has started
            return True
        assert is_alive, output
        return False

    return shown


def overlap(runs: list[Run]) -> int:
    """Return how many of the ended `runs` were under way at the same time, at most."""
    edges = sorted(
        edge
        for run in runs
        if run.ended is not None
        for edge in ((run.started, 1), (run.ended, -1))
    )
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return most


def new_engine(
    ledger: Ledger, ledger_url: str, redis: RedisServer, *, spawn: Spawn, directory: Path
) -> Engine:
    """Return an engine without processes, with short leases and one queue."""
    environment = {
        "DATABASE_URL": ledger_url,
        "REDIS_URL": redis.url,
        "DICOMQ_DATA": str(directory),
        "DICOMQ_DEVICE": DEVICE,
        "DICOMQ_LEASE_S": "3",
        "DICOMQ_HEARTBEAT_S": "0.5",
        "DICOMQ_POLL_S": "1",
    }
    made = Engine(ledger, redis, directory, environment, spawn)
    made.configure({QUEUE: {}})
    return made


@pytest.fixture
def engine(
    ledger: Ledger, ledger_url: str, own_redis: RedisServer, spawn: Spawn, tmp_path: Path
) -> Iterator[Engine]:
    """Engine without processes, to be started by the test."""
    started = new_engine(ledger, ledger_url, own_redis, spawn=spawn, directory=tmp_path)
    yield started
    for process in started.processes:
        process.send(signal.SIGCONT)
