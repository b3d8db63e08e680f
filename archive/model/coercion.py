"""Coercion of attributes: which rules apply, and what each does to a data set. Pure.

A rule of the legacy form (dcmArchiveAttributeCoercion) holds several steps, of which only the
first matching rule's are taken; each rule of the newer form (dcmArchiveAttributeCoercion2) is one
step, and all that match are taken by priority. A leading C-FIND SCP of a legacy rule applies also
beside rules of the newer form, so that an entry from the documentation works in any directory.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydicom.dataelem import DataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from archive.errors import DicomqError
from archive.model.conditions import AssociationFacts, Conditions
from archive.model.merge_attributes import MergeAttribute

STUDY_INSTANCE_UID: Final = 0x0020000D
_CHARACTER_SET: Final = 0x00080005
_PIXEL_DATA: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
NEVER_MERGED: Final = frozenset({0x00080005, 0x00080052, 0x00080054, 0x00080056})
"""Elements of a query's response that say nothing of the study."""


class UpdatePolicy(StrEnum):
    """dcmAttributeUpdatePolicy: how attributes of another source come into a data set."""

    SUPPLEMENT = "SUPPLEMENT"
    MERGE = "MERGE"
    OVERWRITE = "OVERWRITE"
    PRESERVE = "PRESERVE"
    REPLACE = "REPLACE"


class OnFailure(StrEnum):
    """dcmCoercionOnFailure: what a step that fails does to those after it."""

    RETHROW = "RETHROW"
    CONTINUE = "CONTINUE"
    SUFFICIENT = "SUFFICIENT"


class Scheme(StrEnum):
    """What a step does; the scheme of dcmURI in the newer form."""

    LEADING = "leading-arc"
    MERGE = "merge-attrs"
    TRIM = "trim-ISO2022"
    NULLIFY_PIXELS = "nullify-pixel-data"
    AS_RECEIVED = "retrieve-as-received"
    NULLIFY = "nullify"


