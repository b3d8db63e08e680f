"""Coerces answers to queries (C_FIND_RSP, peer SCU).

Responses are taken in groups: for all studies of a group that a leading archive has not been asked
about, tasks are staged at once, and what is not answered in time is coerced as the rule says
(dcmCoercionOnFailure). The time is one budget for the whole query.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from archive.clock import Clock
from archive.configuration.descriptors import NetworkAE, Snapshot
from archive.ledger import leading
from archive.ledger.connection import Ledger
from archive.ledger.leading import LEADING_CHANNEL, Freshness, LeadingStudy
from archive.model.coercion import (
    AnswerKind,
    LeadingAnswer,
    Occasion,
    Scheme,
    Step,
    coerce,
    select_steps,
)
from archive.model.conditions import AssociationFacts
from archive.model.query import STUDY_INSTANCE_UID

Found = tuple[str, Dataset]
"""Study Instance UID (empty above that level) and the identifier of a response."""

_GROUP: Final = 50
_LOOK_S: Final = 2.0
_CHARACTER_SET: Final = 0x00080005
_UTF_8: Final = "ISO_IR 192"


class AnswerCoercer:
    """Coerces the responses to one query.

    Parameters
    ----------
    wait_s
        How long the whole query waits for leading archives.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        configuration: tuple[Snapshot, NetworkAE],
        facts: AssociationFacts,
        wait_s: float,
    ) -> None:
        snapshot, ae = configuration
        self._ledger = ledger
        self._clock = clock
        self._device = snapshot.device
        self._local_aet = ae.title
        self._facts = facts
        self._deadline = clock.monotonic() + wait_s
        rules = (*ae.coercion_rules, *snapshot.device.coercion_rules)
        self._rules = tuple(rule for rule in rules if rule.occasion is Occasion.ANSWERED)
        self._freshness = Freshness.of(
            snapshot.device.leading_c_find_scp_query_cache_stale_timeout_s
        )

    def applied(self, found: Iterable[Found]) -> Iterator[Dataset]:
        """Yield the identifiers as they have to be answered.

        Raises
        ------
        CoercionFailedError
            When a step fails whose rule says that the query fails then.
        """
        rest = iter(found)
        if not self._rules:
            yield from (identifier for _, identifier in rest)
            return
        while group := list(islice(rest, _GROUP)):
            steps = [self._steps(identifier) for _, identifier in group]
            answers = self._answers(
                {
                    (step.argument, study)
                    for (study, _), taken in zip(group, steps, strict=True)
                    for step in taken
                    if step.scheme is Scheme.LEADING and study
                }
            )
            for (study, identifier), taken in zip(group, steps, strict=True):
                yield _coerced(study, identifier, taken, answers=answers)

    def _steps(self, identifier: Dataset) -> tuple[Step, ...]:
        now = self._clock.now()
        return select_steps(self._rules, Occasion.ANSWERED, identifier, self._facts, now=now)

    def _answers(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], LeadingAnswer]:
        """Return the answers to (leading archive, study), asked for and waited for."""
        answers = self._known(wanted)
        missing = wanted - answers.keys()
        if not missing:
            return answers
        with self._ledger.listen(LEADING_CHANNEL) as listener:
            with self._ledger.transaction() as tx:
                for aet, study in sorted(missing):
                    asked = LeadingStudy(aet, study, self._local_aet, self._device.name)
                    leading.demand(tx, asked, actor=f"query of {self._facts.calling_aet}")
            while missing and (left_s := self._deadline - self._clock.monotonic()) > 0:
                listener.wait(min(left_s, _LOOK_S))
                answers |= self._known(missing)
                missing -= answers.keys()
        late = LeadingAnswer(AnswerKind.FAILED, message="no answer in time (DICOMQ_LEADING_WAIT_S)")
        return answers | dict.fromkeys(missing, late)

    def _known(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], LeadingAnswer]:
        with self._ledger.statement() as tx:
            found = {key: leading.answer(tx, *key, self._freshness) for key in wanted}
        return {key: answer for key, answer in found.items() if answer is not None}


def _coerced(
    study: str,
    identifier: Dataset,
    steps: Sequence[Step],
    *,
    answers: dict[tuple[str, str], LeadingAnswer],
) -> Dataset:
    """Return an identifier after the steps; only its own elements are changed."""
    asked = {int(tag) for tag in identifier.keys()}  # noqa: SIM118 - not the elements
    identifier.StudyInstanceUID = study

    def ask(step: Step, _: str) -> LeadingAnswer:
        answer = answers.get((step.argument, study))
        return _asked_only(answer or LeadingAnswer(AnswerKind.NO_MATCH), asked)

    result = coerce(identifier, steps, ask)
    for tag in {*result.changed, int(STUDY_INSTANCE_UID.tag)} - asked:
        identifier.pop(BaseTag(tag), None)
    changed = [identifier[tag] for tag in result.changed & asked if tag in identifier]
    if any(not str(element.value).isascii() for element in changed):
        for element in changed:  # they are Unicode already, decoding would spoil them
            del identifier[element.tag]
        identifier.decode()
        for element in changed:
            identifier[element.tag] = element
        identifier[_CHARACTER_SET] = DataElement(_CHARACTER_SET, "CS", _UTF_8)
    return identifier


def _asked_only(answer: LeadingAnswer, asked: set[int]) -> LeadingAnswer:
    """Return an answer with those attributes only that the requestor asked for."""
    if answer.attributes is None:
        return answer
    kept = Dataset()
    for element in answer.attributes:
        if int(element.tag) in asked:
            kept[element.tag] = element
    return LeadingAnswer(answer.kind, kept)
