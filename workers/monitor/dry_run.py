"""Dry runs: what the rules would do, and what an LDIF file would change. Nothing is staged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO

from pydicom import Dataset, dcmread

from archive.configuration.comparing import Difference, differences, preview
from archive.configuration.decode import Variables
from archive.configuration.descriptors import Problem, Snapshot
from archive.configuration.entries import Entry
from archive.configuration.export_rules import demanded_exports
from archive.configuration.ldif import parse_ldif
from archive.configuration.settings import Settings
from archive.configuration.snapshot import build_snapshot
from archive.errors import ConfigurationError, DatasetError
from archive.model.entities import Reception
from archive.model.task import ExportIntent


@dataclass(frozen=True, slots=True)
class Demand:
    """An export that the rules would demand, and when it would be due."""

    intent: ExportIntent
    due: datetime


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """Whether a rule wants an object, and why not."""

    name: str
    exporter_ids: tuple[str, ...]
    fires: bool
    reason: str


@dataclass(frozen=True, slots=True)
class LdifPreview:
    """What an LDIF file would do to the directory."""

    differences: tuple[Difference, ...]
    refusals: tuple[str, ...]
    new_problems: tuple[Problem, ...]
    solved_problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def read_header(data: bytes) -> Dataset:
    """Return the attributes of a DICOM file, or of its beginning.

    Raises
    ------
    DatasetError
        When it is none.
    """
    try:
        dataset = dcmread(BytesIO(data), stop_before_pixels=True, force=not _has_prefix(data))
        list(dataset.iterall())
    except Exception as error:
        msg = f"the file cannot be read as DICOM: {error}"
        raise DatasetError(msg) from error
    if "SOPClassUID" not in dataset and "StudyInstanceUID" not in dataset:
        msg = "the file is not DICOM: it has neither SOP Class UID nor Study Instance UID"
        raise DatasetError(msg)
    return dataset


def _has_prefix(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def demands(
    snapshot: Snapshot, dataset: Dataset, reception: Reception, now: datetime
) -> list[Demand]:
    """Return the exports that the rules would demand for an object received now.

    Raises
    ------
    ConfigurationError
        When the called AE is not one of the archive.
    """
    ae = snapshot.device.aes.get(reception.called_aet)
    if ae is None:
        msg = f"device {snapshot.device.name} has no AE {reception.called_aet}"
        raise ConfigurationError(msg)
    intents = demanded_exports(snapshot, ae, dataset, reception, now)
    return [Demand(intent, now + timedelta(seconds=intent.due_in_s)) for intent in intents]


def verdicts(snapshot: Snapshot, called_aet: str, found: Sequence[Demand]) -> list[RuleVerdict]:
    """Return for every rule of an AE and its device whether it is among the demands."""
    ae = snapshot.device.aes[called_aet]
    fired = {demand.intent.rule_name for demand in found}
    return [
        RuleVerdict(
            rule.name,
            rule.exporter_ids,
            rule.name in fired,
            "" if rule.name in fired else "conditions, hours, or a coarser rule for its exporters",
        )
        for rule in (*ae.export_rules, *snapshot.device.export_rules)
    ]


def preview_ldif(data: bytes, entries: Iterable[Entry], settings: Settings) -> LdifPreview:
    """Return what applying an LDIF file would change and which problems it would bring.

    Raises
    ------
    InvalidValueError
        When it is no LDIF.
    """
    before = tuple(entries)
    ldif = parse_ldif(data)
    seen = preview(before, ldif.records)
    refusals = (one for one in seen.applied if one.refusal is not None)
    after = seen.entries
    old, new = _problems(before, settings), _problems(after, settings)
    return LdifPreview(
        tuple(differences(before, after)),
        tuple(f"line {one.record.line}: {one.refusal}" for one in refusals),
        tuple(problem for problem in new if problem not in old),
        tuple(problem for problem in old if problem not in new),
        ldif.notes,
    )


def _problems(entries: Iterable[Entry], settings: Settings) -> tuple[Problem, ...]:
    variables = Variables(settings.variables, settings.properties)
    try:
        name = settings.device_name
        return build_snapshot(entries, name, variables, fingerprint="preview").problems
    except ConfigurationError as error:
        return (Problem(settings.directory, "", str(error)),)
