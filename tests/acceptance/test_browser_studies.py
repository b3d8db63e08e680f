"""Studies in a real browser: IAN without export, a hostile name, dry runs, pause and C-ECHO."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from pydicom.config import disable_value_validation

from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from tests.fix_monitor import Monitor, Visit, protected, start_monitor
from tests.fix_objects import secondary_capture, write
from tests.fix_peer import IanScp, StoreScp, echo
from tests.fix_process import wait_until
from tests.fix_system import ARCHIVE, ARCHIVE_AE, System

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE_NAME = "<script>document.title='taken'</script>^<img src=x onerror=alert(1)>"
STUDY = "1.2.826.0.1.3680043.2.99.7"
EXPORTER = f"""dn: dcmExporterID=PACS,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: PACS
dcmURI: dicom:STORESCP
dcmQueueName: PACS
dicomAETitle: DCM4CHEE
dcmIanDestination: IANSCP
"""
RULE = f"""dn: cn=All to PACS,{ARCHIVE_AE}
changetype: add
objectClass: dcmExportRule
cn: All to PACS
dcmEntity: Study
dcmExporterID: PACS
dcmDuration: PT1H
"""


def hostile_object(folder: Path) -> Path:
    dataset = secondary_capture(STUDY, 1, 1)
    dataset.PatientName = HOSTILE_NAME
    dataset.StudyDescription = "</td><script>bad()</script>"
    with disable_value_validation():
        dataset.AccessionNumber = "N" * 10_000
    return write(dataset, folder / "hostile.dcm")


@pytest.fixture
def watched(idle_system: System, tmp_path: Path) -> Iterator[tuple[System, Monitor]]:
    """A running dicomq with Flower beside it."""
    for name in ("scp-0", "dispatcher", "export", "notify"):
        idle_system.start(name)
    idle_system.wait_until(lambda: echo(idle_system.port), what="a C-ECHO of DCM4CHEE")
    log = tmp_path / "flower.log"
    monitor = start_monitor(idle_system.environment, log, *protected())
    yield idle_system, monitor
    monitor.process.stop()


def order_ian_without_export(page: "Page") -> None:
    expect(page.get_by_role("columnheader", name="Objects")).to_be_in_viewport()
    page.locator("#dq-studies").get_by_role("button", name="Export…").click()
    page.get_by_label("Exporter").select_option("PACS")
    page.get_by_label("IAN without export").check()
    page.get_by_label("Batch").fill("by hand")


def test_ian_without_export(
    watched: tuple[System, Monitor],
    store_scp: Callable[..., StoreScp],
    ian_scp: Callable[..., IanScp],
    visit: Visit,
    tmp_path: Path,
) -> None:
    system, monitor = watched
    receiver, destination = ian_scp(), store_scp()
    system.place_peer("IANSCP", receiver.port)
    system.place_peer("STORESCP", destination.port)
    system.configure(EXPORTER)
    system.store([hostile_object(tmp_path)])

    page = visit.open(monitor, "/dicom/studies?PatientID=P7")
    # The name stays text, wherever it is shown.
    expect(page.locator("#dq-studies")).to_contain_text("<script>document.title='taken'</script>")
    expect(page).to_have_title("Studies · Flower")
    order_ian_without_export(page)
    visit.keep(page, "dialog")
    page.locator("#dq-dialog-ok").click()
    expect(page.get_by_text("1 task scheduled")).to_be_visible()

    [notification] = receiver.wait_for(1)
    assert notification.dataset.StudyInstanceUID == STUDY
    assert destination.received_uids() == []
    system.wait_until_idle()
    assert [(task.kind, task.status) for task in system.tasks()] == [("IAN", "COMPLETED")]
    page.goto(f"{monitor.url}/dicom/studies/{STUDY}")
    expect(page.locator("#dq-destinations")).to_contain_text("IANSCP")
    expect(page.locator("#dq-tasks")).to_contain_text("COMPLETED")
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>")
    visit.keep(page, "study")
    see_who_ordered_it(page, system.tasks()[0].pk)
    dry_run_of_received(system, monitor, page)


def see_who_ordered_it(page: "Page", pk: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "page too wide"
    page.get_by_role("link", name=str(pk)).first.click()
    expect(page.locator("#dq-timeline")).to_contain_text("otto@127.0.0.1 (Flower)")


def dry_run_of_received(system: System, monitor: Monitor, page: "Page") -> None:
    """What a new rule would do with what was received before: told, and not done."""
    system.configure(RULE)
    page.goto(f"{monitor.url}/dicom/rules")
    result = page.locator("#dq-received-result")
    for span, words in (
        ("20200101-20200102", "No study was received then."),
        ("2h", "All to PACS"),
    ):
        page.get_by_label("Received", exact=True).fill(span)
        page.get_by_role("button", name="What would the rules do now?").click()
        expect(result).to_contain_text(words)
    expect(result).to_contain_text(STUDY)
    assert [task.kind for task in system.tasks()] == ["IAN"]


def test_dry_run_of_rules(
    monitor: Monitor, monitor_environment: dict[str, str], visit: Visit, tmp_path: Path
) -> None:
    directory = EmbeddedDirectory(Path(monitor_environment["DICOMQ_DATA"]) / "directory.ldif")
    for record in parse_ldif(f"{EXPORTER}\n{RULE}".encode()).records:
        directory.apply(record)
    page = visit.open(monitor, "/dicom/rules", user="vera:watch")

    def is_read() -> bool:
        page.reload()
        return "All to PACS" in page.locator("main").inner_text()

    wait_until(is_read, what="the rule to be read")
    page.locator("#dq-header-file").set_input_files(hostile_object(tmp_path))
    page.get_by_role("button", name="Which rules fire?").click()

    expect(page.locator("#dq-demands")).to_contain_text("All to PACS")
    expect(page.locator("#dq-demands")).to_contain_text("in 1 h")
    expect(page.locator("#dq-header-result")).to_contain_text("<img src=x onerror=alert(1)>")
    change = tmp_path / "change.ldif"
    change.write_text(
        f"dn: cn=All to PACS,{ARCHIVE_AE}\nchangetype: modify\n"
        "replace: dcmExporterID\ndcmExporterID: NOBODY\n"
    )
    page.locator("#dq-ldif-file").set_input_files(change)
    page.get_by_role("button", name="What would change?").click()
    expect(page.locator("#dq-differences")).to_contain_text("NOBODY")
    expect(page.locator("#dq-ldif-result")).to_contain_text("new ")
    page.locator("#dq-header-file").set_input_files(change)
    page.get_by_role("button", name="Which rules fire?").click()
    expect(page.get_by_role("alert")).to_contain_text("not DICOM")
    page.set_viewport_size({"width": 768, "height": 1000})
    visit.keep(page, "rules")


def test_pause_and_resume(
    monitor: Monitor, monitor_environment: dict[str, str], visit: Visit
) -> None:
    directory = EmbeddedDirectory(Path(monitor_environment["DICOMQ_DATA"]) / "directory.ldif")
    for record in parse_ldif(EXPORTER.encode()).records:
        directory.apply(record)
    page = visit.open(monitor, "/dicom/destinations", dark=True)
    card = page.get_by_role("region", name="Destination STORESCP")
    card.get_by_role("button", name="Pause…").click()
    page.get_by_label("Why").fill("upgrade <b>tonight</b>")
    page.locator("#dq-dialog-ok").click()

    expect(card).to_contain_text("Paused by otto@127.0.0.1 (Flower)")
    expect(card).to_contain_text("upgrade <b>tonight</b>")
    visit.keep(page, "paused")
    page.goto(f"{monitor.url}/dicom")
    expect(page.locator("#dq-notices")).to_contain_text("STORESCP is paused")
    page.goto(f"{monitor.url}/dicom/destinations")
    card.get_by_role("button", name="Resume").click()
    expect(card).to_contain_text("open")
    card.get_by_role("button", name="Echo").click()
    expect(page.get_by_role("alert")).to_contain_text("STORESCP")


def test_export_of_all_that_match_needs_a_match(monitor: Monitor, visit: Visit) -> None:
    page = visit.open(monitor, "/dicom/studies")
    page.get_by_role("button", name="Export all matching…").click()
    expect(page.get_by_text("No study matches", exact=True)).to_be_visible()
