"""The attribute list of an Instance Availability Notification: built and checked, pure.

PS3.3 §C.4.23 gives the attributes and their types; PS3.4 §R.3.2.1.2 forbids the SCU to add any
others, so there is no patient, accession number or character set in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.dataset import Dataset

from archive.errors import InvalidValueError
from archive.model.entities import AnnouncedInstance
from archive.model.identifiers import check_ae_title, check_uid
from archive.model.task import IanDetails

PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
AVAILABILITIES = frozenset({"ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE"})


def build_notification(
    study_instance_uid: str, instances: Sequence[AnnouncedInstance], details: IanDetails
) -> Dataset:
    """Return the attribute list that announces some instances of one study.

    Parameters
    ----------
    instances
        In this order; series appear in the order of their first instance.
    details
        Retrieve AE titles and location, the same for all instances; the procedure step.
    """
    series: dict[str, list[Dataset]] = {}
    for instance in instances:
        items = series.setdefault(instance.reference.series_instance_uid, [])
        items.append(_sop_item(instance, details))
    dataset = Dataset()
    dataset.ReferencedPerformedProcedureStepSequence = _procedure_step(details)
    dataset.ReferencedSeriesSequence = [_series_item(uid, items) for uid, items in series.items()]
    dataset.StudyInstanceUID = study_instance_uid
    return dataset


def _series_item(series_instance_uid: str, items: list[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPSequence = items
    item.SeriesInstanceUID = series_instance_uid
    return item


def _procedure_step(details: IanDetails) -> list[Dataset]:
    if details.mpps_sop_instance_uid is None:
        return []
    item = Dataset()
    item.ReferencedSOPClassUID = PERFORMED_PROCEDURE_STEP
    item.ReferencedSOPInstanceUID = details.mpps_sop_instance_uid
    item.PerformedWorkitemCodeSequence = []
    return [item]


def _sop_item(instance: AnnouncedInstance, details: IanDetails) -> Dataset:
    item = Dataset()
    item.RetrieveAETitle = list(details.retrieve_aets)
    item.InstanceAvailability = instance.availability
    item.ReferencedSOPClassUID = instance.reference.sop_class_uid
    item.ReferencedSOPInstanceUID = instance.reference.sop_instance_uid
    if details.retrieve_location_uid:
        item.RetrieveLocationUID = details.retrieve_location_uid
    return item


@dataclass(frozen=True, slots=True)
class _Rule:
    """Rule for one attribute of a level (PS3.5 §7.4).

    Attributes
    ----------
    type
        1: present with a value; 2: present, may be empty; 3: may be absent.
    items
        For a sequence, the rules of its items.
    most
        Most items of a sequence, None for any number.
    """

    type: int
    items: "Mapping[str, _Rule] | None" = None
    most: int | None = None


_PERFORMED_PROCEDURE_STEP = MappingProxyType(
    {
        "ReferencedSOPClassUID": _Rule(1),
        "ReferencedSOPInstanceUID": _Rule(1),
        "PerformedWorkitemCodeSequence": _Rule(2),
    }
)
_SOP = MappingProxyType(
    {
        "ReferencedSOPClassUID": _Rule(1),
        "ReferencedSOPInstanceUID": _Rule(1),
        "InstanceAvailability": _Rule(1),
        "RetrieveAETitle": _Rule(1),
        "RetrieveLocationUID": _Rule(3),
        "RetrieveURI": _Rule(3),
        "RetrieveURL": _Rule(3),
        "StorageMediaFileSetID": _Rule(3),
        "StorageMediaFileSetUID": _Rule(3),
    }
)
_SERIES = MappingProxyType({"SeriesInstanceUID": _Rule(1), "ReferencedSOPSequence": _Rule(1, _SOP)})
_MODULE = MappingProxyType(
    {
        "ReferencedPerformedProcedureStepSequence": _Rule(2, _PERFORMED_PROCEDURE_STEP, 1),
        "StudyInstanceUID": _Rule(1),
        "ReferencedSeriesSequence": _Rule(1, _SERIES),
    }
)


def problems_of(dataset: Dataset) -> tuple[str, ...]:
    """Return what violates PS3.3 §C.4.23 or PS3.4 §R.3.2.1; nothing for a valid one."""
    return tuple(_violations(dataset, _MODULE, ""))


def _violations(dataset: Dataset, rules: Mapping[str, _Rule], place: str) -> Iterable[str]:
    for element in dataset:
        if element.keyword not in rules:
            yield f"{place}{element.keyword or element.tag} is not allowed (PS3.4 §R.3.2.1.2)"
    for keyword, rule in rules.items():
        name = f"{place}{keyword}"
        if keyword not in dataset:
            if rule.type < 3:  # noqa: PLR2004  types of PS3.5 §7.4
                yield f"{name} is missing (type {rule.type})"
            continue
        if rule.type == 1 and dataset[keyword].is_empty:
            yield f"{name} is empty (type 1)"
        if rule.items is not None:
            yield from _item_violations(dataset[keyword].value, rule, name)
        else:
            yield from _value_violations(keyword, dataset[keyword].value, name)


def _item_violations(items: Sequence[Dataset], rule: _Rule, name: str) -> Iterable[str]:
    if rule.most is not None and len(items) > rule.most:
        yield f"{name} has {len(items)} items, {rule.most} allowed"
    for number, item in enumerate(items, 1):
        yield from _violations(item, rule.items or {}, f"{name}[{number}].")


def _value_violations(keyword: str, value: object, name: str) -> Iterable[str]:
    """Yield what is wrong with the values of UIDs, AE titles and the availability."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else []
    for text in map(str, texts):
        try:
            if keyword.endswith("UID"):
                check_uid(text, name)
            elif keyword == "RetrieveAETitle":
                check_ae_title(text, name)
        except InvalidValueError as error:
            yield str(error)
        if keyword == "InstanceAvailability" and text not in AVAILABILITIES:
            yield f"{name} is {text!r}, not one of {', '.join(sorted(AVAILABILITIES))}"


def notification_attributes() -> Iterable[tuple[str, str]]:
    """Yield every attribute that a notification may have, with its type (PS3.3 §C.4.23)."""
    yield from _attributes(_MODULE, "")


def _attributes(rules: Mapping[str, _Rule], place: str) -> Iterable[tuple[str, str]]:
    for keyword, rule in rules.items():
        yield f"{place}{keyword}", str(rule.type)
        if rule.items is not None:
            yield from _attributes(rule.items, f"{place}&gt;")
