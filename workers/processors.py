"""Which processor performs which kind of task."""

from collections.abc import Mapping

from archive.model.task import TaskKind
from workers.commitment_report import ReportProcessor
from workers.export import ExportProcessor
from workers.instance_availability import NotificationProcessor
from workers.leading_find import LeadingFindProcessor
from workers.processor import Processor
from workers.retrieve import RetrieveProcessor
from workers.storage_commitment import CommitmentProcessor

PROCESSORS: Mapping[TaskKind, Processor] = {
    TaskKind.EXPORT: ExportProcessor(),
    TaskKind.IAN: NotificationProcessor(),
    TaskKind.LEADING_CFIND: LeadingFindProcessor(),
    TaskKind.STGCMT_SCU: CommitmentProcessor(),
    TaskKind.STGCMT_SCP: ReportProcessor(),
    TaskKind.RETRIEVE: RetrieveProcessor(),
}
"""Kinds without an entry cannot be performed by this version; the runner fails their tasks."""
