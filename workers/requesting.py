"""Retrieves by hand: studies, series or instances that another archive is asked to send.

What is waiting or under way already is not asked for twice. A row of a CSV file that is invalid
is refused and named.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from archive.configuration.descriptors import Snapshot
from archive.configuration.source import SnapshotSource
from archive.errors import InvalidValueError
from archive.ledger import operations, retrievals
from archive.ledger.connection import Ledger
from archive.ledger.retrievals import NewRetrieve, RetrieveRole
from archive.model.identifiers import check_ae_title
from archive.model.retrieval import RETRIEVE_QUEUE, RetrieveIdentifier, RetrieveLevel
from workers.ordering import STAGED_PER_TRANSACTION, Entity


@dataclass(frozen=True, slots=True)
class RetrieveOrder:
    """Whom to ask, and to where it is to send.

    Attributes
    ----------
    destination_aet
        Known to the other archive; None for the AE that asks.
    local_aet
        AE that asks; None for the device's only or first one.
    at
        When the tasks are due; None for now.
    """

    remote_aet: str
    destination_aet: str | None = None
    local_aet: str | None = None
    queue_name: str = RETRIEVE_QUEUE
    at: datetime | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Requested:
    """What became of an order.

    Attributes
    ----------
    joined
        Tasks that were waiting or under way for the same already.
    """

    staged: tuple[int, ...]
    joined: tuple[int, ...]


class Requests:
    """Stages retrieves on behalf of somebody.

    Parameters
    ----------
    actor
        Who asks, for the history.
    """

    def __init__(self, ledger: Ledger, source: SnapshotSource, *, actor: str) -> None:
        self._ledger = ledger
        self._source = source
        self._actor = actor

    def place(self, order: RetrieveOrder, entities: Iterable[Entity]) -> Requested:
        """Stage the tasks for `entities`; large orders in several transactions.

        Raises
        ------
        InvalidValueError
            When the directory does not know the archive or the local AE.
        """
        snapshot = self._source.snapshot()
        local_aet = check_order(order, snapshot)
        staged: list[int] = []
        joined: list[int] = []
        waiting = list(entities)
        for start in range(0, len(waiting), STAGED_PER_TRANSACTION):
            with self._ledger.transaction() as tx:
                due_in_s = operations.due_in_s(tx, order.at)
                for entity in waiting[start : start + STAGED_PER_TRANSACTION]:
                    new = NewRetrieve(
                        RetrieveRole.SCU,
                        identifier_of(entity),
                        queue_name=order.queue_name,
                        device_name=snapshot.device.name,
                        local_aet=local_aet,
                        remote_aet=order.remote_aet,
                        destination_aet=order.destination_aet or local_aet,
                        batch_id=order.batch_id,
                        due_in_s=due_in_s,
                    )
                    pk, is_new = retrievals.stage_requested(tx, new, actor=self._actor)
                    (staged if is_new else joined).append(pk)
        return Requested(tuple(staged), tuple(joined))


def check_order(order: RetrieveOrder, snapshot: Snapshot) -> str:
    """Return the title of the AE that asks.

    Raises
    ------
    InvalidValueError
        When the directory does not know the archive or the AE; the destination is the other
        archive's to know.
    """
    if order.remote_aet not in snapshot.remote_aes:
        msg = f"the directory has no AE {order.remote_aet}: add its device, connection and AE"
        raise InvalidValueError(msg)
    if order.destination_aet is not None:
        check_ae_title(order.destination_aet, "destination")
    titles = list(snapshot.device.aes)
    local_aet = order.local_aet or (titles[0] if titles else "")
    if local_aet not in snapshot.device.aes:
        msg = f"device {snapshot.device.name} has no AE {local_aet}; it has {', '.join(titles)}"
        raise InvalidValueError(msg)
    return local_aet


def identifier_of(entity: Entity) -> RetrieveIdentifier:
    """Return what a C-MOVE asks for to get an entity."""
    studies = (entity.study_instance_uid,)
    if entity.series_instance_uid is None:
        return RetrieveIdentifier(RetrieveLevel.STUDY, studies)
    series = (entity.series_instance_uid,)
    if entity.sop_instance_uid is None:
        return RetrieveIdentifier(RetrieveLevel.SERIES, studies, series)
    return RetrieveIdentifier(RetrieveLevel.IMAGE, studies, series, (entity.sop_instance_uid,))
