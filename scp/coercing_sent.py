"""Coerces the objects that a C-GET returns (C_STORE_RQ, peer SCP)."""

from io import BytesIO

from archive.clock import Clock
from archive.ledger.connection import Ledger
from archive.ledger.leading import Freshness, LeadingStudy
from archive.ledger.leading_wait import LeadingAnswers, Patience
from archive.model.coerced_object import Delivery, coerced
from archive.model.coercion import Occasion
from archive.model.conditions import AssociationFacts
from archive.model.entities import InstanceToSend
from scp.session import Session


class SentCoercer:
    """Coerces the objects of one C-GET.

    Parameters
    ----------
    wait_s
        How long it waits for the answer of a leading archive.
    """

    def __init__(self, ledger: Ledger, clock: Clock, session: Session, wait_s: float) -> None:
        device = session.snapshot.device
        rules = (*session.ae.coercion_rules, *device.coercion_rules)
        self._rules = tuple(rule for rule in rules if rule.occasion is Occasion.SENT)
        self._clock = clock
        self._facts = AssociationFacts(
            calling_aet=session.called_aet,
            called_aet=session.calling_aet,
            called_host=session.calling_host,
        )
        self._answers = LeadingAnswers(
            ledger,
            clock,
            asker=LeadingStudy("", "", session.ae.title, device.name),
            freshness=Freshness.of(device.leading_c_find_scp_query_cache_stale_timeout_s),
            patience=Patience(wait_s),
        )

    def applied(self, encoded: bytes, instance: InstanceToSend, syntax: str) -> bytes:
        """Return an encoded data set as it has to go out.

        Raises
        ------
        CoercionFailedError
            When a rule fails whose failure means that the object is not sent.
        DatasetError
            When the object cannot be read.
        """
        if not self._rules and not instance.coercions:
            return encoded
        delivery = Delivery(self._rules, self._facts, self._clock.now(), self._answers.ask)
        changed = coerced(
            BytesIO(encoded), len(encoded), syntax, delivery=delivery, recorded=instance.coercions
        )
        if changed is None:
            return encoded
        source, length = changed
        buffer = bytearray(length)
        view = memoryview(buffer)
        filled = 0
        while filled < length and (count := source.readinto(view[filled:])):
            filled += count
        return bytes(view[:filled])
