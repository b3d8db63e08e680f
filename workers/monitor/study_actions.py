"""What the Studies page orders: exports, notifications, commitments and retrieves."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from archive.errors import InvalidValueError
from archive.ledger import operations, retrievals, studies, tasks
from archive.ledger.connection import Ledger
from archive.ledger.retrievals import NewRetrieve, RetrieveRole
from archive.ledger.studies import StudyFilter
from archive.model.retrieval import RETRIEVE_QUEUE, RetrieveIdentifier, RetrieveLevel
from archive.model.task import Task
from workers.monitor.handler import JsonHandler
from workers.monitor.parameters import instant_of, member, normalized, text_of
from workers.monitor.services import Services
from workers.monitor.study_filter import study_filter
from workers.operations import UnknownNameError
from workers.ordering import Entity, Only, Order
from workers.route import local_ae, remote_ae

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


def retrieve(services: Services, new: NewRetrieve, actor: str) -> Task:
    """Stage a retrieve from another archive and return its task.

    Raises
    ------
    NotConfiguredError
        When the local or the other archive's AE is missing in the directory.
    """
    snapshot = services.source.snapshot()
    local_ae(snapshot, new.local_aet, "the retrieve")
    remote_ae(snapshot, new.remote_aet, "the retrieve")
    with services.ledger.transaction() as tx:
        pk, _ = retrievals.stage_requested(tx, new, actor=actor)
        return tasks.get(tx, pk)


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


class RetrieveStudy(JsonHandler):
    """Retrieve a study from an external archive."""

    async def post(self) -> None:
        """Answer with the ID of the task."""
        body = self.body_json()
        given = {name: [value] for name, value in body.items() if isinstance(value, str)}
        entity = Entity(text_of(given, "study") or "")
        at = instant_of(given, "at", self.services.clock.now())
        new = {"remote": text_of(given, "from"), "to": text_of(given, "to")}
        if not new["remote"] or not new["to"]:
            msg = "give the AE titles of the archive and of the destination"
            raise InvalidValueError(msg)
        task = await self.run(self._retrieve, entity, new, (at, text_of(given, "batch", 64)))
        self.write_json({"taskID": task.pk}, 202)

    def _retrieve(self, entity: Entity, new: dict[str, Any], when: tuple[Any, Any]) -> Task:
        snapshot = self.services.source.snapshot()
        able = [ae.title for ae in snapshot.device.aes.values() if ae.installed]
        if not able:
            msg = f"device {snapshot.device.name} has no installed AE that could call"
            raise UnknownNameError(msg)
        return retrieve(
            self.services,
            new_retrieve(self.services, entity, (able[0], new["remote"], new["to"]), when),
            self.actor,
        )


def new_retrieve(
    services: Services, entity: Entity, titles: tuple[str, str, str], when: tuple[Any, Any]
) -> NewRetrieve:
    """Return a retrieve of an entity.

    Parameters
    ----------
    titles
        Local AE, archive to ask, destination.
    when
        Time (None for now) and batch.
    """
    local, remote, destination = titles
    at, batch = when
    with services.ledger.statement() as tx:
        due_in_s = operations.due_in_s(tx, at)
    level = RetrieveLevel.STUDY
    if entity.series_instance_uid:
        level = RetrieveLevel.SERIES
    if entity.sop_instance_uid:
        level = RetrieveLevel.IMAGE
    identifier = RetrieveIdentifier(
        level=level,
        study_instance_uids=(entity.study_instance_uid,),
        series_instance_uids=(entity.series_instance_uid,) if entity.series_instance_uid else (),
        sop_instance_uids=(entity.sop_instance_uid,) if entity.sop_instance_uid else (),
    )
    return NewRetrieve(
        role=RetrieveRole.SCU,
        queue_name=RETRIEVE_QUEUE,
        device_name=services.settings.device_name,
        local_aet=local,
        remote_aet=remote,
        destination_aet=destination,
        identifier=identifier,
        batch_id=batch,
        due_in_s=due_in_s,
    )
