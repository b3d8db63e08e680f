"""Parameters of requests as filters, orders and targets: pure.

The names are the reference's; pages and REST read them alike, so that a page's address can be
turned into a REST call by its path.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from archive.errors import InvalidValueError
from archive.ledger.operations import PageOrder
from archive.model.instants import parse_instant, parse_range
from archive.model.task import TaskKind, TaskStatus
from archive.model.task_filter import PagePosition, TaskFilter, TimeRange

E = TypeVar("E", bound=StrEnum)
Arguments = Mapping[str, Sequence[str]]

TEXT_FILTERS = {
    "ExporterID": "exporter_ids",
    "dicomDeviceName": "device_names",
    "LocalAET": "local_aets",
    "RemoteAET": "remote_aets",
    "DestinationAET": "destination_aets",
    "StudyInstanceUID": "study_instance_uids",
    "batchID": "batch_ids",
    "queue": "queue_names",
}
TIME_FILTERS = {"createdTime": "created", "updatedTime": "updated", "scheduledTime": "scheduled"}
ALIASES = {
    "localAET": "LocalAET",
    "remoteAET": "RemoteAET",
    "dcmQueueName": "queue",
    "kind": "type",
}
FILTER_NAMES = ("taskID", "type", "status", *TEXT_FILTERS, *TIME_FILTERS)
PAGE_SIZES = (25, 50, 100, 200)
DEFAULT_PAGE_SIZE = 50
MOST = 99_999
_WORDS = {PageOrder.STATUS.value: 1, PageOrder.QUEUE.value: 2}


def normalized(arguments: Arguments) -> dict[str, list[str]]:
    """Return the arguments by their usual names, without empty values."""
    found: dict[str, list[str]] = {}
    for name, values in arguments.items():
        kept = [value.strip() for value in values if value.strip()]
        if kept:
            found.setdefault(ALIASES.get(name, name), []).extend(kept)
    return found


def task_filter(arguments: Arguments, now: datetime, *, but: Iterable[str] = ()) -> TaskFilter:
    """Return which tasks the arguments mean.

    Parameters
    ----------
    but
        Names that are no filters here.

    Raises
    ------
    InvalidValueError
        When values have no usable form; the message names all of them.
    """
    given = {name: values for name, values in normalized(arguments).items() if name not in but}
    problems: list[str] = []
    texts: dict[str, Any] = {
        field: tuple(dict.fromkeys(_split(given.get(name, ()))))
        for name, field in TEXT_FILTERS.items()
    }
    spans: dict[str, Any] = {
        field: _checked(_range, given[name][-1], now, problems) or TimeRange()
        for name, field in TIME_FILTERS.items()
        if name in given
    }
    wanted = TaskFilter(
        task_pks=_listed(_primary_key, given.get("taskID", ()), now, problems),
        kinds=_listed(_kind, given.get("type", ()), now, problems),
        statuses=_listed(_status, given.get("status", ()), now, problems),
        **texts,
        **spans,
    )
    if problems:
        raise InvalidValueError("; ".join(problems))
    return wanted


def order_of(arguments: Arguments) -> PageOrder:
    """Return the order that `orderby` names.

    Raises
    ------
    InvalidValueError
        When there is no such order.
    """
    text = _last(arguments, "orderby") or PageOrder.UPDATED_DESCENDING.value
    try:
        return PageOrder(text)
    except ValueError:
        known = ", ".join(PageOrder)
        msg = f"orderby={text[:40]!r} is none of {known}"
        raise InvalidValueError(msg) from None


def position_in(arguments: Arguments) -> PagePosition | None:
    """Return where the page begins that `after` names: time, task ID and words, with tildes.

    Raises
    ------
    InvalidValueError
        When it has another form.
    """
    text = _last(arguments, "after")
    if text is None:
        return None
    column = order_of(arguments).lstrip("-")
    time, _, rest = text.partition("~")
    pk, *words = rest.split("~", 2)
    try:
        position = PagePosition(datetime.fromisoformat(time), int(pk), tuple(reversed(words)))
    except ValueError:
        position = None
    if position is None or len(words) != _WORDS.get(column, 0):
        msg = f"after={text[:60]!r} is no position of a page ordered by {column}"
        raise InvalidValueError(msg)
    return position


def position_text(position: PagePosition) -> str:
    """Return a position as `position_in` reads it."""
    return "~".join((position.time.isoformat(), str(position.task_pk), *reversed(position.words)))


def number_of(arguments: Arguments, name: str, *, least: int, most: int = MOST) -> int | None:
    """Return a whole number, None when it is not given.

    Raises
    ------
    InvalidValueError
        When it is none, or lies outside.
    """
    text = _last(arguments, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
        msg = f"{name}={text[:40]!r} is not a number from {least} to {most}"
        raise InvalidValueError(msg)
    return int(text)


def instant_of(arguments: Arguments, name: str, now: datetime) -> datetime | None:
    """Return a point in time, None when it is not given.

    Raises
    ------
    InvalidValueError
        When it is none.
    """
    text = _last(arguments, name)
    if text is None:
        return None
    try:
        return parse_instant(text, now)
    except InvalidValueError as error:
        msg = f"{name}: {error}"
        raise InvalidValueError(msg) from error


def text_of(arguments: Arguments, name: str, most: int = 1000) -> str | None:
    """Return a text, None when it is not given.

    Raises
    ------
    InvalidValueError
        When it is too long or contains control characters, which PostgreSQL and peers refuse.
    """
    text = _last(arguments, name)
    if text is None:
        return None
    if len(text) > most or not text.isprintable():
        msg = f"{name} has more than {most} characters, or some that cannot be printed"
        raise InvalidValueError(msg)
    return text


def flag_of(arguments: Arguments, name: str) -> bool:
    """Return whether a flag is set: ``name``, ``name=true``; ``false`` unsets it.

    Raises
    ------
    InvalidValueError
        When it is neither.
    """
    values = arguments.get(name)
    if not values:
        return False
    text = values[-1].strip().lower()
    if text not in {"", "true", "false"}:
        msg = f"{name}={text[:20]!r} is neither true nor false"
        raise InvalidValueError(msg)
    return text != "false"


def member(members: type[E], text: str) -> E:
    """Return the member that `text` spells, in any case and with any of blank, `_` and `-`.

    Raises
    ------
    InvalidValueError
        When there is none.
    """

    def plain(value: str) -> str:
        return re.sub(r"[\s_-]+", "", value).upper()

    found = next((each for each in members if plain(each) == plain(text)), None)
    if found is None:
        msg = f"{text[:40]!r} is none of {', '.join(members)}"
        raise InvalidValueError(msg)
    return found


def _last(arguments: Arguments, name: str) -> str | None:
    values = arguments.get(name)
    return values[-1].strip() or None if values else None


def _split(values: Iterable[str]) -> Iterable[str]:
    for value in values:
        for part in value.split(","):
            text = part.strip()
            if text:
                yield text.replace("\0", "\N{REPLACEMENT CHARACTER}")


T = TypeVar("T")


def _listed(
    parse: Callable[[str, datetime], T], values: Iterable[str], now: datetime, problems: list[str]
) -> tuple[T, ...]:
    found = [_checked(parse, value, now, problems) for value in _split(values)]
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _checked(
    parse: Callable[[str, datetime], T], value: str, now: datetime, problems: list[str]
) -> T | None:
    try:
        return parse(value, now)
    except InvalidValueError as error:
        problems.append(str(error))
        return None


def _range(text: str, now: datetime) -> TimeRange:
    return parse_range(text, now)


def _kind(text: str, _now: datetime) -> TaskKind:
    return member(TaskKind, text)


def _status(text: str, _now: datetime) -> TaskStatus:
    return member(TaskStatus, text)


def _primary_key(text: str, _now: datetime) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**63:
        msg = f"{text[:40]!r} is not the ID of a task"
        raise InvalidValueError(msg)
    return int(text)
