"""The workers: Celery carries hints, the ledger says what is true.

A task is a row of the ledger. The dispatcher hands due rows to Redis as hints `(pk, attempt)`,
one Celery queue per queue name; a worker that receives a hint claims the row in PostgreSQL,
performs it and finishes it there, always under its attempt number. A hint that is lost,
duplicated or stale is therefore harmless: a lost one is handed over again with a new attempt,
the others find no row to claim and are dropped.

What a crash leaves behind

* of Redis: rows that were handed over but have no hint; the dispatcher notices and hands them
  over again;
* of a dispatcher: rows marked but not published; the same;
* of a worker: claimed rows whose lease lapses; the rescuer applies the queue's retry policy
  with the reason "worker lost";
* of PostgreSQL: nothing committed is lost; workers keep trying to finish for as long as their
  lease lasts, then the rescuer of the restarted server takes over.
"""

from typing import TYPE_CHECKING

from archive.decoders import leave_out_decoders

if TYPE_CHECKING:
    from workers.app import WorkerApp


def __getattr__(name: str) -> "WorkerApp":
    """Return the Celery application for ``celery -A workers``, imported when it is asked for."""
    if name == "celery":
        leave_out_decoders()
        from workers.app import app  # noqa: PLC0415 - importing a module must not import Celery

        return app
    raise AttributeError(name)
