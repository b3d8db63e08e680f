"""Objects of a C-GET that another archive holds: fetched here first, then sent from here.

A C-GET has no destination to which the other archive could send by itself. Each holder is asked
by a RETRIEVE task of the queue of those that somebody waits for, which a worker performs; what is
here already is sent meanwhile. Needs dcmExternalRetrieveAEDestination, as fetching for a C-MOVE.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from archive.clock import Clock
from archive.errors import LedgerError, NoSuchTaskError
from archive.ledger import retrievals
from archive.ledger.connection import Ledger
from archive.ledger.retrievals import NewRetrieve, RetrieveProgress, RetrieveRole
from archive.model.retrieval import INTERACTIVE_QUEUE, RetrieveIdentifier, RetrieveStatus
from archive.model.retrieval_plan import MatchedInstance, narrowed
from archive.model.task import TaskStatus
from scp.retrieve_exchange import RetrieveExchange
from scp.retrieve_watch import RetrieveWatch
from scp.session import Session

NO_FILE: Final = "no copy of the object is left here, and no other archive is known to hold it"
_NO_DESTINATION: Final = (
    "no copy of the object is left here; dcmExternalRetrieveAEDestination would let it be fetched"
)
_NOT_SENT: Final = "it did not send the object"
_UNDER_WAY: Final = ""
_ACTOR: Final = "C-GET SCP"
_POLL_S: Final = 2.0
_REACTION_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Fetching:
    """What is being fetched for one C-GET.

    Attributes
    ----------
    holders
        By SOP Instance UID the archive that is asked for it.
    task_pks
        Tasks by the archive they ask.
    """

    holders: dict[str, str]
    task_pks: dict[str, tuple[int, ...]]

    def brings(self, match: MatchedInstance) -> bool:
        """Tell whether an object is being fetched."""
        return match.instance.sop_instance_uid in self.holders


class Fetcher:
    """Has objects fetched; one for all associations of a process.

    Parameters
    ----------
    claim_s
        Seconds until a worker has taken a retrieve up.
    """

    def __init__(self, ledger: Ledger, clock: Clock, claim_s: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._claim_s = claim_s
        self._watch = RetrieveWatch(ledger)

    def begin(
        self, session: Session, identifier: RetrieveIdentifier, matches: Sequence[MatchedInstance]
    ) -> Fetching:
        """Have those of the matches fetched that another archive holds and that are not here.

        Raises
        ------
        LedgerError
            When the ledger cannot be used.
        """
        groups: defaultdict[str, list[MatchedInstance]] = defaultdict(list)
        if session.ae.external_retrieve_ae_destination is not None:
            for match in matches:
                holder = match.external_retrieve_aet
                if match.instance.file is None and holder not in {None, session.calling_aet}:
                    groups[holder or ""].append(match)
        holders = {match.instance.sop_instance_uid: aet for aet in groups for match in groups[aet]}
        task_pks = {
            aet: self._stage(session, aet, narrowed(identifier, group, matches))
            for aet, group in groups.items()
        }
        return Fetching(holders, task_pks)

    def _stage(
        self, session: Session, aet: str, identifiers: Sequence[RetrieveIdentifier]
    ) -> tuple[int, ...]:
        news = (
            NewRetrieve(
                RetrieveRole.SCU,
                identifier,
                queue_name=INTERACTIVE_QUEUE,
                device_name=session.snapshot.device.name,
                local_aet=session.ae.title,
                remote_aet=aet,
                destination_aet=session.ae.external_retrieve_ae_destination or "",
            )
            for identifier in identifiers
        )
        reason = f"C-GET from {session.calling_aet}"
        with self._ledger.transaction() as tx:
            return tuple(
                retrievals.stage_requested(tx, new, actor=_ACTOR, reason=reason)[0] for new in news
            )

    def wait(
        self, fetching: Fetching, exchange: RetrieveExchange, on_look: Callable[[], None]
    ) -> dict[str, str]:
        """Wait until all is fetched; return by archive why it may not have brought everything.

        Parameters
        ----------
        on_look
            Called now and then meanwhile.
        """
        reasons: dict[str, str] = {}
        waiting = {pk: aet for aet, pks in fetching.task_pks.items() for pk in pks}
        taken_up = self._clock.monotonic()
        with self._watch.watching(*waiting) as changed:
            while waiting and exchange.is_open and not exchange.is_canceled:
                ends = {pk: self._end(pk) for pk in waiting}
                if _UNDER_WAY in ends.values():
                    taken_up = self._clock.monotonic()
                for pk, reason in ends.items():
                    if reason not in {None, _UNDER_WAY}:
                        aet = waiting.pop(pk)
                        reasons[aet] = f"{aet}: {reason}"
                if self._clock.monotonic() - taken_up > self._claim_s:
                    late = f"no retrieve worker took it up within {self._claim_s:g} s: start one"
                    return reasons | dict.fromkeys(waiting.values(), late)
                on_look()
                self._pause(changed.wait, exchange)
                changed.clear()
        return reasons

    def _pause(self, wait: Callable[[float], bool], exchange: RetrieveExchange) -> None:
        """Wait for a change, as long as the requestor does."""
        until = self._clock.monotonic() + _POLL_S
        while self._clock.monotonic() < until:
            if wait(_REACTION_S) or exchange.is_canceled or not exchange.is_open:
                return

    def _end(self, task_pk: int) -> str | None:
        """Return how a task ended, `_UNDER_WAY` while it runs, None while it waits."""
        try:
            with self._ledger.statement() as tx:
                return _end(retrievals.progress(tx, task_pk))
        except (LedgerError, NoSuchTaskError) as error:
            return str(error)


def _end(progress: RetrieveProgress) -> str | None:
    """Return how a task ended; one that will be tried again has ended for somebody who waits."""
    status, result = progress.task_status, progress.result
    if status is TaskStatus.IN_PROCESS:
        return _UNDER_WAY
    if not status.is_final and status is not TaskStatus.SCHEDULED_FOR_RETRY:
        return None
    if progress.error_message:
        return progress.error_message
    if result.status == RetrieveStatus.SUCCESS:
        return _NOT_SENT
    return result.error_comment or f"its C-MOVE ended with {result.status:04X}"


def reason_without_file(
    match: MatchedInstance, fetching: Fetching, reasons: Mapping[str, str]
) -> str:
    """Return why an object cannot be sent."""
    holder = fetching.holders.get(match.instance.sop_instance_uid)
    if holder is not None:
        return reasons.get(holder, f"{holder}: {_NOT_SENT}")
    return NO_FILE if match.external_retrieve_aet is None else _NO_DESTINATION
