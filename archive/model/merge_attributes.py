"""Values of dcmMergeAttribute: `Path=text{Tag}…` sets, `Path=` empties, `Path!` removes. Pure.

A path is keywords or tags of eight hexadecimal digits, separated by dots; `[n]` after a sequence
names its n-th item, the first without it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from archive.errors import InvalidValueError

_STEP = re.compile(r"(?P<name>[A-Za-z0-9]+)(?:\[(?P<item>[0-9]{1,4})\])?")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_VARIABLE = re.compile(r"\{([^{}]*)\}")


class Target(Protocol):
    """A data set under coercion."""

    dataset: Dataset

    def set(self, element: DataElement) -> None:
        """Give an element a value."""
        ...

    def clear(self, tag: int, *, keep: bool = True) -> None:
        """Empty an element or remove it."""
        ...


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step of a path: a tag and, in a sequence, the number of an item from 0."""

    tag: int
    item: int = 0


@dataclass(frozen=True, slots=True)
class MergeAttribute:
    """One value of dcmMergeAttribute.

    Attributes
    ----------
    text
        Texts and, at odd places, paths of elements whose values are put in; None empties.
    removes
        Whether the element is removed.
    """

    path: tuple[PathStep, ...]
    text: "tuple[str | tuple[PathStep, ...], ...] | None"
    removes: bool = False

    def apply(self, target: Target) -> None:
        """Change the element that the path leads to."""
        last = self.path[-1]
        value = None if self.text is None else _format(self.text, target.dataset)
        if len(self.path) == 1 and value is None:
            target.clear(last.tag, keep=not self.removes)
        elif len(self.path) == 1:
            target.set(_element(last.tag, value or ""))
        else:
            self._apply_below(target, value)

    def _apply_below(self, target: Target, value: str | None) -> None:
        """Change an element inside a sequence, which is set as a whole."""
        first = self.path[0]
        old = target.dataset.get(BaseTag(first.tag))
        items = [Dataset(item) for item in old.value] if old is not None and old.VR == "SQ" else []
        nested = Dataset()
        nested[BaseTag(first.tag)] = DataElement(first.tag, "SQ", Sequence(items))
        parent = _parent(nested, self.path, create=value is not None)
        if parent is None:
            return
        tag = BaseTag(self.path[-1].tag)
        if value is not None:
            parent[tag] = _element(self.path[-1].tag, value)
        elif self.removes:
            parent.pop(tag, None)
        elif tag in parent:
            vr = parent[tag].VR
            parent[tag] = DataElement(tag, vr, empty_value_for_VR(vr))
        target.set(nested[BaseTag(first.tag)])


def parse_merge_attributes(values: Iterable[str]) -> tuple[MergeAttribute, ...]:
    """Read the values of a dcmMergeAttribute attribute.

    Raises
    ------
    InvalidValueError
        When values have another form; the message names every bad one.
    """
    parsed, errors = [], []
    for value in values:
        try:
            parsed.append(_parse(value))
        except InvalidValueError as error:
            errors.append(str(error))
    if errors:
        raise InvalidValueError("; ".join(errors))
    return tuple(parsed)


def _parse(value: str) -> MergeAttribute:
    path, equals, text = value.partition("=")
    if not equals and path.endswith("!"):
        return MergeAttribute(_path(path[:-1], value), None, removes=True)
    if not equals:
        msg = f"{value[:80]!r} is not of the form path=value, path= or path!"
        raise InvalidValueError(msg)
    if not text:
        return MergeAttribute(_path(path, value), None)
    parts = _VARIABLE.split(text)
    formatted: list[str | tuple[PathStep, ...]] = list(parts)
    formatted[1::2] = [_path(part, value) for part in parts[1::2]]
    return MergeAttribute(_path(path, value), tuple(formatted))


def _path(text: str, value: str) -> tuple[PathStep, ...]:
    steps = []
    for part in text.split("."):
        match = _STEP.fullmatch(part)
        name = match["name"] if match else ""
        tag = int(name, 16) if _TAG.fullmatch(name) else tag_for_keyword(name)
        if match is None or tag is None:
            msg = f"{value[:80]!r} names {part[:64]!r}, which is no keyword and no tag"
            raise InvalidValueError(msg)
        steps.append(PathStep(tag, max(0, int(match["item"] or 1) - 1)))
    return tuple(steps)


def _element(tag: int, value: str) -> DataElement:
    try:
        vr = dictionary_VR(tag)[:2]
    except KeyError:
        vr = "LO"
    if vr == "SQ":
        return DataElement(tag, vr, Sequence([Dataset()]))
    return DataElement(tag, vr, value)


def _format(parts: tuple[str | tuple[PathStep, ...], ...], dataset: Dataset) -> str:
    return "".join(part if isinstance(part, str) else _value(dataset, part) for part in parts)


def _value(dataset: Dataset, path: tuple[PathStep, ...]) -> str:
    parent = _parent(dataset, path, create=False)
    element = parent.get(BaseTag(path[-1].tag)) if parent is not None else None
    if element is None or element.is_empty or element.VR == "SQ":
        return ""
    return str(element.value) if element.VM == 1 else "\\".join(map(str, element.value))


def _parent(dataset: Dataset, path: tuple[PathStep, ...], *, create: bool) -> Dataset | None:
    """Return the data set that holds the last element of a path, items made if so wished."""
    for step in path[:-1]:
        tag = BaseTag(step.tag)
        if tag not in dataset and create:
            dataset[tag] = DataElement(tag, "SQ", Sequence())
        element = dataset.get(tag)
        if element is None or element.VR != "SQ":
            return None
        while create and len(element.value) <= step.item:
            element.value.append(Dataset())
        if len(element.value) <= step.item:
            return None
        dataset = element.value[step.item]
    return dataset
