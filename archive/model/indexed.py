"""Which elements the index keeps in columns, and their values of a data set. Pure."""

from typing import Final

from pydicom.dataset import Dataset

from archive.model.query import ATTRIBUTES, Attribute

COLUMNS: Final[tuple[Attribute, ...]] = tuple(
    each for each in ATTRIBUTES.values() if each.column and each.vr != "US"
)


def indexed_attributes(dataset: Dataset) -> dict[str, str]:
    """Return the text of the elements that have a column; empty ones are left out."""
    values = {}
    for attribute in COLUMNS:
        element = dataset.get(attribute.tag)
        if element is not None and not element.is_empty:
            value = element.value if element.VM == 1 else element.value[0]
            text = str(value).replace("\0", "").strip()
            if text:
                values[attribute.column] = text
    return values
