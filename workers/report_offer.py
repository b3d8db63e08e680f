"""Has a report of storage commitment sent on the association of its request, if that is open.

PS3.4 §J.3.3.1.2 lets an SCP report there; who holds the association is a listening process. See
`archive.ledger.report_offers` for how the two agree on who sends the report.
"""

from typing import TYPE_CHECKING

from archive.ledger import report_offers

if TYPE_CHECKING:
    from archive.ledger.report_offers import OfferState
    from archive.model.commitment import Report
    from archive.model.task import Task
    from workers.processor import TaskContext

_LOOK_S = 0.1


def sent_where_asked(report: "Report", task: "Task", context: "TaskContext") -> int | None:
    """Offer a report to whoever holds the association of its request, and wait for the answer.

    Returns
    -------
    int or None
        Status of the response to the report; None when it has to go over a new association.
    """
    with context.ledger.transaction() as tx:
        if not report_offers.offer(tx, task.pk, report):
            return None
    while True:
        with context.ledger.transaction() as tx:
            found = report_offers.state(tx, task.pk)
            if _is_decided(found) or (
                _may_withdraw(found, context) and report_offers.withdraw(tx, task.pk)
            ):
                return found.answered_status
        context.clock.sleep(_LOOK_S)


def _is_decided(found: "OfferState") -> bool:
    return found.is_over or found.answered_status is not None


def _may_withdraw(found: "OfferState", context: "TaskContext") -> bool:
    return found.is_late or found.is_lost or context.cancelled()
