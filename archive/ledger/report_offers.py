"""Reports of storage commitment that a worker offers to the process that holds the association.

A listening process that took a request notes for how long it holds its association. A worker that
has verified the instances within that time offers the report; the listening process takes it,
sends it and notes the answer. If it ends, loses the association or is too slow, the worker sends
the report over a new association: nothing waits for a process that is gone.
"""

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from archive.ledger.connection import Transaction
from archive.ledger.queries import load_queries
from archive.model.commitment import Report, ReportedInstance

ANSWER_S = 60.0
"""How long whoever took a report may wait for its answer."""


@dataclass(frozen=True, slots=True)
class OfferState:
    """What became of an offered report.

    Attributes
    ----------
    is_over
        The association is not held any more.
    answered_status
        Status of the response to the report; None as long as there is none.
    is_late, is_lost
        Nobody took it in time; whoever took it has not answered in time.
    """

    is_over: bool
    answered_status: int | None
    is_late: bool
    is_lost: bool


def offer(tx: Transaction, task_pk: int, report: Report) -> bool:
    """Offer a report; False when nobody holds the association of its request."""
    instances = [
        [each.sop_class_uid, each.sop_instance_uid, each.failure_reason, each.retrieve_aet]
        for each in report.instances
    ]
    parameters = {"task_pk": task_pk, "report": Jsonb(instances)}
    return tx.execute(load_queries("commitments")["offer_report"], parameters).rowcount > 0


def state(tx: Transaction, task_pk: int) -> OfferState:
    """Return what became of an offered report; over when its task was deleted."""
    parameters = {"task_pk": task_pk, "answer_s": ANSWER_S}
    row = tx.execute(load_queries("commitments")["offer_state"], parameters).fetchone()
    if row is None:
        return OfferState(is_over=True, answered_status=None, is_late=False, is_lost=False)
    return OfferState(bool(row[0]), row[1], bool(row[2]), bool(row[3]))


def withdraw(tx: Transaction, task_pk: int) -> bool:
    """Withdraw an offered report; False when it is being sent, or was, or nobody holds it."""
    parameters = {"task_pk": task_pk, "answer_s": ANSWER_S}
    return tx.execute(load_queries("commitments")["withdraw_report"], parameters).rowcount > 0


def take(tx: Transaction, task_pk: int) -> Report | None:
    """Take a report in order to send it; None when there is none (any longer)."""
    query = load_queries("commitments")["take_report"]
    row = tx.execute(query, {"task_pk": task_pk}).fetchone()
    if row is None:
        return None
    transaction_uid, instances = row
    return Report(transaction_uid, tuple(ReportedInstance(*each) for each in instances))


def answer(tx: Transaction, task_pk: int, status: int) -> None:
    """Note the status of the response to a report that was taken."""
    parameters = {"task_pk": task_pk, "status": status}
    tx.execute(load_queries("commitments")["answer_report"], parameters)


def end_hold(tx: Transaction, task_pk: int) -> None:
    """Note that nothing more is sent on the association of a request."""
    tx.execute(load_queries("commitments")["end_hold"], {"task_pk": task_pk})
