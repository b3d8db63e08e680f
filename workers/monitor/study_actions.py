"""What the Studies page orders: exports, notifications, commitments and retrieves."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from archive.errors import InvalidValueError
from archive.ledger import studies
from archive.ledger.connection import Ledger
from archive.ledger.studies import StudyFilter
from archive.model.query import Level
from archive.model.query_key import Key
from workers.monitor.handler import JsonHandler
from workers.monitor.parameters import Arguments, instant_of, member, normalized, text_of
from workers.monitor.qido import conditions, identifier
from workers.monitor.retrieving import RetrieveOrder, find_at, order_retrieves
from workers.monitor.study_filter import STUDY_NAMES, study_filter
from workers.ordering import Entity, Only, Order

FOUND_SHOWN = 200
FOUND_KEYS = (
    *("StudyInstanceUID", "PatientName", "PatientID", "StudyDate", "ModalitiesInStudy"),
    *("AccessionNumber", "StudyDescription", "NumberOfStudyRelatedInstances"),
)
PAGE = 500


def matching_studies(ledger: Ledger, wanted: StudyFilter, most: int | None = None) -> Iterator[str]:
    """Yield the UIDs of matching studies, the latest received first."""
    before: int | None = None
    left = most
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with ledger.statement() as tx:
            page = studies.page(tx, wanted, before_pk=before, limit=size)
        yield from (study.study_instance_uid for study in page)
        if len(page) < size:
            return
        before = page[-1].pk
        left = None if left is None else left - size


class ExportStudies(JsonHandler):
    """Export studies, a series, or all studies that match."""

    async def post(self) -> None:
        """Answer with the number of tasks."""
        body = self.body_json()
        given = {name: [value] for name, value in body.items() if isinstance(value, str)}
        now = self.services.clock.now()
        only = text_of(given, "only")
        order = Order(
            exporter_id=text_of(given, "exporter") or "",
            at=instant_of(given, "at", now),
            batch_id=text_of(given, "batch", 64),
            only=member(Only, only) if only else None,
        )
        pks = await self.run(self._place, order, body)
        self.write_json({"count": len(pks), "tasks": pks[:1000]}, 202)

    def _place(self, order: Order, body: dict[str, Any]) -> list[int]:
        return self.services.orders(self.actor).place(order, self._entities(body))

    def _entities(self, body: dict[str, Any]) -> Iterator[Entity]:
        if isinstance(body.get("query"), str):
            wanted = study_filter(normalized(parse_qs(body["query"])))
            yield from map(Entity, matching_studies(self.services.ledger, wanted))
            return
        chosen = body.get("studies")
        if not isinstance(chosen, list) or not chosen:
            msg = "choose at least one study"
            raise InvalidValueError(msg)
        series = body.get("series") or None
        yield from (Entity(str(uid), series) for uid in chosen)


class StudyCount(JsonHandler):
    """How many studies match."""

    async def get(self) -> None:
        """Answer with the number."""
        wanted = study_filter(normalized(self.queries))
        self.write_json({"count": await self.run(self._count, wanted)})

    def _count(self, wanted: StudyFilter) -> int:
        with self.services.ledger.statement() as tx:
            return studies.count(tx, wanted)


class FindStudies(JsonHandler):
    """Ask an external archive which studies it holds (C-FIND)."""

    async def post(self) -> None:
        """Answer with the studies, and how much of each is here already."""
        body = self.body_json()
        given = {name: [value] for name, value in body.items() if isinstance(value, str) and value}
        titles = (_required(given, "as", "our AE"), _required(given, "from", "the archive"))
        wanted = {name: values for name, values in given.items() if name in STUDY_NAMES}
        if not wanted:
            msg = "give at least one condition: archives seldom list everything"
            raise InvalidValueError(msg)
        found = await self.run(self._find, titles, conditions(wanted))
        self.write_json({"studies": found[:FOUND_SHOWN], "more": len(found) > FOUND_SHOWN})

    def _find(self, titles: tuple[str, str], keys: tuple[Key, ...]) -> list[dict[str, object]]:
        asked = identifier(keys, Level.STUDY)
        for keyword in FOUND_KEYS:
            if keyword not in asked:
                setattr(asked, keyword, None)
        found = [
            {name: str(match.get(name, "") or "") for name in FOUND_KEYS}
            for match in find_at(self.services, titles, asked, FOUND_SHOWN + 1)
        ]
        uids = tuple(str(each["StudyInstanceUID"]) for each in found)
        with self.services.ledger.statement() as tx:
            here = studies.page(tx, StudyFilter(uids), limit=len(uids)) if uids else []
        counts = {each.study_instance_uid: each.num_instances for each in here}
        return [{**each, "here": counts.get(each["StudyInstanceUID"], 0)} for each in found]


class RetrieveStudies(JsonHandler):
    """Retrieve studies from an external archive."""

    async def post(self) -> None:
        """Answer with the IDs of the tasks."""
        body = self.body_json()
        given = {name: [value] for name, value in body.items() if isinstance(value, str)}
        chosen = body.get("studies")
        if not isinstance(chosen, list) or not chosen:
            msg = "choose at least one study"
            raise InvalidValueError(msg)
        order = RetrieveOrder(
            local_aet=_required(given, "as", "our AE"),
            remote_aet=_required(given, "from", "the archive"),
            destination_aet=_required(given, "to", "the destination"),
            at=instant_of(given, "at", self.services.clock.now()),
            batch_id=text_of(given, "batch", 64),
        )
        entities = [Entity(str(uid)) for uid in chosen]
        pks = await self.run(order_retrieves, self.services, order, entities, self.actor)
        self.write_json({"count": len(pks), "tasks": pks[:1000]}, 202)


def _required(given: Arguments, name: str, what: str) -> str:
    text = text_of(given, name, 16)
    if text is None:
        msg = f"give the AE title of {what}"
        raise InvalidValueError(msg)
    return text
