"""Retrieves that somebody orders from another archive, and what that archive says it holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from pydicom.dataset import Dataset

from archive.ledger import operations, retrievals
from archive.ledger.retrievals import NewRetrieve, RetrieveRole
from archive.model.retrieval import RETRIEVE_QUEUE, RetrieveIdentifier, RetrieveLevel
from workers.finding import FindAssociation
from workers.monitor.services import Services
from workers.operations import UnknownNameError
from workers.ordering import Entity
from workers.queues import configured_queues
from workers.route import find_route, local_ae, remote_ae

STAGED_PER_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class RetrieveOrder:
    """From where to where something is retrieved, and when.

    Attributes
    ----------
    local_aet
        AE of ours that asks.
    remote_aet
        Archive that is asked.
    at
        When the tasks are due; None for now.
    priority
        0 medium, 1 high, 2 low (PS3.7 §9.1.4.1.5).
    """

    local_aet: str
    remote_aet: str
    destination_aet: str
    at: datetime | None = None
    batch_id: str | None = None
    queue_name: str = RETRIEVE_QUEUE
    priority: int = 0


def find_at(
    services: Services, titles: tuple[str, str], identifier: Dataset, most: int | None = None
) -> Iterator[Dataset]:
    """Yield what another archive answers to a C-FIND (PS3.4 §C.4.1.2).

    Parameters
    ----------
    titles
        AE of ours that asks, archive that is asked.
    most
        Take no more matches than this.

    Raises
    ------
    NotConfiguredError
        When one of the AEs is not in the directory.
    PeerError
        When the archive cannot be reached or refuses the query.
    """
    snapshot = services.source.snapshot()
    local = local_ae(snapshot, titles[0], "the query")
    route = find_route(local, remote_ae(snapshot, titles[1], "the query"))
    with FindAssociation(route, clock=services.clock) as association:
        yield from islice(association.find(identifier), most)


def order_retrieves(
    services: Services, order: RetrieveOrder, entities: Iterable[Entity], actor: str
) -> list[int]:
    """Stage a retrieve of each entity and return the primary keys of their tasks.

    What is waiting or under way already is not staged again.

    Raises
    ------
    NotConfiguredError
        When the local AE or that of the archive is missing in the directory.
    UnknownNameError
        When there is no such queue.
    """
    snapshot = services.source.snapshot()
    local_ae(snapshot, order.local_aet, "the retrieve")
    remote_ae(snapshot, order.remote_aet, "the retrieve")
    known = configured_queues(snapshot)
    if order.queue_name not in known:
        msg = f"there is no queue {order.queue_name}; known are {', '.join(sorted(known))}"
        raise UnknownNameError(msg)
    pks: list[int] = []
    for part in _parts(entities):
        with services.ledger.transaction() as tx:
            due_in_s = operations.due_in_s(tx, order.at)
            for entity in part:
                new = _new(services, order, entity, due_in_s)
                pks.append(retrievals.stage_requested(tx, new, actor=actor)[0])
    return pks


def _parts(entities: Iterable[Entity]) -> Iterator[list[Entity]]:
    waiting = list(entities)
    for start in range(0, len(waiting), STAGED_PER_TRANSACTION):
        yield waiting[start : start + STAGED_PER_TRANSACTION]


def _new(services: Services, order: RetrieveOrder, entity: Entity, due_in_s: float) -> NewRetrieve:
    return NewRetrieve(
        role=RetrieveRole.SCU,
        queue_name=order.queue_name,
        device_name=services.settings.device_name,
        local_aet=order.local_aet,
        remote_aet=order.remote_aet,
        destination_aet=order.destination_aet,
        identifier=identifier_of(entity),
        priority=order.priority,
        batch_id=order.batch_id,
        due_in_s=due_in_s,
    )


def identifier_of(entity: Entity) -> RetrieveIdentifier:
    """Return the identifier of a C-MOVE for a study, series or instance."""
    level = RetrieveLevel.STUDY
    if entity.series_instance_uid:
        level = RetrieveLevel.SERIES
    if entity.sop_instance_uid:
        level = RetrieveLevel.IMAGE
    return RetrieveIdentifier(
        level=level,
        study_instance_uids=(entity.study_instance_uid,),
        series_instance_uids=(entity.series_instance_uid,) if entity.series_instance_uid else (),
        sop_instance_uids=(entity.sop_instance_uid,) if entity.sop_instance_uid else (),
    )
