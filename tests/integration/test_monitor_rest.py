"""The REST interface: paths, status codes and bodies as scripts for the reference expect them."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from tests.fix_engine import DEVICE_DN
from tests.fix_monitor import Monitor

PREFIX = "/dcm4chee-arc"
RS = f"{PREFIX}/aets/DCM4CHEE/rs"
EXPORTER = f"""dn: dcmExporterID=PACS,{DEVICE_DN}
changetype: add
objectClass: dcmExporter
dcmExporterID: PACS
dcmURI: dicom:STORESCP
dcmQueueName: Export1
dicomAETitle: DCM4CHEE
dicomDescription: To the PACS
dcmIanDestination: IANSCP
"""


@pytest.fixture
def rest(monitor_environment: dict[str, str], request: pytest.FixtureRequest) -> Monitor:
    """A Flower whose directory has the exporter PACS."""
    directory = EmbeddedDirectory(Path(monitor_environment["DICOMQ_DATA"]) / "directory.ldif")
    for record in parse_ldif(EXPORTER.encode()).records:
        directory.apply(record)
    monitor: Monitor = request.getfixturevalue("monitor")
    return monitor


def answer(rest: Monitor, path: str, method: str = "GET", **more: Any) -> tuple[int, Any]:  # noqa: ANN401 - JSON
    got = rest.ask(f"{PREFIX}{path}", method, **more)
    return got.status, json.loads(got.body) if got.body else None


def export(rest: Monitor, study: str, query: str = "") -> dict[str, Any]:
    path = f"/aets/DCM4CHEE/rs/studies/{study}/export/PACS{query}"
    status, task = answer(rest, path, "POST")
    assert status == 202
    assert isinstance(task, dict)
    return task


def test_export_of_a_study(rest: Monitor) -> None:
    task = export(rest, "1.2.3", "?batchID=night&scheduledTime=20261231120000")

    assert {name: task[name] for name in ("type", "status", "ExporterID", "batchID", "queue")} == {
        "type": "EXPORT",
        "status": "SCHEDULED",
        "ExporterID": "PACS",
        "batchID": "night",
        "queue": "Export1",
    }
    assert task["scheduledTime"].startswith("2026-12-31T12:00:00")
    assert answer(rest, "/monitor/export?batchID=night")[1][0]["taskID"] == task["taskID"]
    assert answer(rest, "/monitor/export/count?StudyInstanceUID=1.2.3") == (200, {"count": 1})
    [batch] = answer(rest, "/monitor/export/batch")[1]
    assert (batch["batchID"], batch["tasks"]) == ("night", {"scheduled": 1})


REFUSALS = (
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/NOBODY", 404),
    ("/aets/NOBODY/rs/studies/1.2.3/export/PACS", 404),
    ("/aets/DCM4CHEE/rs/studies/1.x.3/export/PACS", 400),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/PACS?scheduledTime=tomorrow", 400),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/PACS?only-stgcmt=true", 404),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/dicom:NOBODY", 404),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/ian/dicom:IANSCP", 404),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/ian/dicom:NOBODY", 404),
    ("/monitor/export/4711/cancel", 404),
    ("/monitor/export/cancel", 400),
    ("/monitor/export/cancel?status=COMPLETED", 400),
    ("/monitor/export/reschedule/NOBODY", 404),
    ("/monitor/export/reschedule?newDeviceName=other", 404),
    ("/ctrl/reload", 204),
)


def test_status_codes(rest: Monitor) -> None:
    answered = tuple((path, rest.ask(f"{PREFIX}{path}", "POST").status) for path, _ in REFUSALS)
    assert answered == REFUSALS


def test_only_ian(rest: Monitor, ledger: Ledger) -> None:
    task = export(rest, "1.2.3", "?only-ian=true")

    assert (task["type"], task["RemoteAET"], task["queue"]) == ("IAN", "IANSCP", "IANSCU")
    with ledger.statement() as tx:
        assert tasks.history(tx, task["taskID"])[0].actor == "otto@127.0.0.1 (Flower)"


def test_cancel_reschedule_delete(rest: Monitor, ledger: Ledger) -> None:
    pks = [export(rest, f"1.2.{number}")["taskID"] for number in range(1, 5)]
    one = f"/monitor/export/{pks[0]}"

    assert answer(rest, f"{one}/cancel", "POST") == (204, None)
    status, body = answer(rest, f"{one}/cancel", "POST")
    assert status == 409
    assert "CANCELED already" in body["errorMessage"]
    assert answer(rest, "/queue/Export1/cancel?status=SCHEDULED", "POST") == (200, {"count": 3})
    assert answer(rest, f"{one}/reschedule", "POST") == (204, None)
    assert answer(rest, "/monitor/export/reschedule/PACS", "POST") == (200, {"count": 4})
    assert answer(rest, f"/queue/IANSCU/{pks[1]}", "DELETE")[0] == 404
    assert answer(rest, f"/queue/Export1/{pks[1]}", "DELETE") == (204, None)
    with ledger.statement() as tx:
        assert tasks.get(tx, pks[0]).status is TaskStatus.SCHEDULED
    assert answer(rest, "/monitor/export", "DELETE") == (200, {"count": 3})
    assert answer(rest, "/monitor/export") == (200, [])


def test_csv_both_ways(rest: Monitor) -> None:
    rows = "Study;Series\n1.2.3;1.2.3.1\n1.2.4;not a UID\n;x\n"
    sent = rest.ask(
        f"{RS}/studies/csv:1/series/csv:2/export/PACS",
        "POST",
        body=rows,
        headers={"Content-Type": "text/csv;delimiter=semicolon"},
    )

    assert (sent.status, json.loads(sent.body)) == (202, {"count": 1})
    assert "line 3" in sent.headers["Warning"]
    listed = rest.ask(f"{PREFIX}/monitor/export?accept=text/csv")
    assert listed.headers["Content-Type"].startswith("text/csv")
    header, row = listed.body.splitlines()
    assert header.startswith('"taskID","createdTime"')
    assert '"1.2.3","1.2.3.1"' in row
    assert rest.ask(f"{PREFIX}/monitor/export", headers={"Accept": "image/png"}).status == 406


def test_lists(rest: Monitor) -> None:
    assert answer(rest, "/export") == (200, [{"id": "PACS", "description": "To the PACS"}])
    names = [queue["name"] for queue in answer(rest, "/queue")[1]]
    assert {"Export1", "IANSCU"} <= set(names)
    assert answer(rest, "/queue?includeExporters=true") == (
        200,
        [{"name": "Export1", "exporterIDs": ["PACS"]}],
    )
    assert answer(rest, "/stgcmt") == (200, [])
    assert answer(rest, "/stgcmt/1.2.3", "DELETE")[0] == 404


def test_matching(rest: Monitor) -> None:
    for path in ("studies/export/PACS", "series/ian/IANSCP", "instances/stgcmt/STORESCP"):
        found = answer(rest, f"/aets/DCM4CHEE/rs/{path}?PatientID=nobody", "POST")
        assert found == (202, {"count": 0}), path
    for path in ("studies/ian/NOBODY", "studies/export/NOBODY"):
        assert answer(rest, f"/aets/DCM4CHEE/rs/{path}", "POST")[0] == 404, path
    columns = "/aets/DCM4CHEE/dimse/STORESCP/studies/csv:1/export/dicom:DCM4CHEE"
    text = {"Content-Type": "text/csv"}
    sent = rest.ask(f"{PREFIX}{columns}", "POST", body="1.2.3\n1.2.4\n", headers=text)
    assert (sent.status, json.loads(sent.body)) == (202, {"count": 2})


def test_retrieve_is_queued(rest: Monitor) -> None:
    path = "/aets/DCM4CHEE/dimse/STORESCP/studies/1.2.3/export/dicom:DCM4CHEE?dcmQueueName=Retrieve"

    status, task = answer(rest, path, "POST")

    assert (status, task["type"], task["queue"]) == (202, "RETRIEVE", "Retrieve")
    assert answer(rest, "/monitor/retrieve/count") == (200, {"count": 1})


def waits_for_peers(path: str) -> bool:
    """Tell whether an endpoint answers only when a transfer has ended, which needs workers."""
    return "dicom:" in path or path.startswith("/aets/{AETitle}/dimse")


def test_openapi_is_true(rest: Monitor) -> None:
    """Whatever the document allows is answered as the document says (schemathesis)."""
    document = json.loads(rest.ask(f"{PREFIX}/openapi.json").body)
    document["paths"] = {
        path: item for path, item in document["paths"].items() if not waits_for_peers(path)
    }
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = f"{rest.url}{PREFIX}"
    problems: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:  # noqa: ANN401 - schemathesis has no types
            # Some parameters contradict each other, which a schema cannot say.
            case.call_and_validate(
                auth=("anna", "administer"), excluded_checks=[positive_data_acceptance]
            )

        try:
            check()
        except Exception as error:  # noqa: BLE001 - all operations are tried before it fails
            problems.append(f"{operation.label}: {error}")
    assert not problems, "\n\n".join(problems[:5])
