"""Conditions of rules: which objects, from whom, a rule is meant for (dcmProperty of a rule).

Each value reads `key=value` or, negated, `key!=value`; all of them must hold. A key is the
keyword or the eight hexadecimal digits of an element, a path of those through sequences, or one
of four facts of the association.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydicom import DataElement, Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence

from archive.errors import InvalidValueError
from archive.model.patterns import Pattern, compile_pattern

_KEY = re.compile(r"(?P<path>[^\[\]!]+)(?:\[(?P<position>-?[0-9]{1,6})\])?(?P<negated>!)?")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_CODE = re.compile(r"\(\s*([^,()\"]+?)\s*,\s*([^,()\"]+?)\s*(?:,\s*[^,()\"]+)?,\s*\"[^\"]*\"\s*\)")
_CURRENT_DATE = "§CURRENT_DATE"
_PATIENT_ID_EST = "§PATIENT_ID_EST"
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class AssociationFacts:
    """Who sends to whom; an empty text is a fact not known."""

    calling_aet: str = ""
    called_aet: str = ""
    calling_host: str = ""
    called_host: str = ""


_FACTS: dict[str, Callable[[AssociationFacts], str]] = {
    "SendingApplicationEntityTitle": lambda facts: facts.calling_aet,
    "ReceivingApplicationEntityTitle": lambda facts: facts.called_aet,
    "SendingHostname": lambda facts: facts.calling_host,
    "ReceivingHostname": lambda facts: facts.called_host,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition.

    Attributes
    ----------
    path
        Tags from the outermost sequence to the element; empty for a fact of the association.
    fact
        Key of the fact of the association, empty for an element.
    position
        Which of several values is meant, counted from 1; None for any.
    negated
        Whether no value may match.
    value
        The text after the equals sign.
    pattern
        The value as regular expression; None when it is empty or a special value.
    codes
        Code value and coding scheme of each alternative when the value is written as codes.
    """

    path: tuple[int, ...]
    fact: str
    position: int | None
    negated: bool
    value: str
    pattern: Pattern | None
    codes: frozenset[tuple[str, str]] = frozenset()

    @property
    def depends_on_time(self) -> bool:
        """Whether the same object may match at one time and not at another."""
        return self.value == _CURRENT_DATE

    def holds(self, dataset: Dataset, association: AssociationFacts, now: datetime) -> bool:
        """Tell whether the condition holds for an object received over `association`."""
        if self.fact:
            text = _FACTS[self.fact](association)
            found = not text if not self.value else bool(text) and self._accepts(text, now)
        elif not self.value:
            found = not any(_has_value(element) for element in _elements(dataset, self.path))
        else:
            found = any(self._any(element, now) for element in _elements(dataset, self.path))
        return found is not self.negated

    def _any(self, element: DataElement, now: datetime) -> bool:
        if element.VR == "SQ":
            return _first_code(element.value) in self.codes
        values = _texts(element)
        if self.position is not None:
            values = values[self.position - 1 : self.position]
        return any(self._accepts(text, now) for text in values)

    def _accepts(self, text: str, now: datetime) -> bool:
        if self.pattern is not None:
            return self.pattern.matches(text)
        if self.value == _CURRENT_DATE:
            return text == f"{now:%Y%m%d}"
        return _is_estonian_personal_code(text)


@dataclass(frozen=True, slots=True)
class Conditions:
    """All conditions of a rule, ANDed; without any, everything matches."""

    conditions: tuple[Condition, ...] = field(default=())
    text: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, values: Iterable[str]) -> "Conditions":
        """Read the values of a dcmProperty attribute of a rule.

        The same key given twice counts once: the later value wins.

        Raises
        ------
        InvalidValueError
            When values have another form; the message names every bad one.
        """
        texts = tuple(values)
        parsed: dict[str, Condition] = {}
        errors = []
        for text in texts:
            try:
                parsed[text.partition("=")[0]] = _parse(text)
            except InvalidValueError as error:
                errors.append(str(error))
        if errors:
            raise InvalidValueError("; ".join(errors))
        return cls(tuple(parsed[key] for key in sorted(parsed)), texts)

    def match(self, dataset: Dataset, association: AssociationFacts, now: datetime) -> bool:
        """Tell whether every condition holds.

        Parameters
        ----------
        dataset
            Attributes of the object; elements that cannot be read count as absent.
        association
            How it was received.
        now
            The present in the zone whose date `§CURRENT_DATE` means.
        """
        return all(condition.holds(dataset, association, now) for condition in self.conditions)


