"""The migrated schema, and the rules it shares with the model."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from archive.errors import IllegalTransitionError, LedgerError, LedgerUnavailableError
from archive.ledger.connection import Ledger
from archive.ledger.queries import load_queries
from archive.model.task import TRANSITIONS, TaskStatus


def test_transitions_in_sql_are_those_of_the_model(ledger: Ledger) -> None:
    """One table in two languages: they must not drift apart."""
    with ledger.statement() as tx:
        in_sql = set(tx.execute("SELECT from_status, to_status FROM task_transition").fetchall())
    in_model = {(str(old), str(new)) for old, row in TRANSITIONS.items() for new in row.values()}
    assert in_sql == in_model


def test_statuses_in_sql_are_those_of_the_model(ledger: Ledger) -> None:
    """Every status exists in SQL and agrees on whether it is final."""
    with ledger.statement() as tx:
        in_sql = dict(tx.execute("SELECT status, is_final FROM task_status").fetchall())
    assert in_sql == {str(status): status.is_final for status in TaskStatus}


@pytest.mark.parametrize("old", TaskStatus)
@pytest.mark.parametrize("new", TaskStatus)
def test_each_change_of_status_in_sql(ledger: Ledger, old: TaskStatus, new: TaskStatus) -> None:
    """A change that the table lacks is a typed error and changes nothing, whoever tries it."""
    lease = "clock_timestamp()" if new is TaskStatus.IN_PROCESS else "NULL"
    with ledger.statement() as tx:
        row = tx.execute(
            "INSERT INTO task (kind, queue_name, device_name, scheduled_time, status, lease_until)"
            " VALUES ('IAN', 'IANSCU', 'd', now(), %s, CASE WHEN %s = 'IN PROCESS' THEN now() END)"
            " RETURNING pk",
            (old, old),
        ).fetchone()
    assert row is not None
    legal = old is new or new in TRANSITIONS[old].values()

    def change() -> None:
        with ledger.statement() as tx:
            tx.execute(
                f"UPDATE task SET status = %s, lease_until = {lease} WHERE pk = %s",  # noqa: S608 - one of two constants
                (new, row[0]),
            )

    if legal:
        change()
    else:
        with pytest.raises(IllegalTransitionError):
            change()
    with ledger.statement() as tx:
        found = tx.execute("SELECT status FROM task WHERE pk = %s", row).fetchone()
    assert found == ((new if legal else old),)


@pytest.mark.parametrize(
    "room",
    [
        "objects",
        "attempts",
        "tasks",
        "deliveries",
        "notifications",
        "commitments",
        "procedure_steps",
        "reconciliation",
        "retrievals",
        "forwards",
        "completeness",
        "leading",
    ],
)
def test_every_query_prepares(ledger: Ledger, room: str) -> None:
    """Each named query is valid SQL for the migrated schema and says what it is for."""
    for name, query in load_queries(room).items():
        assert query.startswith("--"), f"{room}.{name} has no purpose line"
        count = 0
        text = query.replace("%%", "%")
        while "%(" in text:
            count += 1
            start = text.index("%(")
            text = text[:start] + f"${count}" + text[text.index(")s", start) + 2 :]
        with ledger.transaction() as tx:
            tx.execute(f"PREPARE q AS {text}")
            tx.execute("DEALLOCATE q")


def test_migrating_again_changes_nothing(ledger: Ledger) -> None:
    """A second start finds nothing to do."""
    assert ledger.migrate() == []


def test_concurrent_starts_migrate_once(empty_database_url: str) -> None:
    """Many processes starting at once on an empty database wait for each other."""

    def start() -> list[str]:
        with Ledger(empty_database_url) as ledger:
            return ledger.migrate()

    with ThreadPoolExecutor(4) as threads:
        applied = [future.result() for future in [threads.submit(start) for _ in range(4)]]
    assert sorted(bool(names) for names in applied) == [False, False, False, True]


def test_unreachable_database_is_said_so() -> None:
    """An administrator reads which service is missing, and a caller that it may come back."""
    with (
        Ledger("postgresql://nobody@127.0.0.1:9/none", wait_s=0.2) as ledger,
        pytest.raises(LedgerUnavailableError, match="PostgreSQL cannot be reached") as raised,
    ):
        ledger.migrate()
    assert raised.value.retryable


def test_refused_statement_is_ours(ledger: Ledger) -> None:
    """A statement that PostgreSQL refuses is a defect of ours, not an outage."""
    with pytest.raises(LedgerError) as raised, ledger.statement() as tx:
        tx.execute("SELECT nonsense")
    assert not raised.value.retryable
