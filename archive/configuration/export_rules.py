"""Which exports the rules demand for a received object: pure (reference: export rules)."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pydicom import Dataset

from archive.configuration.descriptors import Exporter, ExportRule, NetworkAE, Snapshot
from archive.model.conditions import AssociationFacts
from archive.model.entities import Reception
from archive.model.task import ExportEntity, ExportIntent

_COARSENESS = {ExportEntity.INSTANCE: 0, ExportEntity.SERIES: 1, ExportEntity.STUDY: 2}


def demanded_exports(  # noqa: PLR0917 - object and circumstances of one receipt
    snapshot: Snapshot,
    ae: NetworkAE,
    dataset: Dataset,
    reception: Reception,
    now: datetime,
) -> tuple[ExportIntent, ...]:
    """Return the exports that the rules of the called AE and of its device demand.

    Rules that name the same exporter become one export: the coarser entity wins, of equal ones
    the later rule. A rule holds only in the hours of its own schedule; an exporter's schedule
    puts the export off. An exporter that is not there is left out: it was reported when the
    directory was loaded (`Snapshot.problems`).

    Parameters
    ----------
    snapshot
        The configuration.
    ae
        The called AE.
    dataset
        Attributes of the object; pixel data are not needed.
    reception
        From whom and as whom it was received.
    now
        Time of receipt, timezone-aware.
    """
    zone = snapshot.device.time_zone
    local_now = now.astimezone(ZoneInfo(zone) if zone else None)
    facts = AssociationFacts(
        calling_aet=reception.calling_aet,
        called_aet=reception.called_aet,
        calling_host=reception.calling_host,
        called_host=ae.connections[0].hostname if ae.connections else "",
    )
    winners: dict[str, ExportRule] = {}
    for rule in (*ae.export_rules, *snapshot.device.export_rules):
        if rule.schedule.contains(now) and rule.conditions.match(dataset, facts, local_now):
            for exporter_id in rule.exporter_ids:
                winners[exporter_id] = _coarser(winners.get(exporter_id), rule)
    return tuple(
        _intent(exporter, rule, now=now, defaults=(snapshot.device.name, reception.called_aet))
        for exporter, rule in _resolve(snapshot, winners)
    )


def _coarser(first: ExportRule | None, second: ExportRule) -> ExportRule:
    if first is not None and _COARSENESS[first.entity] > _COARSENESS[second.entity]:
        return first
    return second


def _resolve(
    snapshot: Snapshot, winners: dict[str, ExportRule]
) -> Iterator[tuple[Exporter, ExportRule]]:
    """Yield each exporter that exists with the rule that demands it."""
    for exporter_id, rule in winners.items():
        exporters = snapshot.device.exporters
        if rule.device_name is not None and rule.device_name != snapshot.device.name:
            exporters = snapshot.device_exporters.get(rule.device_name, {})
        if exporter_id in exporters:
            yield exporters[exporter_id], rule


def _intent(
    exporter: Exporter, rule: ExportRule, *, now: datetime, defaults: tuple[str, str]
) -> ExportIntent:
    device_name, called_aet = defaults
    quiet = timedelta(seconds=rule.duration_s or 0.0)
    due = exporter.schedule.ceil(now + quiet)
    return ExportIntent(
        exporter_id=exporter.exporter_id,
        queue_name=exporter.queue_name,
        device_name=rule.device_name or device_name,
        local_aet=exporter.aet or called_aet,
        remote_aet=exporter.remote_aet,
        entity=rule.entity,
        due_in_s=(due - now).total_seconds(),
        reoccurred=rule.export_reoccurred_instances,
        rule_name=rule.name,
        previous_entity=rule.export_previous_entity,
    )
