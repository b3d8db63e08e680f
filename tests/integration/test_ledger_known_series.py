"""The short way into the index leaves what the long way leaves, or leaves nothing."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from archive.errors import LedgerConflictError, LedgerError, LedgerUnavailableError
from archive.ledger import known_series, objects, tasks
from archive.ledger.connection import Ledger
from archive.ledger.known_series import KnownSeriesWriter, Particulars, Writing
from archive.ledger.pipelining import PipelinedStatement
from archive.model.entities import (
    Announcements,
    ObjectAttributes,
    Reception,
    StoredFile,
    StoreKind,
    StorePolicy,
    StoreResult,
)
from archive.model.task import ExportEntity, ExportIntent, Task
from tests.fix_process import wait_until
from tests.integration.test_ledger_coalescing import DEVICE, deliver_all, run

TS = "1.2.840.10008.1.2.1"
FIRST = ObjectAttributes(
    "1.2.840.10008.5.1.4.1.1.2", "1.2.3.9.0", "1.2.3", "1.2.3.1", TS,
    patient_id="P1", patient_name='Müller^"A\\B"', study_date="20260101", modality="CT",
    instance_number="1", content_date="20260102", content_time="1200", number_of_frames="2",
    rows=512, columns=256,
    further={"patient": {"00104000": {"vr": "LT", "Value": ["x"]}},
             "instance": {"00080008": {"vr": "CS", "Value": ["ORIGINAL"]}}},
)  # fmt: skip
RECEPTION = Reception("MODALITY", "DCM4CHEE", "host", "MOVER", 7)
POLICY = StorePolicy(retrieve_aets=('A"B', "C\\D"), availability="NEARLINE")
EVERYTHING = """
SELECT i.series_fk, i.sop_class_uid, i.instance_number, i.content_date, i.content_time,
       i.number_of_frames, i.image_rows, i.image_columns, i.version, i.retrieve_aets,
       i.availability, i.calling_aet, i.called_aet, i.attributes, i.coercions, l.storage_id,
       l.transfer_syntax_uid, l.object_size, l.dataset_offset
FROM instance i JOIN location l ON l.instance_fk = i.pk ORDER BY i.sop_instance_uid
"""
ADVISORY = """
SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""


def intent(entity: str = "Study", due_in_s: float = 0.0) -> ExportIntent:
    return ExportIntent(
        "X", "Export", DEVICE, "DCM4CHEE", "STORESCP", ExportEntity(entity), due_in_s
    )


def attributes(number: int) -> ObjectAttributes:
    return replace(FIRST, sop_instance_uid=f"1.2.3.9.{number}")


def file(number: int) -> StoredFile:
    return StoredFile("fs1", f"p/{number}", TS, 1000, 300, f"md5:{number}")


def committed(writing: Writing) -> StoreResult | None:
    """Commit an object and return what became of it."""
    writing.begin_commit()
    return writing.wait()[0]


class Way:
    """Stores objects of one series, the first the long way."""

    def __init__(self, ledger: Ledger, policy: StorePolicy = POLICY) -> None:
        self.ledger = ledger
        self.policy = policy
        self.writer = KnownSeriesWriter(ledger, max_connections=4)

    def long(self, number: int, intents: Sequence[ExportIntent] = ()) -> StoreResult:
        with self.ledger.statement() as tx:
            return objects.store_object(
                tx, attributes(number), file(number), RECEPTION,
                intents=intents, policy=self.policy,
            )  # fmt: skip

    def learn(self) -> None:
        with self.ledger.statement() as tx:
            rows = known_series.series_rows(tx, "1.2.3", "1.2.3.1")
        assert rows is not None
        self.common = known_series.common_parameters(rows, FIRST, self.policy)

    def begin(self, number: int, intents: Sequence[ExportIntent] = ()) -> Writing:
        own = Particulars(
            attributes(number),
            known_series.encode_further(FIRST.further["instance"]),
            file(number),
            RECEPTION,
            known_series.encode_intents(intents),
        )
        return self.writer.send(self.common, own)

    def short(self, number: int, intents: Sequence[ExportIntent] = ()) -> StoreResult | None:
        return committed(self.begin(number, intents))


@pytest.fixture
def way(ledger: Ledger) -> Iterator[Way]:
    found = Way(ledger)
    found.long(0)
    found.learn()
    with contextlib.closing(found.writer):
        yield found


def rows(ledger: Ledger, query: str) -> list[tuple[object, ...]]:
    with ledger.statement() as tx:
        return tx.execute(query.encode()).fetchall()


def test_rows_are_those_of_the_long_way(way: Way) -> None:
    way.long(1)
    result = way.short(2)
    assert result is not None
    assert (result.kind, result.keep_file, result.patient_conflict) == (
        StoreKind.STORED, True, False
    )  # fmt: skip
    first, second, third = rows(way.ledger, EVERYTHING)
    assert first == second == third
    assert [row[0] for row in rows(way.ledger, "SELECT count(*) FROM study")] == [1]