def _parse(text: str) -> Condition:
    key, separator, value = text.partition("=")
    match = _KEY.fullmatch(key)
    if not separator or match is None:
        msg = f"condition {text[:80]!r} is not of the form key=value or key!=value"
        raise InvalidValueError(msg)
    fact = match["path"] if match["path"] in _FACTS else ""
    special = value in {"", _CURRENT_DATE, _PATIENT_ID_EST}
    return Condition(
        path=() if fact else _parse_path(match["path"], text),
        fact=fact,
        position=_parse_position(match["position"], text),
        negated=match["negated"] is not None,
        value=value,
        pattern=None if special else compile_pattern(value),
        codes=_parse_codes(value),
    )


def _parse_path(path: str, text: str) -> tuple[int, ...]:
    tags = []
    for step in path.split("."):
        tag = int(step, 16) if _TAG.fullmatch(step) else tag_for_keyword(step)
        if tag is None:
            msg = f"condition {text[:80]!r} names {step[:64]!r}, which is no keyword and no tag"
            raise InvalidValueError(msg)
        tags.append(tag)
    return tuple(tags)


def _parse_position(position: str | None, text: str) -> int | None:
    if position is None:
        return None
    if int(position) < 1:
        msg = f"condition {text[:80]!r} asks for value [{position}]; values are counted from 1"
        raise InvalidValueError(msg)
    return int(position)


def _parse_codes(value: str) -> frozenset[tuple[str, str]]:
    """Return the codes of `(code,scheme,"meaning")|(...)`, nothing when it is something else."""
    matches = list(_CODE.finditer(value))
    if not matches or "|".join(match.group() for match in matches) != value:
        return frozenset()
    return frozenset((match[1], match[2]) for match in matches)


def _elements(dataset: Dataset, path: tuple[int, ...]) -> Iterator[DataElement]:
    """Yield the elements that `path` leads to, through every item of its sequences."""
    element = _read(dataset, path[0])
    if element is None:
        return
    if len(path) == 1:
        yield element
    elif element.VR == "SQ":
        for item in element.value:
            yield from _elements(item, path[1:])


def _read(dataset: Dataset, tag: int) -> DataElement | None:
    try:
        return dataset.get(tag)
    except _UNREADABLE:
        return None


def _has_value(element: DataElement) -> bool:
    return not element.is_empty


def _texts(element: DataElement) -> tuple[str, ...]:
    """Return the values of an element as text; binary values have none."""
    value = element.value
    if element.is_empty or isinstance(value, bytes):
        return ()
    values = value if element.VM > 1 else [value]
    if element.VR == "AT":
        return tuple(f"{int(one):08X}" for one in values)
    return tuple(text for one in values if (text := str(one).strip()))


def _first_code(items: Sequence) -> tuple[str, str] | None:
    """Return code value and coding scheme of the first item of a code sequence."""
    if not items:
        return None
    pair = []
    for keyword in ("CodeValue", "CodingSchemeDesignator"):
        element = _read(items[0], tag_for_keyword(keyword) or 0)
        pair.append(str(element.value or "").strip() if element is not None else "")
    return pair[0], pair[1]


_EST_FORM = re.compile(r"[1-8][0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{4}")
_EST_WEIGHTS = ((1, 2, 3, 4, 5, 6, 7, 8, 9, 1), (3, 4, 5, 6, 7, 8, 9, 1, 2, 3))
_EST_MODULUS = 11
_EST_NO_DIGIT = 10


def _is_estonian_personal_code(text: str) -> bool:
    """Tell whether `text` is an Estonian personal code with the right check digit."""
    if not _EST_FORM.fullmatch(text):
        return False
    digits = [int(digit) for digit in text]
    for weights in _EST_WEIGHTS:
        products = (weight * digit for weight, digit in zip(weights, digits, strict=False))
        check = sum(products) % _EST_MODULUS
        if check != _EST_NO_DIGIT:
            return check == digits[-1]
    return digits[-1] == 0
