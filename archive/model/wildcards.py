"""Wildcard matching and matching of person names as patterns of SQL's LIKE. Pure."""

from typing import Final

from archive.model.query import Attribute, NameLike

_LONGEST: Final = 512
_COMPONENTS: Final = 5
_GROUPS: Final = 3


def is_universal(value: str) -> bool:
    """Tell whether a key matches everything (PS3.4 §C.2.2.2.3)."""
    return not value.strip("*")


def is_wildcard(value: str) -> bool:
    """Tell whether a value has wildcards (PS3.4 §C.2.2.2.4)."""
    return "*" in value or "?" in value


def like_pattern(value: str) -> str:
    """Return the pattern of LIKE for a value with wildcards."""
    escaped = value[:_LONGEST].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def name_criterion(attribute: Attribute, values: tuple[str, ...]) -> NameLike | None:
    """Return the criterion for a person name, None when it matches everything.

    Case is ignored. A component that is not given matches everything, so `DOE` finds Doe^Jane;
    a name of one group is looked for in all three (PS3.5 §6.2.1.1).
    """
    names = [value.split("=")[:_GROUPS] for value in values]
    if all(len(groups) == 1 for groups in names):
        patterns = [_group_patterns(groups[0]) for groups in names]
        if not all(patterns):
            return None
        return NameLike(attribute, (tuple(each for found in patterns for each in found),), True)  # noqa: FBT003
    by_group = tuple(map(_group_patterns, names[0]))
    return NameLike(attribute, by_group, any_group=False) if any(by_group) else None


def _group_patterns(group: str) -> tuple[str, ...]:
    """Return patterns of which one has to match a component group; none for any."""
    components = [component.strip() for component in group.lower().split("^")[:_COMPONENTS]]
    while components and components[-1] in {"", "*"}:
        components.pop()
    if not components:
        return ()
    joined = "^".join(component or "*" for component in components[:-1])
    text = f"{joined}^{components[-1]}" if joined else components[-1]
    pattern = like_pattern(text)
    if text.endswith("*") or len(components) == _COMPONENTS:
        return (pattern,)
    return (pattern, f"{pattern}^%")
