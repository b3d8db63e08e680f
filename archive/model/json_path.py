"""Keys of attributes that the index keeps as DICOM JSON, as SQL/JSON paths. Pure.

Matching of sequences is matching of one item by all keys of the identifier's item
(PS3.4 §C.2.2.2.6).
"""

import json
import re
from typing import Final

from archive.model.query_key import Key
from archive.model.wildcards import is_universal, is_wildcard

_CASE_MATTERS: Final = frozenset({"AE", "AS", "CS", "DA", "TM", "DT", "UI"})
_NUMERIC: Final = frozenset({"IS", "DS", "US", "UL", "SS", "SL", "FL", "FD"})
_SPECIAL: Final = re.compile(r"[^\w\s]", re.ASCII)
_LONGEST: Final = 512


def json_path(key: Key) -> str:
    """Return a path that finds something where the key matches; empty when it matches all."""
    if key.vr == "SQ":
        predicates = [found for each in key.items or () if (found := _predicate(each))]
        if not predicates:
            return ""
        return f'$."{key.tag:08X}".Value[*] ? ({" && ".join(predicates)})'
    predicate = _predicate(key)
    return f"$ ? ({predicate})" if predicate else ""


def _predicate(key: Key) -> str:
    """Return the condition that one key puts on an item (or on the whole level)."""
    values = key.values
    if key.vr in _NUMERIC or not values or any(map(is_universal, values)):
        return ""
    path = f'@."{key.tag:08X}".Value[*]' + (".Alphabetic" if key.vr == "PN" else "")
    return "(" + " || ".join(_comparison(path, key.vr, each[:_LONGEST]) for each in values) + ")"


def _comparison(path: str, vr: str, value: str) -> str:
    if vr == "PN":
        pattern = _quoted("^" + _regex(value) + "(\\^|$)")
        return f'{path} like_regex {pattern} flag "i"'
    if is_wildcard(value):
        flag = "" if vr in _CASE_MATTERS else ' flag "i"'
        return f"{path} like_regex {_quoted('^' + _regex(value) + '$')}{flag}"
    return f"{path} == {_quoted(value)}"


def _regex(value: str) -> str:
    """Return the regular expression of a value with wildcards."""
    escaped = _SPECIAL.sub(lambda match: "\\" + match.group(), value)
    return escaped.replace("\\*", ".*").replace("\\?", ".")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
