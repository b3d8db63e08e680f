"""Orders by query and by file: what matches is ordered, what cannot be kept orders nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger import tasks
from archive.ledger.connection import Ledger
from tests.fix_monitor import REST_PREFIX, Answer, Monitor, rest_answer
from tests.fix_system import ARCHIVE_AE

RS = "/aets/DCM4CHEE/rs"
TEXT = {"Content-Type": "text/csv"}
STORED = (
    ("1.1", "1.1.1", "1.1.1.1", {"patient_id": "P1", "modality": "CT", "study_date": "20261101"}),
    ("1.1", "1.1.1", "1.1.1.2", {"patient_id": "P1", "modality": "CT", "study_date": "20261101"}),
    ("1.1", "1.1.2", "1.1.2.1", {"patient_id": "P1", "modality": "SR", "study_date": "20261101"}),
    ("1.2", "1.2.1", "1.2.1.1", {"patient_id": "P2", "modality": "MR", "study_date": "20261115"}),
)
MATCHING = (
    ("studies/export/PACS?PatientID=P1", 1),
    ("studies/export/PACS?ModalitiesInStudy=SR", 1),
    ("studies/export/PACS?StudyDate=20261110-", 1),
    ("studies/export/PACS?StudyInstanceUID=1.1,1.2", 2),
    ("studies/export/PACS?PatientID=nobody", 0),
    ("series/export/PACS?Modality=CT", 1),
    ("series/export/PACS?PatientID=P1", 2),
    ("studies/1.1/series/export/PACS", 2),
    ("instances/export/PACS?PatientID=P1&Modality=CT", 2),
    ("studies/1.1/instances/export/PACS", 3),
    ("studies/1.1/series/1.1.1/instances/export/PACS?SOPInstanceUID=1.1.1.2", 1),
    ("studies/ian/IANSCP?PatientID=P2", 1),
    ("series/ian/IANSCP?Modality=SR", 1),
    ("instances/stgcmt/STORESCP?PatientID=P1", 3),
    ("studies/export/PACS?PatientID=P1&only-stgcmt=true", 1),
)
REFUSED = (
    ("studies/export/PACS?PatinetID=P1", 400, "PatinetID"),
    ("studies/export/PACS?PatientID=", 400, "would mean everything"),
    ("studies/export/PACS?Modality=CT", 400, "does not match Modality at STUDY level"),
    ("studies/export/PACS?PatientID=P1&fuzzymatching=true", 400, "wildcards"),
    ("series/export/PACS?KVP=120", 400, "does not match KVP"),
    ("studies/ian/NOBODY?PatientID=P1", 404, "NOBODY"),
    ("studies/export/NOBODY?PatientID=P1", 404, "NOBODY"),
)


@pytest.fixture
def archive(rest: Monitor, indexed: Callable[..., None]) -> Monitor:
    """A Flower over an archive of two studies."""
    for study, series, instance, attributes in STORED:
        indexed(study, series, instance, **attributes)
    return rest


def kinds(ledger: Ledger) -> list[tuple[str, str | None, str | None, str | None]]:
    query = "SELECT kind, study_instance_uid, series_instance_uid, sop_instance_uid FROM task"
    with ledger.statement() as tx:
        return tx.execute(f"{query} ORDER BY pk").fetchall()


def test_matching_at_every_level(archive: Monitor, ledger: Ledger) -> None:
    got = [(path, rest_answer(archive, f"{RS}/{path}", "POST")) for path, _ in MATCHING]
    assert got == [(path, (202, {"count": count})) for path, count in MATCHING]
    staged = kinds(ledger)
    assert ("EXPORT", "1.1", "1.1.1", "1.1.1.2") in staged
    assert ("IAN", "1.1", "1.1.2", None) in staged
    assert ("STGCMT_SCU", "1.1", None, None) in staged


def test_what_cannot_be_kept_orders_nothing(archive: Monitor, ledger: Ledger) -> None:
    for path, status, words in REFUSED:
        got, body = rest_answer(archive, f"{RS}/{path}", "POST")
        assert (got, words in body["errorMessage"]) == (status, True), (path, body)
    assert kinds(ledger) == []


def test_too_many_matches(
    archive: Monitor, monitor_environment: dict[str, str], ledger: Ledger
) -> None:
    directory = EmbeddedDirectory(Path(monitor_environment["DICOMQ_DATA"]) / "directory.ldif")
    change = (
        f"dn: {ARCHIVE_AE}\nchangetype: modify\nreplace: dcmQueryMaxNumberOfResults\n"
        "dcmQueryMaxNumberOfResults: 1\n"
    )
    for record in parse_ldif(change.encode()).records:
        directory.apply(record)
    while rest_answer(archive, f"{RS}/studies/export/PACS?PatientName=*", "POST")[0] == 202:
        pass  # until the change is seen
    before = len(kinds(ledger))

    status, body = rest_answer(archive, f"{RS}/studies/export/PACS?PatientName=*", "POST")
    assert (status, "more than 1 matches" in body["errorMessage"]) == (413, True)
    assert len(kinds(ledger)) == before
    named = rest_answer(archive, f"{RS}/studies/export/PACS?StudyInstanceUID=1.1,1.2", "POST")
    assert named == (202, {"count": 2})


# --- files


def sent(rest: Monitor, path: str, rows: str, headers: dict[str, str] | None = None) -> Answer:
    return rest.ask(f"{REST_PREFIX}{path}", "POST", body=rows, headers=headers or TEXT)


def test_csv_both_ways(rest: Monitor) -> None:
    rows = "Study;Series\n1.2.3;1.2.3.1\n1.2.4;not a UID\n;x\n"
    path = f"{RS}/studies/csv:1/series/csv:2/export/PACS"
    answer = sent(rest, path, rows, {"Content-Type": "text/csv;delimiter=semicolon"})

    assert (answer.status, json.loads(answer.body)) == (202, {"count": 1})
    assert "line 3" in answer.headers["Warning"]
    listed = rest.ask(f"{REST_PREFIX}/monitor/export?accept=text/csv")
    assert listed.headers["Content-Type"].startswith("text/csv")
    header, row = listed.body.splitlines()
    assert header.startswith('"taskID","createdTime"')
    assert '"1.2.3","1.2.3.1"' in row
    assert rest.ask(f"{REST_PREFIX}/monitor/export", headers={"Accept": "image/png"}).status == 406


def test_csv_with_all_its_parameters(rest: Monitor, ledger: Ledger) -> None:
    path = f"{RS}/studies/csv:2/export/PACS?batchID=night&scheduledTime=20991231120000"
    rows = "x,StudyInstanceUID\nx,1.2.3\nx,1.2.4\nx,1.2.3\n"

    assert json.loads(sent(rest, f"{path}&only-ian=true", rows).body) == {"count": 2}
    assert json.loads(sent(rest, f"{path}&only-stgcmt", "x,1.2.5").body) == {"count": 1}
    assert [row[:2] for row in kinds(ledger)] == [
        *(("IAN", "1.2.3"), ("IAN", "1.2.4"), ("STGCMT_SCU", "1.2.5"))
    ]
    with ledger.statement() as tx:
        staged = [tasks.get(tx, pk) for pk in (1, 2, 3)]
    assert {each.batch_id for each in staged} == {"night"}
    assert {each.scheduled_time.astimezone().hour for each in staged} == {12}
    assert {each.study_instance_uid for each in staged} == {"1.2.3", "1.2.4", "1.2.5"}


def test_files_that_order_nothing(rest: Monitor, ledger: Ledger) -> None:
    path = f"{RS}/studies/csv:1/export/PACS"
    refused = sent(rest, path, "StudyInstanceUID\nnot a UID\n1.2.x\n")
    assert (refused.status, refused.body) == (204, "")
    assert "line 2" in refused.headers["Warning"]
    assert "line 3" in refused.headers["Warning"]
    assert sent(rest, path, "\n").headers["Warning"] == '299 dicomq "no rows"'
    for wrong, rows, headers, status in (
        (f"{RS}/studies/csv:0/export/PACS", "1.2.3", TEXT, 400),
        (f"{RS}/studies/csv:1/series/csv:1/export/PACS", "1.2.3", TEXT, 400),
        (path, "1.2.3", {"Content-Type": "application/json"}, 400),
        (f"{path}?scheduledTime=noon", "1.2.3", TEXT, 400),
        (f"{path}?only-ian&only-stgcmt", "1.2.3", TEXT, 400),
        (f"{RS}/studies/csv:1/export/NOBODY", "1.2.3", TEXT, 404),
    ):
        assert sent(rest, wrong, rows, headers).status == status, wrong
    assert kinds(ledger) == []


# --- retrieves that wait in a queue


def test_retrieves_are_queued(rest: Monitor) -> None:
    external = "/aets/DCM4CHEE/dimse/STORESCP/studies"
    path = f"{external}/1.2.3/series/1.2.3.1/export/dicom:DCM4CHEE?dcmQueueName=Retrieve"

    status, task = rest_answer(rest, path, "POST")

    told = ("type", "queue", "RemoteAET", "DestinationAET", "SeriesInstanceUID")
    assert (status, [task[name] for name in told]) == (
        202,
        ["RETRIEVE", "Retrieve", "STORESCP", "DCM4CHEE", "1.2.3.1"],
    )
    answer = sent(rest, f"{external}/csv:1/export/dicom:STORESCP?batchID=b", "1.2.3\nx\n1.2.4\n")
    assert (answer.status, json.loads(answer.body)) == (202, {"count": 2})
    assert "line 2" in answer.headers["Warning"]
    for query, count in (("", 3), ("DestinationAET=STORESCP", 2), ("batchID=b&LocalAET=X", 0)):
        counted = rest_answer(rest, f"/monitor/retrieve/count?{query}")
        assert counted == (200, {"count": count}), query
    listed = rest.ask(f"{REST_PREFIX}/monitor/retrieve?accept=text/csv&orderby=taskID&offset=1")
    header, *rows = listed.body.splitlines()
    assert ('"DestinationAET"' in header, len(rows)) == (True, 2)
    unknown = f"{external}/1.2.3/export/dicom:DCM4CHEE?dcmQueueName=Nothing"
    assert rest_answer(rest, unknown, "POST")[0] == 404
    elsewhere = f"{external}/1.2.3/export/dicom:X?dcmQueueName=Retrieve&dicomDeviceName=other"
    assert rest_answer(rest, elsewhere, "POST")[0] == 404
