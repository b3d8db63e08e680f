"""Guarded regular expressions: an administrator's pattern never hangs the receiver.

Python's engine backtracks, so a repeat inside a repeat costs time exponential in the length of
the text, and each further repeat one more power of it. The first is refused when the pattern is
read; for the second the text that is looked at is cut so that the work stays bounded.
"""

import re
from dataclasses import dataclass

from archive.errors import InvalidValueError

_BUDGET_STEPS = 2e7
_SHORTEST_CUT = 64
_LONGEST_CUT = 10240
_MOST_REPEATS = 6
_MANY = 10
_COUNTED = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")
_QUANTIFIER = re.compile(r"[*+]|\{\d*,?\d*\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression with the number of characters of a text that it looks at."""

    compiled: re.Pattern[str]
    longest: int

    def matches(self, text: str) -> bool:
        """Tell whether the pattern matches the whole of `text`, cut to `longest` characters."""
        return self.compiled.fullmatch(text[: self.longest]) is not None


def compile_pattern(text: str) -> Pattern:
    """Compile a regular expression that has to match a whole value.

    Raises
    ------
    InvalidValueError
        When it is not a regular expression, repeats a repeat such as `(a+)+`, or has more than
        six open repeats in a row.
    """
    try:
        compiled = re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        msg = f"{text[:80]!r} is not a regular expression: {error}"
        raise InvalidValueError(msg) from error
    repeats = _count_repeats(text)
    if repeats > _MOST_REPEATS:
        msg = f"{text[:80]!r} has {repeats} open repeats (* or +), at most {_MOST_REPEATS} are safe"
        raise InvalidValueError(msg)
    cut = int((_BUDGET_STEPS) ** (1 / max(1, repeats)))
    return Pattern(compiled, min(_LONGEST_CUT, max(_SHORTEST_CUT, cut)))


@dataclass(slots=True)
class _Group:
    """What was counted in one group: open repeats of its longest branch, and whether it chooses."""

    longest: int = 0
    present: int = 0
    chooses: bool = False

    def close_branch(self) -> int:
        self.longest = max(self.longest, self.present)
        self.present = 0
        return self.longest


def _count_repeats(text: str) -> int:
    """Return the most open repeats on one path through the pattern `text`."""
    groups = [_Group()]
    closed: _Group | None = None
    position = 0
    while position < len(text):
        lexeme = _lexeme(text, position)
        position += len(lexeme)
        if lexeme in {"(", "(?"}:
            groups.append(_Group())
        elif lexeme == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1].present += closed.close_branch()
            groups[-1].chooses |= closed.chooses
            continue
        else:
            _count(lexeme, groups[-1], closed=closed, text=text)
        closed = None
    return groups[0].close_branch()


def _count(lexeme: str, group: _Group, *, closed: _Group | None, text: str) -> None:
    """Count one lexeme that is no bracket; `closed` is the group that ended just before it."""
    if lexeme == "|":
        group.close_branch()
    elif _is_open_repeat(lexeme):
        if closed is not None and closed.chooses:
            msg = (
                f"{text[:80]!r} repeats a group that holds a repeat or a choice, which can take "
                "for ever on a hostile value; write it without nesting"
            )
            raise InvalidValueError(msg)
        group.present += 1
    group.chooses |= lexeme in {"|", "?"} or _QUANTIFIER.fullmatch(lexeme) is not None


def _lexeme(text: str, position: int) -> str:
    """Return the lexical element at `position`: an escape, a class, a quantifier, a character."""
    if text[position] == "\\":
        return text[position : position + 2]
    if text.startswith("(?", position):
        return "(?"
    if text[position] == "[":
        end = position + 2 if text[position + 1 : position + 2] != "^" else position + 3
        while end < len(text) and text[end] != "]":
            end += 2 if text[end] == "\\" else 1
        return text[position : end + 1]
    quantifier = _QUANTIFIER.match(text, position)
    return quantifier.group() if quantifier else text[position]


def _is_open_repeat(lexeme: str) -> bool:
    """Tell whether `lexeme` is a quantifier without a small upper bound."""
    if lexeme in {"*", "+"}:
        return True
    counted = _COUNTED.fullmatch(lexeme)
    if counted is None:
        return False
    least, comma, most = counted.groups()
    top = most if comma else least
    return not top or int(top) >= _MANY
