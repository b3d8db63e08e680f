"""Rules: dry run for an uploaded header or for received studies, and preview of an LDIF file."""

from typing import Any

from pydicom import Dataset
from typing_extensions import override

from archive.errors import InvalidValueError, StorageError
from archive.ledger import monitoring
from archive.ledger.monitoring import ReceivedStudy
from archive.model.entities import Reception
from archive.model.instants import parse_range
from archive.storage.base import Storages
from workers.monitor import wording
from workers.monitor.access import Role
from workers.monitor.dry_run import Demand, demands, preview_ldif, read_header, verdicts
from workers.monitor.handler import PageHandler
from workers.monitor.parameters import text_of

STUDIES = 100
HEADER_BYTES = 2**20
_SHOWN = (
    *("SOPClassUID", "Modality", "PatientID", "PatientName", "StudyDate", "StudyDescription"),
    *("StationName", "InstitutionName", "SeriesDescription", "StudyInstanceUID"),
)


class RulesPage(PageHandler):
    """The rules as they are, and forms for dry runs."""

    template = "rules.html"
    tab = "rules"
    is_live = False

    @override
    def load(self, *_names: str) -> dict[str, Any]:
        """Return rules by AE and device."""
        device = self.services.source.snapshot().device
        aes = [ae for ae in device.aes.values() if ae.installed]
        rules = [(ae.title, rule) for ae in aes for rule in ae.export_rules]
        rules += [("all AEs", rule) for rule in device.export_rules]
        return {
            "rules": rules,
            "titles": [ae.title for ae in aes],
            "most": HEADER_BYTES,
        }


class DryRun(PageHandler):
    """Answers forms of the rules page with a part of a page; a viewer may ask, nothing changes."""

    change_role = Role.VIEWER
    tab = "rules"

    async def post(self, what: str) -> None:
        """Answer with the result."""
        work = {"header": self._header, "received": self._received, "ldif": self._ldif}[what]
        content = await self.run(work)
        self.show(f"dry_run_{what}.html", **content)

    @override
    def write_error(self, status_code: int, **details: Any) -> None:
        """Answer with the reason as text."""
        status, message = self.problem(status_code, details)
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(message)

    def _reception(self) -> Reception:
        arguments = self.queries
        return Reception(
            calling_aet=text_of(arguments, "calling", 16) or "ANY-SCU",
            called_aet=text_of(arguments, "called", 16) or "",
            calling_host=text_of(arguments, "host", 255) or "",
        )

    def _header(self) -> dict[str, Any]:
        dataset = read_header(self.request.body)
        snapshot, reception = self.services.source.snapshot(), self._reception()
        found = demands(snapshot, dataset, reception, self.services.clock.now())
        return {
            "attributes": _shown(dataset),
            "demands": found,
            "verdicts": verdicts(snapshot, reception.called_aet, found),
        }

    def _received(self) -> dict[str, Any]:
        now = self.services.clock.now()
        text = text_of(self.queries, "range") or "2h"
        span = parse_range(text, now)
        if span.since is None:
            msg = "give a beginning: 2h, 20261121 or a-b"
            raise InvalidValueError(msg)
        with self.services.ledger.statement() as tx:
            found = monitoring.received(tx, span.since, span.until, limit=STUDIES)
        storages = Storages(self.services.source.snapshot(), self.services.settings)
        return {"studies": [(each, *self._would(each, storages)) for each in found]}

    def _would(self, study: ReceivedStudy, storages: Storages) -> tuple[list[Demand], str]:
        """Return what the rules would demand for the first object of a study, or why not known."""
        snapshot, now = self.services.source.snapshot(), self.services.clock.now()
        if study.called_aet not in snapshot.device.aes:
            return [], f"AE {study.called_aet} is not configured any more"
        try:
            with storages.get(study.storage_id).open(study.storage_path) as file:
                dataset = read_header(file.read(HEADER_BYTES))
        except StorageError as error:
            return [], str(error)
        reception = Reception(calling_aet=study.calling_aet, called_aet=study.called_aet)
        return demands(snapshot, dataset, reception, now), ""

    def _ldif(self) -> dict[str, Any]:
        entries = self.services.source.directory.read()
        return {"preview": preview_ldif(self.request.body, entries, self.services.settings)}


def _shown(dataset: Dataset) -> list[tuple[str, str]]:
    return [(name, wording.short(str(dataset.get(name)))) for name in _SHOWN if name in dataset]
