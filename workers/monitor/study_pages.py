"""Pages of studies: search, and one study with its destinations and tasks."""

import json
from datetime import datetime
from typing import Any

from typing_extensions import override

from archive.configuration.descriptors import Snapshot
from archive.ledger import commitments, monitoring, objects, operations, studies
from archive.ledger.studies import Holding, StudyFilter
from archive.model.entities import InstanceReference
from archive.model.task_filter import TaskFilter
from workers.monitor import wording
from workers.monitor.handler import NotFoundError, PageHandler
from workers.monitor.parameters import DEFAULT_PAGE_SIZE, PAGE_SIZES, normalized, number_of
from workers.monitor.study_filter import STUDY_NAMES, study_filter

OBJECTS_SHOWN = 500
_FIELDS = (
    ("PatientName", "Patient name", "DOE^J"),
    ("PatientID", "Patient ID", ""),
    ("StudyDate", "Study date", "20261121, a-b"),
    ("ModalitiesInStudy", "Modality", "CT"),
    ("AccessionNumber", "Accession number", ""),
    ("StudyInstanceUID", "Study Instance UID", "1.2.840…"),
)


def exporters_json(snapshot: Snapshot) -> str:
    """Return the exporters for the dialog: pairs of ID and what is shown."""
    exporters = sorted(snapshot.device.exporters.values(), key=lambda each: each.exporter_id)
    pairs = []
    for each in exporters:
        label = f"{each.exporter_id} → {each.remote_aet}"
        if each.ian_destinations:
            label += f", IAN to {' '.join(each.ian_destinations)}"
        if each.storage_commitment_scp:
            label += f", commitment by {each.storage_commitment_scp}"
        pairs.append((each.exporter_id, label))
    return json.dumps(pairs)


class StudiesPage(PageHandler):
    """Search of studies, and exporting one, several or all that match."""

    template = "studies.html"
    tab = "studies"

    @override
    def load(self, *_names: str) -> dict[str, Any]:
        """Return a page of studies."""
        arguments = normalized(self.queries)
        limit = number_of(arguments, "limit", least=1, most=1000) or DEFAULT_PAGE_SIZE
        before = number_of(arguments, "before", least=1, most=2**62)
        wanted = study_filter(arguments)
        with self.services.ledger.statement() as tx:
            found = studies.page(tx, wanted, before_pk=before, limit=limit + 1)
        chosen = {name: values for name, values in arguments.items() if name in STUDY_NAMES}
        snapshot = self.services.source.snapshot()
        return {
            "studies": found[:limit],
            "following": str(found[limit - 1].pk) if len(found) > limit else None,
            "limit": limit,
            "chosen": arguments,
            "query": wording.query(chosen),
            "fields": _FIELDS,
            "sizes": PAGE_SIZES,
            "exporters": exporters_json(snapshot),
            "titles": sorted(snapshot.remote_aes),
            "own": [ae.title for ae in snapshot.device.aes.values() if ae.installed],
        }


class StudyPage(PageHandler):
    """A study: series, objects, what each destination has of it, and its tasks."""

    template = "study.html"
    tab = "studies"

    @override
    def load(self, *names: str) -> dict[str, Any]:
        """Return everything about one study.

        Raises
        ------
        NotFoundError
            When the archive holds no such study.
        """
        uid = names[0]
        with self.services.ledger.transaction() as tx:
            found = studies.page(tx, StudyFilter((uid,)), limit=1)
            tasks = operations.page(tx, TaskFilter(study_instance_uids=(uid,)), limit=100)
            if not found and not tasks:
                msg = f"the archive holds no study {uid}, and has no task for it"
                raise NotFoundError(msg)
            holdings = studies.holdings(tx, uid)
            committed = monitoring.committed(tx, uid)
            notified = monitoring.notified(tx, uid)
            series = studies.series(tx, uid)
            references = objects.instance_references(tx, uid)
            requests = commitments.of_study(tx, uid)
        study = found[0] if found else None
        total = study.num_instances if study else 0
        return {
            "uid": uid,
            "study": study,
            "series": [(each, _objects(references, each.series_instance_uid)) for each in series],
            "destinations": by_destination(holdings, committed, notified),
            "total": total,
            "requests": requests,
            "tasks": tasks,
            "objects_shown": OBJECTS_SHOWN,
            "exporters": exporters_json(self.services.source.snapshot()),
        }


def _objects(references: list[InstanceReference], series_uid: str) -> list[InstanceReference]:
    return [each for each in references if each.series_instance_uid == series_uid][:OBJECTS_SHOWN]


def by_destination(
    holdings: list[Holding], committed: dict[str, int], notified: dict[str, datetime]
) -> list[dict[str, Any]]:
    """Return a row per destination with what it was sent, committed and told."""
    rows: dict[str, dict[str, Any]] = {}
    for title in sorted({each.remote_aet for each in holdings} | set(committed) | set(notified)):
        rows[title] = {"aet": title, "exporters": [], "exported": 0, "latest": None}
        rows[title] |= {"committed": committed.get(title, 0), "notified": notified.get(title)}
    for each in holdings:
        row = rows[each.remote_aet]
        row["exporters"].append(each.exporter_id)
        row["exported"] = max(row["exported"], each.num_instances)
        row["latest"] = max(filter(None, (row["latest"], each.latest_time)))
    return list(rows.values())
