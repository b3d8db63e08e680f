"""Other archives from a real browser: ask, choose, retrieve; commitment without export; links."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from archive.model.commitment import report_dataset
from tests.fix_monitor import Monitor, Visit, protected, start_monitor
from tests.fix_objects import generate_studies, secondary_capture, write
from tests.fix_peer import CommitmentScp, StoreScp, send_report
from tests.fix_retrieve import Retrieval
from tests.fix_system import ARCHIVE, device_ldif

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE_NAME = "<img src=x onerror=alert(1)>^Eve"
EXPORTER = f"""dn: dcmExporterID=PACS,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: PACS
dcmURI: dicom:STORESCP
dcmQueueName: PACS
dicomAETitle: DCM4CHEE
dcmStgCmtSCP: STGCMTSCP
"""


@pytest.fixture
def watched(retrieval: Retrieval, tmp_path: Path) -> Iterator[tuple[Retrieval, Monitor]]:
    """A running dicomq with Flower beside it."""
    environment = retrieval.system.environment
    monitor = start_monitor(environment, tmp_path / "flower.log", *protected())
    yield retrieval, monitor
    monitor.process.stop()


def far_files(folder: Path) -> list[Path]:
    """Return three studies, one of a patient with a hostile name."""
    hostile = secondary_capture("1.2.826.0.1.9.3", 1, 1)
    hostile.PatientName, hostile.PatientID = HOSTILE_NAME, "P9"
    studies = generate_studies(folder / "far", studies=2, instances=2)
    files = [path for study in studies for path in study.files.values()]
    return [*files, write(hostile, folder / "hostile.dcm")]


def ask_archive(page: "Page", archive: str, patient: str) -> None:
    page.get_by_role("button", name="Retrieve…").click()
    page.get_by_label("At archive").fill(archive)
    page.locator("#dq-dialog").get_by_label("Patient ID").fill(patient)
    page.locator("#dq-dialog-ok").click()


def test_retrieve_what_an_archive_holds(
    watched: tuple[Retrieval, Monitor], visit: Visit, tmp_path: Path
) -> None:
    retrieval, monitor = watched
    archive = retrieval.qrscp()
    archive.store(far_files(tmp_path))
    page = visit.open(monitor, "/dicom/studies")

    ask_archive(page, "QRSCP", "NOBODY")
    expect(page.get_by_text("QRSCP holds no such study")).to_be_visible()
    page.get_by_role("button", name="Search again").click()
    page.locator("#dq-dialog").get_by_label("Patient ID").fill("P9")
    page.locator("#dq-dialog-ok").click()
    found = page.locator("#dq-found")
    expect(found).to_contain_text(HOSTILE_NAME)
    visit.keep(page, "found")
    page.get_by_label("To (AE title)").fill("DCM4CHEE")
    page.get_by_label("Batch").fill("from QRSCP")
    page.locator("#dq-dialog-ok").click()

    expect(page.get_by_text("Task 1 scheduled")).to_be_visible()
    task = retrieval.system.wait_for_task("RETRIEVE", "COMPLETED")
    page.goto(f"{monitor.url}/dicom/studies?PatientID=P9")
    expect(page.locator("#dq-studies")).to_contain_text(HOSTILE_NAME)
    page.goto(f"{monitor.url}/dicom/tasks/{task.pk}")
    expect(page.get_by_label("Task", exact=True)).to_contain_text("from QRSCP")
    follow_to_celery_and_back(page, task.pk)


def follow_to_celery_and_back(page: "Page", pk: int) -> None:
    """Go from our page of a task to Flower's page of its hint, and back."""
    page.get_by_role("link", name=f"{pk}.1").click()
    expect(page).to_have_url(re.compile(rf"/task/{pk}\.1$"))
    expect(page.get_by_text("dicomq.run").first).to_be_visible()
    page.get_by_role("link", name=f"Task {pk} in the ledger").click()
    expect(page.locator("#dq-task-status")).to_have_text("COMPLETED")


def test_an_archive_that_does_not_answer(watched: tuple[Retrieval, Monitor], visit: Visit) -> None:
    retrieval, monitor = watched
    retrieval.qrscp().process.kill()
    page = visit.open(monitor, "/dicom/studies")
    ask_archive(page, "QRSCP", "P9")
    expect(page.get_by_role("alert")).to_contain_text("QRSCP")
    expect(page.locator("#dq-dialog-ok")).to_be_enabled()
    expect(page.locator("#dq-dialog-ok")).to_have_text("Search there")


def order(page: "Page", what: str) -> None:
    page.locator("#dq-studies").get_by_role("button", name="Export…").click()
    page.get_by_label(what).check()
    page.locator("#dq-dialog-ok").click()
    expect(page.locator("#dq-dialog")).to_be_hidden()


def test_commitment_without_export(
    watched: tuple[Retrieval, Monitor],
    store_scp: Callable[..., StoreScp],
    commitment_scp: Callable[..., CommitmentScp],
    visit: Visit,
    tmp_path: Path,
) -> None:
    """What an exporter has delivered is asked for again, and nothing is sent again."""
    retrieval, monitor = watched
    for name in ("export", "commit"):
        retrieval.system.start(name)
    destination, peer = store_scp(), commitment_scp()
    retrieval.place("STORESCP", destination.port)
    retrieval.system.configure(device_ldif("STGCMTSCP", peer.port), EXPORTER)
    [study] = generate_studies(tmp_path / "held", studies=1, instances=2)
    retrieval.store(study)
    page = visit.open(monitor, "/dicom/studies")
    order(page, "Export, then what follows it")
    [first] = peer.wait_for(1)
    order(page, "Commitment without export")
    second = peer.wait_for(2)[1]

    assert {each.sop_instance_uid for each in second.references} == set(study.files)
    assert first.transaction_uid != second.transaction_uid
    assert len(destination.received) == len(study.files)
    page.goto(f"{monitor.url}/dicom/studies/{study.study_instance_uid}")
    expect(page.get_by_role("region", name="Commitments")).to_contain_text("PENDING")
    assert send_report(retrieval.system.port, report_dataset(second.report())) == 0x0000
    expect(page.get_by_role("region", name="Commitments")).to_contain_text("2 of 2")
    expect(page.locator("#dq-destinations")).to_contain_text("STGCMTSCP")
    visit.keep(page, "committed")