class Occasion(StrEnum):
    """When attributes are coerced: dcmDIMSE and dicomTransferRole, which is the peer's role."""

    RECEIVED = "C_STORE_RQ SCU"
    SENT = "C_STORE_RQ SCP"
    ANSWERED = "C_FIND_RSP SCU"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to a data set.

    Attributes
    ----------
    argument
        AE title of the leading archive.
    sufficient
        Whether no further step follows once this one has applied.
    rule
        Name of the rule, for messages.
    """

    scheme: Scheme
    argument: str = ""
    policy: UpdatePolicy = UpdatePolicy.MERGE
    attributes: tuple[MergeAttribute, ...] = ()
    tags: tuple[int, ...] = ()
    sufficient: bool = False
    on_failure: OnFailure = OnFailure.RETHROW
    rule: str = ""


@dataclass(frozen=True, slots=True)
class CoercionRule:
    """A rule of either form.

    Attributes
    ----------
    occasion
        None for a hook that this release does not have.
    sop_classes
        SOP Class UIDs to which it is restricted; none for any.
    """

    name: str
    occasion: Occasion | None
    steps: tuple[Step, ...]
    is_legacy: bool = False
    priority: int = 0
    sop_classes: tuple[str, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    dn: str = ""

    def matches(
        self, occasion: Occasion, dataset: Dataset, facts: AssociationFacts, now: datetime
    ) -> bool:
        """Tell whether the rule is meant for a data set on an occasion."""
        if self.occasion is not occasion:
            return False
        if self.sop_classes and str(dataset.get("SOPClassUID", "")) not in self.sop_classes:
            return False
        return self.conditions.match(dataset, facts, now)


def select_steps(
    rules: Iterable[CoercionRule],
    occasion: Occasion,
    dataset: Dataset,
    facts: AssociationFacts,
    *,
    now: datetime,
) -> tuple[Step, ...]:
    """Return the steps to take, in order.

    Parameters
    ----------
    rules
        Those of the AE before those of the device; they go before at the same priority.
    dataset
        As it is before any step.
    """
    matching = sorted(
        (rule for rule in rules if rule.matches(occasion, dataset, facts, now)),
        key=lambda rule: -rule.priority,
    )
    newer = [rule for rule in matching if not rule.is_legacy]
    legacy = [rule for rule in matching if rule.is_legacy]
    if not newer:
        return legacy[0].steps if legacy else ()
    leading = [step for rule in legacy for step in rule.steps if step.scheme is Scheme.LEADING]
    return (*leading[:1], *(step for rule in newer for step in rule.steps))


class AnswerKind(StrEnum):
    """What is known of a study at a leading archive."""

    FOUND = "FOUND"
    NO_MATCH = "NO MATCH"
    FAILED = "FAILED"
    PENDING = "PENDING"


@dataclass(frozen=True, slots=True)
class LeadingAnswer:
    """An answer of a leading archive.

    Attributes
    ----------
    attributes
        Of the match, requested keys only.
    message
        Why it failed.
    """

    kind: AnswerKind
    attributes: Dataset | None = None
    message: str = ""


class CoercionFailedError(DicomqError):
    """A step failed whose rule says that the whole operation fails then (RETHROW)."""

    retryable = True


@dataclass(slots=True)
class Coerced:
    """A data set under coercion.

    Attributes
    ----------
    changed
        Tags of elements that were set, emptied or removed.
    originals
        Values of elements that had one and were given another.
    pending
        Leading archives whose answer is not known yet, with their policy.
    """

    dataset: Dataset
    changed: set[int] = field(default_factory=set)
    originals: Dataset = field(default_factory=Dataset)
    pending: list[Step] = field(default_factory=list)
    as_received: bool = False
    sources: list[str] = field(default_factory=list)

    def set(self, element: DataElement) -> None:
        """Give an element a value and remember the one it had."""
        tag = element.tag
        old = self.dataset.get(tag)
        if old is not None and old == element:
            return
        if old is not None and not old.is_empty and tag not in self.originals:
            self.originals[tag] = old
        self.dataset[tag] = element
        self.changed.add(int(tag))

    def clear(self, tag: int, *, keep: bool = True) -> None:
        """Empty an element that has a value, or remove it."""
        old = self.dataset.get(BaseTag(tag))
        if old is None or (keep and old.is_empty):
            return
        if not old.is_empty and tag not in self.originals and tag not in _PIXEL_DATA:
            self.originals[BaseTag(tag)] = old
        if keep:
            self.dataset[BaseTag(tag)] = DataElement(tag, old.VR, empty_value_for_VR(old.VR))
        else:
            del self.dataset[BaseTag(tag)]
        self.changed.add(tag)


Ask = Callable[[Step, str], LeadingAnswer]
"""Gives the answer of a step's leading archive for a Study Instance UID."""


def coerce(dataset: Dataset, steps: Sequence[Step], ask: Ask) -> Coerced:
    """Take the steps on a data set, which is changed in place.

    Raises
    ------
    CoercionFailedError
        When a step fails whose rule demands that everything fails then.
    """
    coerced = Coerced(dataset)
    for step in steps:
        try:
            applied = _take(coerced, step, ask)
        except CoercionFailedError:
            if step.on_failure is OnFailure.RETHROW:
                raise
            if step.on_failure is OnFailure.SUFFICIENT:
                break
            continue
        if applied and step.sufficient:
            break
    return coerced


def _take(coerced: Coerced, step: Step, ask: Ask) -> bool:
    """Take one step and tell whether it applied."""
    match step.scheme:
        case Scheme.LEADING:
            return _lead(coerced, step, ask)
        case Scheme.MERGE:
            for attribute in step.attributes:
                attribute.apply(coerced)
        case Scheme.TRIM:
            return _trim(coerced)
        case Scheme.NULLIFY | Scheme.NULLIFY_PIXELS:
            for tag in step.tags if step.scheme is Scheme.NULLIFY else _PIXEL_DATA:
                coerced.clear(tag)
        case Scheme.AS_RECEIVED:
            coerced.as_received = True
    return True


