"""Coerces objects on their way out (C_STORE_RQ, peer SCP): by rules, and as recorded at reception.

An object to which nothing applies goes out as it is stored. A leading archive whose answer is not
known yet is asked by a task of its own, for which the delivery waits up to
DICOMQ_LEADING_WAIT_S; what follows then says the rule (dcmCoercionOnFailure).
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from archive.ledger.leading import LeadingStudy
from archive.ledger.leading_wait import LeadingAnswers, Patience
from archive.model.coerced_object import Bytes, Delivery, coerced
from archive.model.coercion import CoercionRule, Occasion
from archive.model.conditions import AssociationFacts
from archive.model.entities import InstanceToSend
from workers.leading_find import freshness
from workers.payload import Payload
from workers.sending import ByteSource

if TYPE_CHECKING:
    from workers.processor import TaskContext
    from workers.route import Route


class Coercer:
    """Coerces the objects of one delivery; shared by its associations."""

    def __init__(self, route: "Route", context: "TaskContext") -> None:
        local_aet = route.local_aet or route.calling_aet
        device = context.snapshot.device
        self._clock = context.clock
        self._rules = _sending_rules(context, local_aet)
        self._facts = AssociationFacts(
            calling_aet=route.calling_aet,
            called_aet=route.remote_aet,
            calling_host=route.bind_address or "",
            called_host=route.host,
        )
        self._answers = LeadingAnswers(
            context.ledger,
            context.clock,
            asker=LeadingStudy("", "", local_aet, device.name),
            freshness=freshness(device),
            patience=Patience(context.settings.leading_wait_s, context.cancelled),
        )

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
        delivery = Delivery(self._rules, self._facts, self._clock.now(), self._answers.ask)
        source = cast("Bytes", payload.source)
        changed = coerced(
            source, payload.length, syntax, delivery=delivery, recorded=instance.coercions
        )
        if changed is None:
            yield payload
        else:
            yield Payload(cast("ByteSource", changed[0]), changed[1])


def _sending_rules(context: "TaskContext", local_aet: str) -> tuple[CoercionRule, ...]:
    """Return the rules for objects that the local AE sends, those of the AE first."""
    device = context.snapshot.device
    ae = device.aes.get(local_aet)
    rules = (*(ae.coercion_rules if ae else ()), *device.coercion_rules)
    return tuple(rule for rule in rules if rule.occasion is Occasion.SENT)
