"""Connections to PostgreSQL: the pool, transactions, notifications, and the seam for its errors."""

import math
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from psycopg import errors, sql
from psycopg_pool import ConnectionPool, PoolTimeout

from archive.errors import (
    IllegalTransitionError,
    LedgerConflictError,
    LedgerError,
    LedgerUnavailableError,
)
from archive.ledger.migrations import Stage, migrate, pending

Transaction = psycopg.Connection
"""An open transaction (or, from `Ledger.statement`, one transaction per statement)."""

TASK_CHANNEL = "dicomq_task"
CANCEL_CHANNEL = "dicomq_cancel"
QUEUE_CHANNEL = "dicomq_queue"

_CONNECT_TIMEOUT_S = 10
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_OPTIONS: dict[str, Any] = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "application_name": "dicomq",
    "keepalives_idle": _KEEPALIVE_IDLE_S,
    "keepalives_interval": _KEEPALIVE_INTERVAL_S,
    "keepalives_count": _KEEPALIVE_COUNT,
}


_CONFLICTS = (errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's exceptions into the ledger's."""
    try:
        yield
    except _CONFLICTS as error:
        msg = f"two transactions got in each other's way: {_text(error)}"
        raise LedgerConflictError(msg) from error
    except errors.ForeignKeyViolation as error:
        if error.diag.table_name == "task_history":
            msg = f"this change of a task's status is not allowed: {_text(error)}"
            raise IllegalTransitionError(msg) from error
        msg = f"PostgreSQL refused a statement: {_text(error)}"
        raise LedgerError(msg) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
        msg = f"PostgreSQL cannot be reached: {_text(error)}"
        raise LedgerUnavailableError(msg) from error
    except psycopg.Error as error:
        msg = f"PostgreSQL refused a statement: {_text(error)}"
        raise LedgerError(msg) from error


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check(connection: psycopg.Connection) -> None:
    """Let the pool replace a connection that PostgreSQL has closed.

    Only one that has something to read is asked: an idle connection is silent unless it ended.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if poll.poll(0):
        ConnectionPool.check_connection(connection)


class Ledger:
    """A pool of connections to the ledger's database.

    Open it after a fork, never before.

    Parameters
    ----------
    dsn
        libpq connection string or URI.
    min_connections, max_connections
        Size of the pool.
    wait_s
        How long to wait for a free connection before giving up, seconds.
    """

    def __init__(
        self,
        dsn: str,
        *,
        min_connections: int = 1,
        max_connections: int = 8,
        wait_s: float = 10.0,
    ) -> None:
        self._dsn = dsn
        self._pool = ConnectionPool(
            dsn,
            kwargs={**_OPTIONS, "autocommit": True},
            min_size=min_connections,
            max_size=max_connections,
            timeout=wait_s,
            check=_check,
            open=False,
        )
        self._pool.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def migrate(self, stage: Stage = Stage.ALL) -> list[str]:
        """Apply missing migrations and return their names; see `archive.ledger.migrations`.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached.
        """
        with self.statement() as connection:
            return migrate(connection, stage)

    def pending_migrations(self) -> list[str]:
        """Return the names of migrations that are not applied.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached.
        """
        with self.statement() as connection:
            return pending(connection)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction: committed at the end of the block, rolled back on an exception.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached; nothing of the block was committed, unless the
            connection broke during the commit itself.
        """
        with translated_errors(), self._pool.connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def long_transaction(self) -> Iterator[Transaction]:
        """Open a transaction on a connection of its own, for what may take as long as a peer.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached.
        """
        with translated_errors(), psycopg.connect(self._dsn, **_OPTIONS) as connection:
            yield connection

    @contextmanager
    def statement(self) -> Iterator[Transaction]:
        """Lend a connection on which each statement is a transaction of its own.

        Saves the round trips of BEGIN and COMMIT where one statement does all.
        """
        with translated_errors(), self._pool.connection() as connection:
            yield connection

    def connect(self) -> psycopg.Connection:
        """Open a connection outside of the pool, in autocommit mode.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached.
        """
        with translated_errors():
            return psycopg.connect(self._dsn, autocommit=True, **_OPTIONS)

    def listen(self, *channels: str) -> "Listener":
        """Open a connection of its own that waits for notifications on `channels`."""
        return Listener(self._dsn, channels)


class Listener:
    """Waits for PostgreSQL notifications; a broken connection raises and is not repaired."""

    def __init__(self, dsn: str, channels: tuple[str, ...]) -> None:
        with translated_errors():
            self._connection = psycopg.connect(
                dsn,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                application_name="dicomq listener",
                keepalives_idle=_KEEPALIVE_IDLE_S,
                keepalives_interval=_KEEPALIVE_INTERVAL_S,
                keepalives_count=_KEEPALIVE_COUNT,
            )
            for channel in channels:
                self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def wait(self, timeout_s: float) -> list[tuple[str, str]]:
        """Return (channel, payload) of what arrived, at the latest after `timeout_s` seconds.

        Raises
        ------
        LedgerUnavailableError
            When the connection broke; notifications may have been missed.
        """
        with translated_errors():
            arrived = self._arrived()
            if arrived or timeout_s <= 0:
                return arrived
            # psycopg itself would look ten times a second
            readable = select.poll()
            readable.register(self._connection.fileno(), select.POLLIN)
            readable.poll(math.ceil(timeout_s * 1000))
            return self._arrived()

    def _arrived(self) -> list[tuple[str, str]]:
        """Return what has arrived, without waiting."""
        notifications = self._connection.notifies(timeout=0)
        return [(each.channel, each.payload) for each in notifications]