@pytest.mark.parametrize("entity", ["Study", "Series", "Instance"])
@pytest.mark.parametrize("due_in_s", [0.0, 60.0])
def test_exports_are_those_of_the_long_way(way: Way, entity: str, due_in_s: float) -> None:
    demanded = [intent(entity, due_in_s)]
    assert way.long(1, demanded).staged_tasks == 1
    result = way.short(2, demanded)
    assert result is not None
    assert result.staged_tasks == 1
    staged = rows(
        way.ledger, "SELECT series_instance_uid, sop_instance_uid, reason FROM task ORDER BY pk"
    )
    assert len(staged) == (2 if entity == "Instance" else 1)
    assert [row[1] for row in staged] == (
        ["1.2.3.9.1", "1.2.3.9.2"] if entity == "Instance" else [None]
    )


def test_each_object_moves_the_due_time_later(way: Way) -> None:
    way.short(1, [intent(due_in_s=60)])
    with way.ledger.statement() as tx:
        tx.execute("UPDATE task SET scheduled_time = now() + interval '50 s'")
    way.short(2, [intent(due_in_s=60)])
    assert rows(way.ledger, "SELECT scheduled_time > now() + interval '59 s' FROM task") == [
        (True,)
    ]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM instance; DELETE FROM series",
        "UPDATE series SET rejected_study_fk = study_fk, study_fk = NULL",
        (
            "INSERT INTO patient (patient_id) VALUES ('P2'); "
            "UPDATE study SET patient_fk = (SELECT pk FROM patient WHERE patient_id = 'P2')"
        ),
    ],
)
def test_changed_series_is_left_to_the_long_way(way: Way, change: str) -> None:
    with way.ledger.transaction() as tx:
        for statement in change.split(";"):
            tx.execute(statement.encode())
    before = rows(way.ledger, "SELECT count(*) FROM instance")
    assert way.short(1, [intent()]) is None
    assert rows(way.ledger, "SELECT count(*) FROM instance") == before
    assert rows(way.ledger, "SELECT count(*) FROM task") == [(0,)]


def test_known_object_is_left_to_the_long_way(way: Way) -> None:
    assert way.short(0, [intent()]) is None
    assert rows(way.ledger, "SELECT count(*) FROM task") == [(0,)]


def test_purged_object_is_back(way: Way) -> None:
    way.long(1)
    with way.ledger.statement() as tx:
        tx.execute("DELETE FROM location")
        tx.execute("UPDATE instance SET availability = 'UNAVAILABLE'")
    assert way.long(1).kind is StoreKind.STORED
    result = way.short(0, [intent()])
    assert result is not None
    assert (result.kind, result.staged_tasks) == (StoreKind.STORED, 0)
    first, second = rows(way.ledger, EVERYTHING)
    assert first == second
    assert rows(way.ledger, "SELECT count(*) FROM task") == [(0,)], "it was seen before"
    assert way.short(0) is None, "it has a copy again"


def test_purged_object_that_is_exported_again_is_left_to_the_long_way(way: Way) -> None:
    with way.ledger.statement() as tx:
        tx.execute("DELETE FROM location")
    again = replace(intent(), reoccurred="ALWAYS")
    assert way.short(0, [again]) is None
    assert rows(way.ledger, "SELECT count(*) FROM location") == [(0,)]
    assert way.long(0, [again]).staged_tasks == 1


def test_purged_object_that_comes_twice_at_once_gets_one_copy(way: Way) -> None:
    with way.ledger.statement() as tx:
        tx.execute("DELETE FROM location")
    both = [way.begin(0), way.begin(0)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(committed, both))
    assert results.count(None) == 1
    assert rows(way.ledger, "SELECT count(*) FROM location") == [(1,)]


def test_given_up_leaves_nothing(way: Way) -> None:
    way.begin(1, [intent()]).give_up()
    assert way.short(2) is not None, "nobody holds a lock any more"
    assert [row[0] for row in rows(way.ledger, "SELECT count(*) FROM instance")] == [2]


def test_announcement_and_arrival_are_noted(ledger: Ledger) -> None:
    announced = Announcements("dev", "A", "IANSCU", ("X",), ("A",), study_delay_s=5.0)
    way = Way(ledger, replace(POLICY, announcements=announced))
    way.long(0)
    way.learn()
    with ledger.statement() as tx:
        tx.execute("DELETE FROM ian_trigger")
        task = tx.execute(
            "INSERT INTO task (kind, queue_name, device_name, scheduled_time)"
            " VALUES ('RETRIEVE', 'Q', 'dev', now()) RETURNING pk"
        ).fetchone()
        assert task is not None
        tx.execute(
            "INSERT INTO move_forward (task_fk, attempt, external_aet, through_aet, calling_aet,"
            " message_id, retrieve_level, entity_key) VALUES (%s, 1, 'E', 'T', 'MOVER', 7,"
            " 'STUDY', 'k')",
            task,
        )
    assert way.short(1) is not None
    assert len(rows(ledger, "SELECT FROM ian_trigger")) == 1
    assert len(rows(ledger, "SELECT FROM move_arrival")) == 1
    way.writer.close()


