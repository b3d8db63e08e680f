"""REST that retrieves from another archive: what the path names, what a query finds, a file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial

from archive.errors import InvalidValueError
from archive.model.durations import parse_duration
from archive.model.query_key import Key
from archive.model.retrieval import RETRIEVE_QUEUE
from workers.monitor.handler import NotFoundError
from workers.monitor.parameters import flag_of, instant_of, number_of, text_of
from workers.monitor.qido import conditions, entity_of_match, identifier, level_of
from workers.monitor.rest import Call, Endpoint, Parameter, Reply, wait_for_end
from workers.monitor.rest_exports import (
    BATCH,
    LEVELS,
    MATCHES,
    entity_of,
    moved,
    own_ae,
    read_rows,
    warning_of,
)
from workers.monitor.rest_filters import CONDITIONS, FUZZY, path_keys
from workers.monitor.rest_tasks import SCHEDULED
from workers.monitor.retrieving import RetrieveOrder, find_at, order_retrieves
from workers.ordering import Entity
from workers.task_json import task_json

STUDY_DATE = 0x00080020
DAY_S = 86400.0
MOST_QUERIES = 1000
DEVICE = Parameter("dicomDeviceName", "Device that shall do it: the own one")
PRIORITY = Parameter(
    "priority",
    "0 medium, 1 high, 2 low; without dcmQueueName only",
    {"type": "integer", "minimum": 0, "maximum": 2},
)
QUEUE = Parameter("dcmQueueName", f"Queue; default {RETRIEVE_QUEUE}")
QUEUE_OR_WAIT = Parameter("dcmQueueName", "Queue; without it the answer comes when all is done")
SPLIT = Parameter(
    "SplitStudyDateRange",
    "Ask for a range of Study Date in parts of this many days, such as P1D",
    {"type": "string", "pattern": "^P[0-9]{1,4}D$"},
)
COMMON = (DEVICE, BATCH, SCHEDULED)


def _order(call: Call) -> RetrieveOrder:
    """Return how a call wants something retrieved.

    Raises
    ------
    NotFoundError
        When it wants another device to do it.
    """
    device = text_of(call.queries, "dicomDeviceName")
    own = call.services.settings.device_name
    if device not in {None, own}:
        msg = f"this is device {own}; ask device {device} itself"
        raise NotFoundError(msg)
    return RetrieveOrder(
        local_aet=own_ae(call).title,
        remote_aet=call.path["ExternalAET"],
        destination_aet=call.path["DestinationAET"],
        at=instant_of(call.queries, "scheduledTime", call.services.clock.now()),
        batch_id=text_of(call.queries, "batchID", 64),
        queue_name=text_of(call.queries, "queue") or RETRIEVE_QUEUE,
    )


def _retrieve(call: Call) -> Reply:
    """Retrieve what the path names: as a task of a queue, or at once."""
    order, entity = _order(call), entity_of(call)
    is_queued = "queue" in call.queries
    if not is_queued:
        priority = number_of(call.queries, "priority", least=0, most=2) or 0
        order = replace(order, priority=priority)
    [pk] = order_retrieves(call.services, order, [entity], call.actor)
    if is_queued:
        operations = call.services.operations(call.actor)
        return Reply(202, task_json(operations.show(pk).task, operations.extents([pk]).get(pk)))
    return moved(call, wait_for_end(call, pk), tells_status=True)


def _retrieve_matching(word: str, call: Call) -> Reply:
    """Retrieve what a C-FIND at the archive, or at another one, finds."""
    order, level = _order(call), level_of(word)
    if flag_of(call.queries, "fuzzymatching"):
        msg = "fuzzymatching is not asked of other archives; write wildcards"
        raise InvalidValueError(msg)
    keys = (*path_keys(call), *conditions(call.conditions))
    asked = call.path.get("QueryAET", order.remote_aet)
    found: dict[Entity, None] = {}
    for part in split(keys, text_of(call.queries, "SplitStudyDateRange")):
        titles = (order.local_aet, asked)
        for match in find_at(call.services, titles, identifier(part, level)):
            found[entity_of_match(match, level)] = None
    order_retrieves(call.services, order, found, call.actor)
    return Reply(202, {"count": len(found)})


def split(keys: Sequence[Key], length: str | None) -> Iterator[tuple[Key, ...]]:
    """Yield the conditions for each part of the range of Study Date.

    Parameters
    ----------
    length
        Duration of whole days; None asks for all at once.

    Raises
    ------
    InvalidValueError
        When it is no such duration, there is no closed range, or there would be too many parts.
    """
    if length is None:
        yield tuple(keys)
        return
    days = int(parse_duration(length) // DAY_S)
    first, last = _range(keys)
    if days < 1 or (last - first).days // days >= MOST_QUERIES:
        msg = (
            f"SplitStudyDateRange={length} is shorter than a day, or makes more than"
            f" {MOST_QUERIES} queries"
        )
        raise InvalidValueError(msg)
    others = tuple(key for key in keys if key.tag != STUDY_DATE)
    while first <= last:
        end = min(last, first + timedelta(days=days - 1))
        yield (*others, Key(STUDY_DATE, "DA", (f"{first:%Y%m%d}-{end:%Y%m%d}",)))
        first = end + timedelta(days=1)


def _range(keys: Sequence[Key]) -> tuple[date, date]:
    given = next((key.values[0] for key in keys if key.tag == STUDY_DATE), "")
    since, _, until = given.partition("-")
    try:
        return date.fromisoformat(since), date.fromisoformat(until)
    except ValueError:
        msg = "SplitStudyDateRange needs StudyDate=yyyyMMdd-yyyyMMdd"
        raise InvalidValueError(msg) from None


def _retrieve_rows(call: Call) -> Reply:
    """Retrieve the studies of a file."""
    order, content = _order(call), read_rows(call)
    if not content.entities:
        return Reply(204, warning=warning_of(content) or "no rows")
    order_retrieves(call.services, order, content.entities, call.actor)
    return Reply(202, {"count": len(content.entities)}, warning=warning_of(content))


def retrieve_endpoints() -> list[Endpoint]:
    """Return the endpoints that retrieve from another archive."""
    external = "/aets/{AETitle}/dimse/{ExternalAET}"
    to = "export/dicom:{DestinationAET}"
    by_query = (QUEUE, *COMMON, FUZZY, SPLIT, *CONDITIONS)
    # An archive is asked level by level (PS3.4 §C.4.1.2.2): a study for its series, and so on.
    asked = [
        (at, path, word)
        for path, word in MATCHES
        if path.count("{") == ("study", "series", "instance").index(word)
        for at in ("", "/query:{QueryAET}")
    ]
    return [
        Endpoint(
            *("POST", f"{external}/studies/csv:{{column}}/{to}", _retrieve_rows),
            *("Retrieve the studies of a file", (QUEUE, *COMMON)),
            *((202, 204, 400, 404), "text/csv"),
        ),
        *(
            Endpoint(
                *("POST", f"{external}{level}/{to}", _retrieve),
                *("Retrieve from another archive", (QUEUE_OR_WAIT, PRIORITY, *COMMON)),
                (200, 202, 206, 400, 404, 502),
            )
            for level in LEVELS
        ),
        *(
            Endpoint(
                *("POST", f"{external}{at}{path}/{to}", partial(_retrieve_matching, word)),
                *(_summary(word, at), by_query, (202, 400, 404, 502)),
            )
            for at, path, word in asked
        ),
    ]


def _summary(word: str, at: str) -> str:
    where = "another archive" if at else "the archive"
    return f"Retrieve each {word} that a C-FIND at {where} finds"
