"""The REST interface: paths, status codes and bodies as scripts for the reference expect them."""

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import TaskStatus
from tests.fix_monitor import REST_PREFIX as PREFIX
from tests.fix_monitor import Monitor
from tests.fix_monitor import rest_answer as answer


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


def test_the_page_of_a_task_says_why_it_waits(rest: Monitor) -> None:
    task = export(rest, "1.2.3", "?scheduledTime=20361231120000")
    page = rest.ask(f"/dicom/tasks/{task['taskID']}").body
    assert "<dt>Waits for</dt>" in page


REFUSALS = (
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/NOBODY", 404),
    ("/aets/NOBODY/rs/studies/1.2.3/export/PACS", 404),
    ("/aets/DCM4CHEE/rs/studies/1.x.3/export/PACS", 400),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/PACS?scheduledTime=tomorrow", 400),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/PLAIN?only-stgcmt=true", 404),
    ("/aets/DCM4CHEE/rs/studies/1.2.3/export/PLAIN?only-ian=true", 404),
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


def test_what_is_no_path_is_said_in_json(rest: Monitor) -> None:
    refusal = {"errorMessage": "there is no such path; openapi.json lists all"}
    for path in ("", "/studies", "/aets/DCM4CHEE/rs/studies/a/b/c/export/PACS"):
        assert answer(rest, path, "POST") == (404, refusal)


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


def test_lists(rest: Monitor) -> None:
    assert answer(rest, "/export") == (
        200,
        [{"id": "PACS", "description": "To the PACS"}, {"id": "PLAIN"}],
    )
    names = [queue["name"] for queue in answer(rest, "/queue")[1]]
    assert {"Export1", "IANSCU"} <= set(names)
    assert answer(rest, "/queue?includeExporters=true") == (
        200,
        [{"name": "Export1", "exporterIDs": ["PACS", "PLAIN"]}],
    )
    assert answer(rest, "/stgcmt") == (200, [])
    assert answer(rest, "/stgcmt/1.2.3", "DELETE")[0] == 404


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
