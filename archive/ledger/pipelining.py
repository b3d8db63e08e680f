"""A prepared statement that PostgreSQL executes while its caller does something else.

A statement sent in libpq's pipeline mode runs at once, and its transaction stays open until a
synchronisation point is sent: that commits. So the caller can make a file durable in between, and
the row of a file is never committed before the file is durable. Each statement has a connection
of its own as long as it runs; a connection whose statement failed or was given up is closed, which
makes PostgreSQL roll back and let go whatever the session holds.
"""

import select
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

import psycopg
from psycopg import errors, pq

from archive.errors import LedgerUnavailableError
from archive.ledger.connection import translated_errors

Row = tuple[bytes | None, ...]
"""Columns of a row as PostgreSQL writes them as text."""

T = TypeVar("T")

_STATEMENT: Final = b"pipelined"
_BROKEN: Final = "the connection to PostgreSQL broke"


class PipelinedStatement:
    """One statement, prepared on as many connections as are needed at once.

    Parameters
    ----------
    connect
        Opens a connection in autocommit mode.
    statement
        SQL with parameters $1, $2 and so on.
    max_connections
        Whoever wants another one waits until one is free.
    wait_s
        How long, seconds.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        statement: bytes,
        *,
        max_connections: int = 8,
        wait_s: float = 10.0,
    ) -> None:
        self._connect = connect
        self._statement = statement
        self._wait_s = wait_s
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(max_connections):
            self._permits.put(None)
        self._idle: list[_Lane] = []

    def send(self, *parameters: Sequence[bytes | None]) -> "Running":
        """Send the statement, once for each set of parameters, and return without waiting for it.

        All are one transaction. Exactly one of the methods of what is returned has to be called.

        Parameters
        ----------
        parameters
            Values as text in UTF-8, None for NULL.

        Raises
        ------
        LedgerUnavailableError
            When PostgreSQL cannot be reached, or no connection becomes free; nothing was sent.
        """
        try:
            self._permits.get(timeout=self._wait_s)
        except Empty:
            msg = f"no connection to PostgreSQL became free within {self._wait_s} s"
            raise LedgerUnavailableError(msg) from None
        lane = None
        try:
            lane = self._lane()
            lane.send(parameters)
        except BaseException:
            self._release(lane, usable=False)
            with translated_errors():
                raise
        return Running(lane, self._release)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _lane(self) -> "_Lane":
        """Return a connection that still stands, opened if need be."""
        while True:
            try:
                lane = self._idle.pop()
            except IndexError:
                return _Lane(self._connect(), self._statement)
            if lane.is_silent():
                return lane
            lane.close()

    def _release(self, lane: "_Lane | None", *, usable: bool) -> None:
        try:
            if lane is not None and usable:
                self._idle.append(lane)
            elif lane is not None:
                lane.close()
        finally:
            self._permits.put(None)


class Running:
    """A statement that was sent once or several times; its transaction is open."""

    def __init__(self, lane: "_Lane", release: "Callable[..., None]") -> None:
        self._lane = lane
        self._release = release

    def add(self, parameters: Sequence[bytes | None]) -> None:
        """Send the statement once more, in the same transaction.

        Raises
        ------
        LedgerUnavailableError
            When the connection broke; nothing was done.
        """
        self._guarded(lambda: self._lane.send([parameters]))

    def begin_commit(self) -> None:
        """Commit, without waiting for it; `results` then tells what became of it.

        Raises
        ------
        LedgerUnavailableError
            When the connection broke: nobody knows whether it was committed.
        """
        self._guarded(self._lane.begin_commit)

    def fileno(self) -> int:
        """Return the descriptor that can be read when there may be news for `results`."""
        return self._lane.fileno()

    def results(self) -> list[list[Row]] | None:
        """Return the rows of each time it was sent, None as long as they have not come.

        Raises
        ------
        LedgerConflictError
            When a concurrent transaction got in the way; nothing was done.
        LedgerUnavailableError
            When the connection broke: nobody knows whether it was committed.
        LedgerError
            When PostgreSQL refused the statement; nothing was done.
        """
        rows = self._guarded(self._lane.results)
        if rows is not None:
            self._release(self._lane, usable=True)
        return rows

    def wait(self) -> list[list[Row]]:
        """Return the `results` once they have come; errors as for those."""
        while (rows := self.results()) is None:
            self._lane.wait()
        return rows

    def give_up(self) -> None:
        """Roll back."""
        self._release(self._lane, usable=False)

    def _guarded(self, step: Callable[[], T]) -> T:
        """Do a step; let the connection go when that fails."""
        try:
            return step()
        except BaseException:
            self._release(self._lane, usable=False)
            with translated_errors():
                raise


class _Lane:
    """A connection with the statement prepared, in pipeline mode."""

    def __init__(self, connection: psycopg.Connection, statement: bytes) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        try:
            self._prepare(statement)
        except BaseException:
            self.close()
            raise

    def is_silent(self) -> bool:
        """Tell whether nothing came in: an idle connection is silent unless it ended."""
        return not self._poll.poll(0)

    def send(self, parameters: Sequence[Sequence[bytes | None]]) -> None:
        """Let PostgreSQL execute the statement; the transaction stays open."""
        for each in parameters:
            self._pgconn.send_query_prepared(_STATEMENT, each)
        self._flush()

    def fileno(self) -> int:
        """Return the descriptor of the connection's socket."""
        return int(self._pgconn.socket)

    def begin_commit(self) -> None:
        """End the transaction."""
        self._pgconn.pipeline_sync()
        self._flush()
        self._rows: list[list[Row]] = []
        self._failed: pq.abc.PGresult | None = None

    def wait(self) -> None:
        """Wait until there is something to read."""
        self._poll.poll()

    def results(self) -> list[list[Row]] | None:
        """Return the rows of each statement, None as long as they have not come."""
        self._pgconn.consume_input()
        while not self._pgconn.is_busy():
            if self._pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(_BROKEN)
            result = self._pgconn.get_result()
            if result is None:
                continue  # between the results of two messages
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                if self._failed is not None:
                    raise errors.error_from_result(self._failed)
                return self._rows
            if result.status == pq.ExecStatus.FATAL_ERROR:
                self._failed = self._failed or result
            elif result.status == pq.ExecStatus.TUPLES_OK:
                self._rows.append(_rows(result))
        return None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _prepare(self, statement: bytes) -> None:
        result = self._pgconn.prepare(_STATEMENT, statement)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()

    def _flush(self) -> None:
        """Send everything, reading what comes meanwhile, so that nobody waits for us."""
        while self._pgconn.flush():
            writable = select.poll()
            writable.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
            if any(event & select.POLLIN for _, event in writable.poll()):
                self._pgconn.consume_input()


def _rows(result: "pq.abc.PGresult") -> list[Row]:
    return [
        tuple(result.get_value(row, column) for column in range(result.nfields))
        for row in range(result.ntuples)
    ]
