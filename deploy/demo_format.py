"""Messages and data sets as dcm4che's tools log them."""

from collections.abc import Iterator
from datetime import datetime

from pydicom import DataElement, Dataset
from pydicom.uid import UID

_LINE_LENGTH = 96


def message_lines(now: datetime, association: str, command: str, uids: dict[str, str]) -> list[str]:
    """Return the log lines of a received request.

    Parameters
    ----------
    association
        Who received from whom, such as ``STORESCP<-DCM4CHEE``.
    uids
        What to show under which abbreviation: cuid, iuid, tsuid.
    """
    head = f"{_time(now)} INFO  - {association} >> {command}["
    body = [f"  {name}={uid} - {_name(uid)}" for name, uid in uids.items()]
    return [head, *body[:-1], f"{body[-1]}]"]


def dataset_lines(now: datetime, dataset: Dataset) -> list[str]:
    """Return the log lines of a data set."""
    return [f"{_time(now)} DEBUG - Dataset:", *_element_lines(dataset, "")]


def _time(now: datetime) -> str:
    return f"{now.astimezone():%H:%M:%S},{now.microsecond // 1000:03d}"


def _name(uid: str) -> str:
    name = UID(uid).name
    return "?" if name == uid else name


def _element_lines(dataset: Dataset, indent: str) -> Iterator[str]:
    for element in dataset:
        tag = f"({element.tag.group:04X},{element.tag.element:04X})"
        line = f"{indent}{tag} {element.VR} [{_value(element)}] {element.keyword}"
        yield line[:_LINE_LENGTH]
        if element.VR == "SQ":
            for number, item in enumerate(element.value, start=1):
                yield f"{indent}>Item #{number}"
                yield from _element_lines(item, f"{indent}>")


def _value(element: DataElement) -> str:
    if element.VR == "SQ":
        return f"{len(element.value)} Items" if element.value else ""
    if element.VM > 1:
        return "\\".join(map(str, element.value))
    return str(element.value or "")
