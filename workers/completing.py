"""Completeness of what is fetched from the fallback archive: asked before, settled after.

dcmFallbackCMoveSCPStudyOlderThan and …Retries decide whether something that is here has to be
fetched, dcmFallbackCMoveSCPLeadingCFindSCP tells how many objects a study has.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydicom.dataset import Dataset

from archive.errors import ConfigurationError, PeerError
from archive.ledger import completeness, retrievals
from archive.model.completeness import Completeness, RefetchPolicy, has_to_be_fetched, judged
from archive.model.retrieval import (
    RetrieveIdentifier,
    RetrieveLevel,
    RetrieveResult,
    RetrieveStatus,
)
from archive.telemetry import log_event
from workers import events
from workers.finding import FindAssociation
from workers.route import find_route, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import NetworkAE
    from archive.ledger.connection import Transaction
    from workers.retrieve_job import RetrieveJob

_LOGGER = logging.getLogger(__name__)


def lacks_something(tx: "Transaction", identifier: RetrieveIdentifier, local: "NetworkAE") -> bool:
    """Tell whether something that a C-MOVE asks for may be missing here."""
    policy = RefetchPolicy(
        local.fallback_c_move_scp_retries, local.fallback_c_move_scp_study_older_than
    )
    return any(has_to_be_fetched(each, policy) for each in completeness.holdings(tx, identifier))


@dataclass(frozen=True, slots=True)
class Fetch:
    """One C-MOVE to the fallback archive whose objects come here.

    Attributes
    ----------
    fresh
        Studies of which nothing was known before.
    """

    job: "RetrieveJob"
    fresh: tuple[str, ...] = ()

    @classmethod
    def begin(cls, job: "RetrieveJob") -> Self:
        """Note what is about to be fetched."""
        with job.context.ledger.statement() as tx:
            studies = job.request.identifier.study_instance_uids
            return cls(job, tuple(completeness.set_out(tx, studies)))

    def end(self, result: RetrieveResult | None, *, came: Collection[str], missing: int) -> None:
        """Note how complete it is now.

        Parameters
        ----------
        result
            The fallback archive's last word, None when there was none.
        came
            SOP Instance UIDs of what arrived.
        missing
            How many objects it counts that did not arrive.
        """
        is_told = result is not None and _is_told(result)
        if not came and not is_told:
            self._forget()
            return
        if result is None or result.status == RetrieveStatus.CANCELED:
            return  # it stays unknown, and is asked for next time
        succeeded = result.status == RetrieveStatus.SUCCESS and not missing
        identifier = self.job.request.identifier
        match identifier.level:
            case RetrieveLevel.STUDY:
                for study in identifier.study_instance_uids:
                    self._settle_study(study, succeeded=succeeded)
            case RetrieveLevel.SERIES:
                self._settle_series(identifier, succeeded=succeeded, came=bool(came))
            case RetrieveLevel.IMAGE:
                self._settle_parts(identifier, came=bool(came))
            case RetrieveLevel.PATIENT:
                pass

    def _forget(self) -> None:
        if self.fresh:
            with self.job.context.ledger.statement() as tx:
                completeness.forget(tx, self.fresh)

    def _settle_study(self, study: str, *, succeeded: bool) -> None:
        whole = RetrieveIdentifier(RetrieveLevel.STUDY, (study,))
        expected = self._expected(study)
        with self.job.context.ledger.transaction() as tx:
            held = retrievals.count_matches(tx, whole)
            if not held:
                completeness.forget(tx, (study,))
                return
            state = judged(expected=expected, held=held, succeeded=succeeded)
            completeness.settle(tx, study, "", state)
        log_event(
            _LOGGER,
            events.STUDY_FETCHED,
            study=study,
            state=str(state),
            held=held,
            expected=expected,
        )

    def _settle_series(
        self, identifier: RetrieveIdentifier, *, succeeded: bool, came: bool
    ) -> None:
        state = judged(expected=None, held=0, succeeded=succeeded)
        with self.job.context.ledger.transaction() as tx:
            for study in identifier.study_instance_uids:
                if came:
                    completeness.settle(tx, study, "", Completeness.UNKNOWN)
                for series in identifier.series_instance_uids:
                    one = RetrieveIdentifier(RetrieveLevel.SERIES, (study,), (series,))
                    if retrievals.count_matches(tx, one):
                        completeness.settle(tx, study, series, state)
        if not came:
            self._forget()

    def _settle_parts(self, identifier: RetrieveIdentifier, *, came: bool) -> None:
        if not came:
            self._forget()
            return
        with self.job.context.ledger.transaction() as tx:
            for study in identifier.study_instance_uids:
                for series in ("", *identifier.series_instance_uids):
                    completeness.settle(tx, study, series, Completeness.UNKNOWN)

    def _expected(self, study: str) -> int | None:
        """Return how many objects a study has by dcmFallbackCMoveSCPLeadingCFindSCP."""
        job = self.job
        aet = job.local.fallback_c_move_scp_leading_c_find_scp
        if aet is None:
            return None
        wanted_by = "dcmFallbackCMoveSCPLeadingCFindSCP"
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = study
        identifier.NumberOfStudyRelatedInstances = ""
        try:
            route = find_route(job.local, remote_ae(job.context.snapshot, aet, wanted_by))
            matches = job.context.kept.use(
                job.context,
                (route, FindAssociation),
                make=lambda: FindAssociation(route, clock=job.context.clock),
                action=lambda archive: list(archive.find(identifier)),
            )
        except (PeerError, ConfigurationError) as error:
            job.progress.problem(f"{aet} could not be asked how many objects there are: {error}")
            return None
        return next((n for each in matches if (n := _count(each, study))), None)


def _is_told(result: RetrieveResult) -> bool:
    """Tell whether the fallback archive has looked for the objects; a refusal tells nothing."""
    return result.status == RetrieveStatus.SUCCESS or result.counts.total > 0


def _count(match: Dataset, study: str) -> int | None:
    """Return Number of Study Related Instances (0020,1208) of a match, None if it has none."""
    if str(match.get("StudyInstanceUID", "")) != study:
        return None
    try:
        return int(match.get("NumberOfStudyRelatedInstances") or 0) or None
    except (ValueError, TypeError):
        return None