def _lead(coerced: Coerced, step: Step, ask: Ask) -> bool:
    """Merge what the leading archive knows of the study; a data set without study is left."""
    study = str(coerced.dataset.get("StudyInstanceUID", "") or "")
    if not study:
        return False
    answer = ask(step, study)
    match answer.kind:
        case AnswerKind.FAILED:
            msg = f"coercion {step.rule}: leading archive {step.argument}: {answer.message}"
            raise CoercionFailedError(msg)
        case AnswerKind.PENDING:
            coerced.pending.append(step)
            return True
        case AnswerKind.NO_MATCH:
            return False
        case AnswerKind.FOUND:
            merge(coerced, answer.attributes or Dataset(), step.policy)
            coerced.sources.append(step.argument)
            return True


def merge(coerced: Coerced, source: Dataset, policy: UpdatePolicy) -> None:
    """Bring the attributes of another source into a data set.

    REPLACE, which the reference refuses in coercions, acts as OVERWRITE.
    """
    for element in source:
        if int(element.tag) in NEVER_MERGED:
            continue
        old = coerced.dataset.get(element.tag)
        if _is_taken(policy, old, element):
            coerced.set(element)
        elif policy is UpdatePolicy.PRESERVE and old is None and not element.is_empty:
            coerced.set(DataElement(element.tag, element.VR, empty_value_for_VR(element.VR)))


def _is_taken(policy: UpdatePolicy, old: DataElement | None, new: DataElement) -> bool:
    """Tell whether a value goes into the target (reference: Attributes.update)."""
    overwrites = policy in {UpdatePolicy.OVERWRITE, UpdatePolicy.REPLACE}
    if new.is_empty:
        return overwrites
    if policy is UpdatePolicy.PRESERVE:
        return False
    return old is None or old.is_empty or policy is not UpdatePolicy.SUPPLEMENT


def _trim(coerced: Coerced) -> bool:
    """Write a single ISO 2022 code without code extensions as its ISO_IR code."""
    element = coerced.dataset.get(BaseTag(_CHARACTER_SET))
    value = element.value if element is not None else None
    if element is None or not isinstance(value, str) or not value.startswith("ISO 2022 IR "):
        return False
    coerced.set(DataElement(_CHARACTER_SET, "CS", value.replace("ISO 2022 IR ", "ISO_IR ")))
    return True


def original_attributes(
    coerced: Coerced, *, modifying_system: str, source: str, now: datetime
) -> Dataset:
    """Return an item of Original Attributes Sequence (0400,0561), PS3.3 §C.12.1.1.9.

    Parameters
    ----------
    modifying_system
        AE title that coerced.
    source
        AE title from which the object came.
    """
    item = Dataset()
    item.SourceOfPreviousValues = source
    item.AttributeModificationDateTime = f"{now:%Y%m%d%H%M%S.%f}+0000"
    item.ModifyingSystem = modifying_system
    item.ReasonForTheAttributeModification = "COERCE"
    item.ModifiedAttributesSequence = [coerced.originals]
    return item


RuleSets = Mapping[str, tuple[int, ...]]
"""Tags of an attribute set by its ID."""

DEFAULT_LEADING_TAGS: Final = (
    0x00080020,
    0x00080030,
    0x00080050,
    0x00080051,
    0x00080090,
    0x00081030,
    0x00081032,
    0x00100010,
    0x00100020,
    0x00100021,
    0x00100030,
    0x00100040,
    0x00101010,
    0x00101020,
    0x00101030,
    0x0020000D,
    0x00200010,
)
"""What a leading archive is asked for when no attribute set says otherwise."""


def leading_tags(sets: RuleSets, leading_aet: str) -> tuple[int, ...]:
    """Return the tags to ask a leading archive for: its own set, else `*`, else the default."""
    return sets.get(leading_aet) or sets.get("*") or DEFAULT_LEADING_TAGS