def test_claim_waits_for_an_object_that_is_joining(way: Way) -> None:
    way.short(1, [intent()])
    with way.ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    writing = way.begin(2, [intent()])
    waits_for_lock = _locked(way.ledger, writing)
    with ThreadPoolExecutor(1) as threads:

        def claim() -> Task | None:
            with way.ledger.statement() as tx:
                return tasks.claim(tx, hint, worker="w", lease_s=60)

        future = threads.submit(claim)
        waits_for_lock()
        assert not future.done()
        assert committed(writing) is not None
        task = future.result(10)
    assert task is not None
    assert deliver_all(way.ledger, task) == 3
    assert rows(way.ledger, "SELECT FROM task WHERE status = 'SCHEDULED'") == []


@pytest.mark.parametrize("due_in_s", [0.0, 60.0])
def test_object_that_comes_while_its_task_is_claimed_is_not_left_out(
    way: Way, due_in_s: float
) -> None:
    """It waits for the claim, learns that the task is gone, and stages another one."""
    way.short(1, [intent()])
    with way.ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    with way.ledger.transaction() as claiming:
        assert tasks.claim(claiming, hint, worker="w", lease_s=60) is not None
        writing = way.begin(2, [intent(due_in_s=due_in_s)])
        _locked(way.ledger, None)()
    result = committed(writing)
    assert result is not None
    assert result.staged_tasks == 1
    assert len(rows(way.ledger, "SELECT FROM task WHERE status = 'SCHEDULED'")) == 1
    assert rows(way.ledger, ADVISORY) == []


def test_error_leaves_no_lock_behind(way: Way) -> None:
    """The advisory lock is the session's for a moment, which therefore ends with an error."""
    way.short(1, [intent()])
    with way.ledger.transaction() as tx:
        (hint,) = tasks.dispatch(tx, DEVICE, "Export", 9)
    with way.ledger.transaction() as tx:
        tx.execute("LOCK task")
        writing = way.begin(2, [intent()])
        _locked(way.ledger, None)()
        assert len(tx.execute(ADVISORY).fetchall()) == 1
        tx.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(LedgerError):
            committed(writing)
        _await(way.ledger, f"NOT EXISTS ({ADVISORY})")
    with way.ledger.statement() as tx:
        assert tasks.claim(tx, hint, worker="w", lease_s=60) is not None
    assert way.short(3) is not None, "on another connection"


def test_object_of_another_patient_is_told(way: Way) -> None:
    other = replace(FIRST, patient_id="P2")
    with way.ledger.statement() as tx:
        found = known_series.series_rows(tx, "1.2.3", "1.2.3.1")
    assert found is not None
    for sent, conflict in ((FIRST, False), (other, True), (replace(FIRST, patient_id=None), False)):
        assert known_series.common_parameters(found, sent, POLICY).patient_conflict is conflict
    way.common = known_series.common_parameters(found, other, POLICY)
    result = way.short(1)
    assert result is not None
    assert result.patient_conflict


def test_objects_of_many_threads_and_a_worker(way: Way) -> None:
    """Whatever the order, each object is delivered by a task that was claimed after it."""

    def arrive(number: int) -> None:
        try:
            result = way.short(number, [intent()])
        except LedgerConflictError:
            result = None
        if result is None:
            way.long(number, [intent()])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(arrive, range(1, 60)))
    delivered = 0
    while rows(way.ledger, "SELECT FROM task WHERE status = 'SCHEDULED'"):
        delivered += deliver_all(way.ledger, run(way.ledger))
    assert delivered == 60


def test_a_connection_that_ends_is_replaced(way: Way) -> None:
    assert way.short(1) is not None
    end = (
        "SELECT pg_terminate_backend(pid, 9000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    )
    here = f"{end} AND datname = current_database() AND backend_type = 'client backend'"
    rows(way.ledger, here)
    assert way.short(2) is not None
    writing = way.begin(3)
    rows(way.ledger, here)
    with pytest.raises(LedgerUnavailableError):
        committed(writing)
    assert way.short(4) is not None


def test_no_more_connections_than_allowed(ledger: Ledger) -> None:
    statement = PipelinedStatement(ledger.connect, b"SELECT $1::text", max_connections=1, wait_s=0)
    running = statement.send([b"1"])
    with pytest.raises(LedgerUnavailableError, match="free"):
        statement.send([b"2"])
    running.begin_commit()
    assert running.wait() == [[(b"1",)]]
    again = statement.send([None])
    again.begin_commit()
    assert again.wait() == [[(None,)]]
    statement.close()


def _locked(ledger: Ledger, writing: Writing | None) -> Callable[[], None]:
    """Return what waits until a session of this database waits for a lock.

    With `writing`, first waits until its statement was executed: its transaction is idle then.
    """
    waiting = "wait_event_type = 'Lock'"
    if writing is not None:
        _await(ledger, "state = 'active' AND wait_event = 'ClientRead' OR state LIKE 'idle in%'")
    return lambda: _await(ledger, waiting)


def _await(ledger: Ledger, condition: str) -> None:
    query = f"SELECT FROM pg_stat_activity WHERE datname = current_database() AND ({condition})"
    wait_until(lambda: rows(ledger, query), deadline_s=10, what=condition)
