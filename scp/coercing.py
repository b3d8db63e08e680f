"""Coerces received objects (C_STORE_RQ, peer SCU): the index, never the file.

The file keeps what was received; what a coercion changes goes into the index and is recorded with
the instance, to be applied whenever it is sent, with Original Attributes Sequence (0400,0561).
A leading archive is never waited for: without a known answer the object is stored and marked, and
a task asks. Nothing here keeps an object from being stored.
"""

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Final

from archive.clock import Clock
from archive.configuration.descriptors import ArchiveDevice
from archive.errors import DatasetError
from archive.ledger import leading
from archive.ledger.connection import Ledger, Transaction
from archive.ledger.leading import Freshness, LeadingStudy
from archive.model.coerced_object import record, with_original_attributes
from archive.model.coercion import (
    AnswerKind,
    Coerced,
    CoercionRule,
    LeadingAnswer,
    Occasion,
    Step,
    coerce,
    select_steps,
)
from archive.model.conditions import AssociationFacts
from archive.model.entities import ObjectAttributes, Reception
from archive.model.indexed import COLUMNS, indexed_attributes
from scp.header import Header

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    DatasetError,
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whose rules hold for an object, and where it came from."""

    device: ArchiveDevice
    rules: tuple[CoercionRule, ...]
    reception: Reception
    called_aet: str


@dataclass(frozen=True, slots=True)
class CoercedReception:
    """What the rules make of a received object.

    Attributes
    ----------
    attributes
        For the index.
    changes
        What is recorded with the instance; None when nothing changed.
    pending
        Leading archives that have to be asked, with the steps that wait for them.
    """

    attributes: ObjectAttributes
    changes: dict[str, Any] | None = None
    pending: tuple[tuple[LeadingStudy, Step], ...] = field(default=())

    @property
    def is_unchanged(self) -> bool:
        """Whether the object goes into the index as it came, and nobody has to be asked."""
        return self.changes is None and not self.pending

    def keep(self, tx: Transaction) -> None:
        """Record it in the transaction that takes the object in."""
        sop = self.attributes.sop_instance_uid
        if self.changes is not None:
            leading.set_coercions(tx, sop, self.changes)
        for study, step in self.pending:
            leading.mark_pending(tx, study, sop, step.policy)
            leading.demand(tx, study, actor="reception")


def receiving_rules(
    device: ArchiveDevice, ae_rules: tuple[CoercionRule, ...]
) -> tuple[CoercionRule, ...]:
    """Return the rules for received objects, those of the AE first."""
    rules = (*ae_rules, *device.coercion_rules)
    return tuple(rule for rule in rules if rule.occasion is Occasion.RECEIVED)


class ReceptionCoercer:
    """Coerces received objects; one for all associations of a process."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def coerced(
        self, header: Header, attributes: ObjectAttributes, receiver: Receiver
    ) -> CoercedReception:
        """Return what the rules make of an object; unchanged when they cannot be applied."""
        try:
            return self._coerced(header, attributes, receiver)
        except _UNREADABLE as error:
            _log.warning(
                "object %s of %s is stored without coercion, its attributes cannot be read: %s",
                attributes.sop_instance_uid,
                receiver.reception.calling_aet,
                error,
            )
            return CoercedReception(attributes)

    def _coerced(
        self, header: Header, attributes: ObjectAttributes, receiver: Receiver
    ) -> CoercedReception:
        reception = receiver.reception
        facts = AssociationFacts(
            reception.calling_aet, reception.called_aet, reception.calling_host
        )
        dataset = header.dataset()
        now = self._clock.now()
        steps = select_steps(receiver.rules, Occasion.RECEIVED, dataset, facts, now=now)
        if not steps:
            return CoercedReception(attributes)
        result = coerce(dataset, steps, lambda step, study: self._known(step, study, receiver))
        pending = tuple(
            (_study(step, attributes.study_instance_uid, receiver), step) for step in result.pending
        )
        if not result.changed:
            return CoercedReception(attributes, pending=pending)
        indexed = _reindexed(attributes, result)
        with_original_attributes(
            result,
            modifying_system=receiver.called_aet,
            source=reception.calling_aet,
            now=now,
        )
        return CoercedReception(indexed, record(result), pending)

    def _known(self, step: Step, study: str, receiver: Receiver) -> LeadingAnswer:
        """Return the answer that is known; one that failed or is not known is pending."""
        device = receiver.device
        freshness = Freshness.of(device.leading_c_find_scp_query_cache_stale_timeout_s)
        with self._ledger.statement() as tx:
            found = leading.answer(tx, step.argument, study, freshness)
        if found is None or found.kind is AnswerKind.FAILED:
            return LeadingAnswer(AnswerKind.PENDING)
        return found


def _study(step: Step, study: str, receiver: Receiver) -> LeadingStudy:
    return LeadingStudy(step.argument, study, receiver.called_aet, receiver.device.name)


def _reindexed(attributes: ObjectAttributes, result: Coerced) -> ObjectAttributes:
    """Return the indexed attributes with what was changed; UIDs stay as they are."""
    values = indexed_attributes(result.dataset)
    changed = {
        each.column: values.get(each.column)
        for each in COLUMNS
        if each.tag in result.changed and each.vr != "UI"
    }
    return replace(attributes, **changed)  # type: ignore[arg-type] # columns of text
