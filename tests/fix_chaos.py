"""Faults at random over a whole running system, and what must hold afterwards.

A seed decides which faults strike, in which order and for how long; when the processes are hit
depends on the machine, so a seed repeats a scenario, not a run.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.ledger.connection import Ledger
from tests.chaos_attempts import overlaps, read_attempts
from tests.chaos_operator import OPERATOR, Operator
from tests.fix_objects import encoded_dataset, generate_studies
from tests.fix_peer import IanScp, StoreScp
from tests.fix_process import free_port
from tests.fix_proxy import Proxy, to_port, to_unix
from tests.fix_redis import RedisServer
from tests.fix_system import ARCHIVE, System, port_change

WORKERS = ("export-0", "export-1", "notify-0")
PROCESSES = ("scp-0", "scp-1", "dispatcher", *WORKERS)
KINDS = ("scp", "dispatcher", "export", "notify")
SERVERS = ("postgres", "redis")
# A claim that began just before a pause may be recorded just after it.
CLAIM_LASTS = timedelta(seconds=1)
FINAL = {"COMPLETED", "WARNING", "FAILED", "CANCELED"}


@dataclass
class LinkedSystem(System):
    """A system each kind of whose processes reaches each server through a proxy of its own."""

    links: dict[str, Proxy] = field(default_factory=dict)

    @override
    def environment_of(self, name: str) -> dict[str, str]:
        """Return the variables of a process, which lead to its proxies."""
        kind = name.partition("-")[0]
        postgres, redis = (self.links[f"{kind} to {server}"].port for server in SERVERS)
        return self.environment | {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{postgres}/postgres",
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        }


@dataclass
class Chaos:
    """A system under random faults."""

    system: LinkedSystem
    postgres: Any
    destination: StoreScp
    receiver: IanScp
    operator: Operator
    random: Random
    directory: Path
    accepted: dict[str, Path] = field(default_factory=dict)
    deaths: dict[str, list[float]] = field(default_factory=dict)
    thaws: dict[str, list[float]] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Store and strike for some time, then bring everything back and wait for rest."""
        end = SYSTEM_CLOCK.monotonic() + seconds
        with ThreadPoolExecutor(1) as pool:
            sender = pool.submit(self._store_until, end)
            try:
                while SYSTEM_CLOCK.monotonic() < end and not sender.done():
                    self.strike()
                    SYSTEM_CLOCK.sleep(self._seconds(2))
            finally:
                self.recover()
            sender.result()
        # Twice, because a task that was to be canceled may have been running still.
        for _ in range(2):
            self.system.wait_until(self._at_rest, deadline_s=180, what="all tasks to be done")
            self.operator.tidy_up()
        self.system.wait_until(self._at_rest, deadline_s=180, what="all tasks to be done")

    def _store_until(self, end: float) -> None:
        number = 0
        while SYSTEM_CLOCK.monotonic() < end:
            number += 1
            self.store(number)

    def _at_rest(self) -> bool:
        tasks = [task for task in self.system.tasks() if task.exporter_id != "CLOSED"]
        return all(task.status in FINAL for task in tasks)

    # --- faults

    def strike(self) -> None:
        """Let one fault happen, and make up for it as a supervisor would."""
        faults: list[Callable[[], str]] = [
            self._kill,
            self._kill,
            self._kill,
            self._cut,
            self._cut,
            self._silence,
            self._suspend_worker,
            self._lose_redis,
            self._flush_redis,
            self._restart_postgres,
            self._crash_postgres,
            self._kill_backend,
            *[self.operator.act] * 4,
        ]
        fault = self.random.choice(faults)
        self.journal.append(f"{_now():.3f} {fault()}")

    def store(self, number: int) -> None:
        """Store a small study, each object until it is accepted."""
        (study,) = generate_studies(
            self.directory / str(number), studies=1, instances=4, root=f"1.2.826.0.1.9.{number}"
        )
        self.system.store_all(study.files, deadline_s=120)
        self.accepted |= study.files

    def recover(self) -> None:
        """Bring everything back."""
        for link in self.system.links.values():
            link.mend()
        for name in PROCESSES:
            if not self.system.processes[name].is_alive():
                self._start(name)
        self.operator.tidy_up()

    def _kill(self) -> str:
        name = self.random.choice(PROCESSES)
        number = self.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        process = self.system.processes[name]
        process.send(number)
        with contextlib.suppress(Exception):
            process.popen.wait(8)
        process.kill()
        self._start(name)
        return f"{name} got {number.name}"

    def _start(self, name: str) -> None:
        self.deaths.setdefault(name, []).append(_now())
        self.system.start(name)

    def _cut(self) -> str:
        name, seconds = self.random.choice(sorted(self.system.links)), self._seconds(3)
        self.system.links[name].cut()
        SYSTEM_CLOCK.sleep(seconds)
        self.system.links[name].mend()
        return f"{name} was cut for {seconds:.1f} s"

    def _silence(self) -> str:
        name, seconds = self.random.choice(sorted(self.system.links)), self._seconds(7)
        self.system.links[name].freeze()
        SYSTEM_CLOCK.sleep(seconds)
        self.system.links[name].mend()
        return f"{name} was silent for {seconds:.1f} s"

    def _suspend_worker(self) -> str:
        name, seconds = self.random.choice(WORKERS), self._seconds(8)
        self.system.processes[name].send(signal.SIGSTOP)
        SYSTEM_CLOCK.sleep(seconds)
        self.thaws.setdefault(name, []).append(_now())
        self.system.processes[name].send(signal.SIGCONT)
        return f"{name} was suspended for {seconds:.1f} s"

    def _lose_redis(self) -> str:
        self.system.redis.kill()
        SYSTEM_CLOCK.sleep(self._seconds(2))
        self.system.redis.start()
        return "Redis was killed"

    def _flush_redis(self) -> str:
        self.system.redis.flush()
        return "Redis was flushed"

    def _restart_postgres(self) -> str:
        self.postgres.stop()
        SYSTEM_CLOCK.sleep(self._seconds(1))
        self.postgres.start()
        return "PostgreSQL was restarted"

    def _crash_postgres(self) -> str:
        """End all of it with KILL, as the kernel does when memory runs out; it recovers."""
        postmaster = psutil.Process(self.postgres.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        postmaster.kill()
        psutil.wait_procs(family, timeout=30)
        self.postgres.start()
        return "PostgreSQL crashed"

    def _kill_backend(self) -> str:
        """Kill one server process, whereupon PostgreSQL drops all of them and recovers."""
        children = psutil.Process(self.postgres.get_pid()).children()
        backends = [each for each in children if "postgres:" in " ".join(each.cmdline())]
        with contextlib.suppress(psutil.NoSuchProcess):
            self.random.choice(backends).kill()
        return "a process of PostgreSQL was killed"

    def _seconds(self, most: float) -> float:
        return self.random.uniform(0.1, most)

    # --- what must hold

    def check(self) -> None:
        """Check the promises once everything has come to rest."""
        self.check_deliveries()
        self.check_notifications()
        self.check_history()
        self.check_pauses()
        self.check_overlaps()

    def check_deliveries(self) -> None:
        """Every accepted object was delivered as it was sent, or its task failed visibly."""
        delivered = {each.sop_instance_uid: each.dataset for each in self.destination.received}
        failed = {
            task.study_instance_uid
            for task in self.system.tasks("EXPORT")
            if task.status in {"FAILED", "WARNING"}
        }
        for uid in self.accepted:
            if uid.rsplit(".", 2)[0] not in failed:
                assert uid in delivered, self.system.explain()
        for uid, dataset in delivered.items():
            if uid in self.accepted:
                assert dataset == encoded_dataset(self.accepted[uid]), uid

    def check_notifications(self) -> None:
        """Every object was announced whose export was completed, unless that failed visibly."""
        announced = {
            str(item.ReferencedSOPInstanceUID)
            for each in self.receiver.accepted
            for series in each.dataset.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        excused = {
            task.study_instance_uid
            for task in self.system.tasks()
            if task.status in {"FAILED", "WARNING"}
        }
        missing = {
            uid
            for uid in self.accepted
            if uid.rsplit(".", 2)[0] not in excused and uid not in announced
        }
        assert not missing, self.system.explain()

    def check_pauses(self) -> None:
        """No attempt began in a queue or for a destination while an operator kept it paused."""
        with self.system.ledger.statement() as tx:
            for pause in self.operator.pauses:
                started = tx.execute(
                    "SELECT task_fk, time FROM task_history JOIN task ON task.pk = task_fk"
                    " WHERE to_status = 'IN PROCESS' AND from_status <> 'IN PROCESS'"
                    " AND %s IN (queue_name, remote_aet) AND time BETWEEN %s AND %s",
                    (pause.name, pause.since + CLAIM_LASTS, pause.until),
                ).fetchall()
                assert not started, pause

    def check_history(self) -> None:
        """Only an operator's reschedule leads out of a final status, and a window stays closed."""
        with self.system.ledger.statement() as tx:
            overwritten = tx.execute(
                "SELECT task_fk, from_status, to_status, actor FROM task_history"
                " WHERE from_status IN ('COMPLETED', 'WARNING', 'FAILED', 'CANCELED')"
                " AND NOT (to_status = 'SCHEDULED' AND actor = %s)",
                (OPERATOR,),
            ).fetchall()
            outside = tx.execute(
                "SELECT task_fk FROM task_history JOIN task ON task.pk = task_fk"
                " WHERE queue_name = 'CLOSED' AND to_status = 'IN PROCESS'"
            ).fetchall()
        assert not overwritten
        assert not outside

    def check_overlaps(self) -> None:
        """No two attempts of a task ran at once."""
        attempts = [
            attempt
            for name in WORKERS
            for attempt in read_attempts(
                name, self.system.processes[name].output(), self.deaths.get(name, []), _now()
            )
        ]
        assert attempts
        assert not overlaps(attempts, self.thaws)


def _now() -> float:
    return SYSTEM_CLOCK.now().timestamp()


def _links(postgres: Any, redis: RedisServer, destination: int, receiver: int) -> dict[str, Proxy]:  # noqa: ANN401
    socket = f"{postgres.get_postmaster_info().socket_dir}/.s.PGSQL.5432"
    links = {f"{kind} to postgres": Proxy(to_unix(socket)) for kind in KINDS}
    links |= {f"{kind} to redis": Proxy(to_port(redis.port)) for kind in KINDS}
    links["export to destination"] = Proxy(to_port(destination))
    links["notify to receiver"] = Proxy(to_port(receiver))
    return links


def _configure(system: LinkedSystem) -> None:
    hour = (SYSTEM_CLOCK.now().astimezone().hour + 3) % 24
    patient = ["dcmMaxRetries: 1000", "dcmRetryDelay: PT1S", "dcmMaxRetryDelay: PT1S"]
    system.queue("STORESCP", *patient, "dcmMaxTasksParallel: 6")
    system.change_queue("IANSCU", *patient)
    system.queue("CLOSED", f"dcmSchedule: hour={hour}")
    port = system.links["export to destination"].port
    receiver = system.links["notify to receiver"].port
    system.export_to(port, ian_port=receiver, more=["dcmRetrieveAET: STORESCP"])
    system.export_to(port, exporter="CLOSED")


@pytest.fixture
def chaos(
    tmp_path: Path,
    own_postgres: Any,  # noqa: ANN401 - it has no types
    own_redis: RedisServer,
) -> Iterator[Callable[[int], Chaos]]:
    """Start a system whose faults follow from a seed."""
    url = f"postgresql://postgres@/postgres?host={own_postgres.get_postmaster_info().socket_dir}"
    directory = tmp_path / "data"
    directory.mkdir()
    EmbeddedDirectory(directory / "directory.ldif").create(default_entries())
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(Ledger(url, max_connections=4)))
        ledger.migrate()
        destination, receiver = StoreScp(), IanScp()
        for peer in (destination, receiver):
            peer.start()
            stack.callback(peer.stop)
        links = _links(own_postgres, own_redis, destination.port, receiver.port)
        for link in links.values():
            stack.callback(link.close)
        system = LinkedSystem(directory, url, own_redis, free_port(), ledger, links=links)
        stack.callback(system.stop)

        def start(seed: int) -> Chaos:
            system.configure(port_change(f"cn=dicom,{ARCHIVE}", system.port))
            _configure(system)
            system.start(*PROCESSES)
            random = Random(seed)  # noqa: S311 - chooses faults
            peers = (destination, receiver)
            operator = Operator(system, random)
            return Chaos(system, own_postgres, *peers, operator, random, tmp_path / "objects")

        yield start
