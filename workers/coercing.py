"""Coerces objects on their way out (C_STORE_RQ, peer SCP): by rules, and as recorded at reception.

An object to which nothing applies goes out as it is stored. A leading archive whose answer is not
known yet is asked by a task of its own, for which the delivery waits up to
DICOMQ_LEADING_WAIT_S; what follows then says the rule (dcmCoercionOnFailure).
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from archive.ledger import leading
from archive.ledger.leading import LEADING_CHANNEL, LeadingStudy
from archive.model.coerced_object import Bytes, Delivery, coerced
from archive.model.coercion import (
    AnswerKind,
    CoercionRule,
    LeadingAnswer,
    Occasion,
    Step,
)
from archive.model.conditions import AssociationFacts
from archive.model.entities import InstanceToSend
from workers.leading_find import freshness
from workers.payload import Payload
from workers.sending import ByteSource

if TYPE_CHECKING:
    from workers.processor import TaskContext
    from workers.route import Route

_LOOK_S = 2.0


class Coercer:
    """Coerces the objects of one delivery; shared by its associations."""

    def __init__(self, route: "Route", context: "TaskContext") -> None:
        self._context = context
        self._local_aet = route.local_aet or route.calling_aet
        self._rules = _sending_rules(context, self._local_aet)
        self._facts = AssociationFacts(
            calling_aet=route.calling_aet,
            called_aet=route.remote_aet,
            calling_host=route.bind_address or "",
            called_host=route.host,
        )
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], LeadingAnswer] = {}

    @contextlib.contextmanager
    def applied(self, payload: Payload, instance: InstanceToSend, syntax: str) -> Iterator[Payload]:
        """Yield what goes out for a payload in a transfer syntax.

        Raises
        ------
        CoercionFailedError
            When a rule fails whose failure means that the object is not sent.
        DatasetError
            When the object cannot be read.
        """
        if not self._rules and not instance.coercions:
            yield payload
            return
        delivery = Delivery(self._rules, self._facts, self._context.clock.now(), self._ask)
        source = cast("Bytes", payload.source)
        changed = coerced(
            source, payload.length, syntax, delivery=delivery, recorded=instance.coercions
        )
        if changed is None:
            yield payload
        else:
            yield Payload(cast("ByteSource", changed[0]), changed[1])

    def _ask(self, step: Step, study: str) -> LeadingAnswer:
        """Return the answer of a leading archive; the same one throughout the delivery."""
        key = (step.argument, study)
        with self._lock:
            if key not in self._answers:
                self._answers[key] = self._awaited(step.argument, study)
            return self._answers[key]

    def _awaited(self, leading_aet: str, study: str) -> LeadingAnswer:
        found = self._known(leading_aet, study)
        if found is not None:
            return found
        wanted = LeadingStudy(
            leading_aet, study, self._local_aet, self._context.snapshot.device.name
        )
        with self._context.ledger.listen(LEADING_CHANNEL) as listener:
            with self._context.ledger.transaction() as tx:
                leading.demand(tx, wanted, actor=f"coercion for {self._facts.called_aet}")
            wait_s = self._context.settings.leading_wait_s
            end = self._context.clock.monotonic() + wait_s
            while (left_s := end - self._context.clock.monotonic()) > 0:
                leading.wait(listener, wanted, min(left_s, _LOOK_S))
                found = self._known(leading_aet, study)
                if found is not None:
                    return found
                if self._context.cancelled():
                    break
        message = f"no answer within {wait_s:g} s (DICOMQ_LEADING_WAIT_S)"
        return LeadingAnswer(AnswerKind.FAILED, message=message)

    def _known(self, leading_aet: str, study: str) -> LeadingAnswer | None:
        with self._context.ledger.statement() as tx:
            return leading.answer(tx, leading_aet, study, freshness(self._context.snapshot.device))


def _sending_rules(context: "TaskContext", local_aet: str) -> tuple[CoercionRule, ...]:
    """Return the rules for objects that the local AE sends, those of the AE first."""
    device = context.snapshot.device
    ae = device.aes.get(local_aet)
    rules = (*(ae.coercion_rules if ae else ()), *device.coercion_rules)
    return tuple(rule for rule in rules if rule.occasion is Occasion.SENT)
