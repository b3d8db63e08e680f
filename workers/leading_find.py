"""Asks a leading archive for the attributes of a study, and coerces what waits for them.

One task is one C-FIND at STUDY level (PS3.4 §C.4.1). Its answer is kept in the ledger for all
processes; that the archive does not know the study is an answer too, that it could not be asked
is an error with a short memory, and the task is retried by the policy of its queue.
"""

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.errors import DicomqError
from archive.ledger import leading
from archive.ledger.leading import Freshness
from archive.model.coercion import (
    NEVER_MERGED,
    AnswerKind,
    LeadingAnswer,
    leading_tags,
)
from archive.model.encoded_header import vr_of
from archive.model.task import Outcome, Task, TaskStatus
from workers.finding import FindAssociation
from workers.received import coerce_pending
from workers.route import NotConfiguredError, find_route, local_ae, remote_ae

if TYPE_CHECKING:
    from archive.configuration.descriptors import ArchiveDevice
    from workers.processor import TaskContext

_CHARACTER_SET = 0x00080005
_STUDY_INSTANCE_UID = 0x0020000D
_LEVEL = 0x00080052


class LeadingFindProcessor:
    """Performs one attempt of a LEADING_CFIND task."""

    def perform(self, task: Task, context: "TaskContext") -> Outcome:
        """Ask, keep the answer, and coerce the received objects that wait for it.

        Raises
        ------
        NotConfiguredError
            When the local AE, the leading archive or the study is missing.
        PeerError
            When the leading archive could not be asked.
        """
        study = task.study_instance_uid
        if not study or task.remote_aet is None:
            msg = f"task {task.pk} names no study or no leading archive: cancel it"
            raise NotConfiguredError(msg)
        try:
            found = _ask(task, study, context)
        except DicomqError as error:
            _keep(task, LeadingAnswer(AnswerKind.FAILED, message=str(error)), context)
            raise
        _keep(task, found, context)
        coerced = coerce_pending(task, found, context)
        words = "attributes found" if found.kind is AnswerKind.FOUND else "no such study"
        waiting = f", {coerced} received objects coerced" if coerced else ""
        message = f"study {study} at leading archive {task.remote_aet}: {words}{waiting}"
        return Outcome(TaskStatus.COMPLETED, message)


def freshness(device: "ArchiveDevice") -> Freshness:
    """Return how long answers of leading archives hold."""
    return Freshness.of(
        device.leading_c_find_scp_query_cache_stale_timeout_s,
        device.leading_c_find_scp_query_cache_size,
    )


def _keep(task: Task, found: LeadingAnswer, context: "TaskContext") -> None:
    with context.ledger.transaction() as tx:
        leading.record(
            tx,
            task.remote_aet or "",
            task.study_instance_uid or "",
            found,
            freshness=freshness(context.snapshot.device),
        )


def _ask(task: Task, study: str, context: "TaskContext") -> LeadingAnswer:
    wanted_by = f"the leading query of study {study}"
    local = local_ae(context.snapshot, task.local_aet, wanted_by)
    aet = task.remote_aet or ""
    route = find_route(local, remote_ae(context.snapshot, aet, wanted_by))
    tags = leading_tags(context.snapshot.device.leading_sets, aet)
    matches = context.kept.use(
        context,
        (route, FindAssociation),
        make=lambda: FindAssociation(route, clock=context.clock),
        action=lambda archive: list(archive.find(query_keys(study, tags))),
    )
    for match in matches:
        if str(match.get("StudyInstanceUID", "")) == study:
            return LeadingAnswer(AnswerKind.FOUND, requested_only(match, tags))
    return LeadingAnswer(AnswerKind.NO_MATCH)


def query_keys(study: str, tags: tuple[int, ...]) -> Dataset:
    """Return the identifier that asks for a study's attributes."""
    identifier = Dataset()
    for tag in tags:
        identifier.add_new(tag, vr_of(tag), None)
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study
    identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def requested_only(match: Dataset, tags: tuple[int, ...]) -> Dataset:
    """Return the requested attributes of a match in Unicode; what cannot be read is left out."""
    kept = Dataset()
    match.decode()
    for tag in sorted({*tags} - NEVER_MERGED - {_STUDY_INSTANCE_UID, _LEVEL, _CHARACTER_SET}):
        if tag in match:
            kept[tag] = match[tag]
    return kept
