"""The seeds' "Monitoring IAN Tasks" in a real browser: query, count, single and bulk actions."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import IanDetails, NewTask, TaskKind, TaskStatus
from tests.fix_monitor import Monitor, Visit, protected, start_monitor
from tests.fix_process import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

IAN_TASKS = 7


def stage(ledger: Ledger, kind: TaskKind, queue: str, count: int) -> list[int]:
    new = NewTask(
        kind=kind,
        queue_name=queue,
        device_name="dcm4chee-arc",
        local_aet="DCM4CHEE",
        remote_aet="IANSCP",
        study_instance_uid="1.2.3",
        exporter_id="STORESCP",
        due_in_s=3600,
        ian=IanDetails(("STORESCP",), "ONLINE") if kind is TaskKind.IAN else None,
    )
    with ledger.transaction() as tx:
        return [tasks.stage(tx, new, actor="test") for _ in range(count)]


@pytest.fixture
def ian_tasks(ledger: Ledger) -> list[int]:
    """IAN tasks, beside others that must not be touched."""
    stage(ledger, TaskKind.EXPORT, "Export", 3)
    return stage(ledger, TaskKind.IAN, "IANSCU", IAN_TASKS)


def statuses(ledger: Ledger) -> dict[tuple[TaskKind, TaskStatus], int]:
    with ledger.statement() as tx:
        return tasks.count_by_status(tx)


def select_ian_tasks(page: "Page") -> None:
    page.get_by_label("Queue").select_option("IANSCU")
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile("queue=IANSCU"))
    expect(page.locator("#dq-tasks tbody tr")).to_have_count(IAN_TASKS)
    page.wait_for_load_state()  # buttons work from then on


def choose_bulk(page: "Page", name: str) -> None:
    page.wait_for_load_state()
    page.get_by_role("button", name="All actions").click()
    page.get_by_role("button", name=name).click()


def test_query_count_and_single_actions(
    monitor: Monitor, ledger: Ledger, ian_tasks: list[int], visit: Visit
) -> None:
    page = visit.open(monitor, "/dicom/queues")
    select_ian_tasks(page)
    page.get_by_role("button", name="Count").click()
    expect(page.locator("#dq-count-result")).to_have_text("7 tasks: 7 SCHEDULED")
    first, second, third = ian_tasks[:3]

    cancel = page.get_by_role("button", name=f"Cancel task {first}")
    assert "Cancel task" in (cancel.get_attribute("title") or "")
    cancel.click()

    row = page.locator(f"tr[data-task='{first}']")
    expect(row).to_contain_text("CANCELED")
    page.get_by_role("button", name=f"Reschedule task {second}").click()
    expect(page.get_by_text(f"Task {second} rescheduled")).to_be_visible()
    page.get_by_role("button", name=f"Delete task {third}").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(f"tr[data-task='{third}']")).to_have_count(0)
    visit.keep(page, "done")
    with ledger.statement() as tx:
        assert tasks.get(tx, first).status is TaskStatus.CANCELED
        assert [each.actor for each in tasks.history(tx, first)][-1] == "otto@127.0.0.1 (Flower)"
        assert tasks.get(tx, second).scheduled_time < tasks.get(tx, ian_tasks[4]).scheduled_time


@pytest.mark.usefixtures("ian_tasks")
def test_bulk_cancel_reschedule_and_delete(monitor: Monitor, ledger: Ledger, visit: Visit) -> None:
    page = visit.open(monitor, "/dicom/queues")
    select_ian_tasks(page)
    page.get_by_label("SCHEDULED", exact=True).check()
    page.get_by_role("button", name="Search").click()

    choose_bulk(page, "Cancel all matching tasks")
    expect(page.locator("#dq-bulk-preview")).to_have_text("7 tasks would be canceled (7 SCHEDULED)")
    visit.keep(page, "preview")
    page.locator("#dq-dialog-ok").click()
    expect(page.locator("#dq-bulk-result")).to_have_text("Done. 7 tasks canceled (7 SCHEDULED)")
    page.locator("#dq-dialog-cancel").click()

    page.goto(f"{monitor.url}/dicom/queues?queue=IANSCU&status=CANCELED")
    choose_bulk(page, "Reschedule all matching tasks")
    page.get_by_label("When").fill("+2h")
    page.locator("#dq-dialog-ok").click()
    expect(page.locator("#dq-bulk-result")).to_contain_text("7 tasks rescheduled")
    page.locator("#dq-dialog-cancel").click()

    page.goto(f"{monitor.url}/dicom/queues?queue=IANSCU")
    choose_bulk(page, "Delete all matching tasks")
    page.locator("#dq-dialog-ok").click()
    expect(page.locator("#dq-bulk-result")).to_contain_text("7 tasks deleted")
    page.locator("#dq-dialog-cancel").click()
    expect(page.get_by_text("No task matches.")).to_be_visible()
    assert statuses(ledger) == {(TaskKind.EXPORT, TaskStatus.SCHEDULED): 3}


def test_page_follows_without_reload(
    monitor: Monitor, ledger: Ledger, ian_tasks: list[int], visit: Visit
) -> None:
    page = visit.open(monitor, f"/dicom/tasks/{ian_tasks[0]}")
    expect(page.locator("#dq-task-status")).to_have_text("SCHEDULED")

    with ledger.transaction() as tx:
        tasks.cancel(tx, ian_tasks[0], actor="somebody else", reason="not wanted")

    expect(page.locator("#dq-task-status")).to_have_text("CANCELED")
    expect(page.locator("#dq-timeline")).to_contain_text("somebody else")
    visit.keep(page, "task")


@pytest.mark.usefixtures("ian_tasks")
def test_everything_by_keyboard(monitor: Monitor, visit: Visit) -> None:
    page = visit.open(monitor, "/dicom/queues")
    page.get_by_label("Remote AE").focus()
    page.keyboard.type("IANSCP")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("RemoteAET=IANSCP"))
    page.get_by_role("link", name="Status").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("orderby=-status"))
    header = page.get_by_role("columnheader", name="Status")
    expect(header).to_have_attribute("aria-sort", "descending")
    page.wait_for_load_state()

    page.get_by_role("button", name="All actions").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#dq-dialog")).to_be_visible()
    assert page.evaluate("document.querySelector('#dq-dialog').contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(page.locator("#dq-dialog")).to_be_hidden()
    page.get_by_role("button", name="Reschedule task").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile(r"Task \d+ rescheduled"))).to_be_visible()


def test_pages_say_when_the_server_is_away(monitor: Monitor, visit: Visit) -> None:
    page = visit.open(monitor, "/dicom")
    expect(page.get_by_text("Nothing. No task failed")).to_be_visible()
    page.goto(f"{monitor.url}/dicom/queues")
    expect(page.get_by_text("No task matches.")).to_be_visible()
    monitor.process.stop()
    expect(page.get_by_text("No answer; what is shown may be old")).to_be_visible()
    visit.keep(page, "away")


def test_viewer_is_refused(
    monitor: Monitor, ledger: Ledger, ian_tasks: list[int], visit: Visit
) -> None:
    page = visit.open(monitor, "/dicom/queues?queue=IANSCU", user="vera:watch", dark=True)
    button = page.get_by_role("button", name=f"Cancel task {ian_tasks[0]}")
    expect(button).to_be_disabled()
    expect(page.locator("#dq-all-actions")).to_be_disabled()

    # Whoever takes the mark away from the button is refused by the server.
    button.evaluate("button => { button.disabled = false; button.click(); }")

    expect(page.get_by_text("User vera is viewer; this needs operator")).to_be_visible()
    visit.keep(page, "refused")
    assert statuses(ledger)[TaskKind.IAN, TaskStatus.SCHEDULED] == IAN_TASKS


def test_every_task_is_meant_only_when_said(
    monitor: Monitor, ledger: Ledger, ian_tasks: list[int], visit: Visit
) -> None:
    page = visit.open(monitor, "/dicom/queues")
    choose_bulk(page, "Cancel all matching tasks")
    page.locator("#dq-dialog-ok").click()
    expect(page.get_by_text("Say that you mean every task, or set a filter")).to_be_visible()

    page.locator("#dq-bulk-sure").check()
    page.locator("#dq-dialog-ok").click()

    expect(page.locator("#dq-bulk-result")).to_contain_text("10 tasks canceled")
    assert len(ian_tasks) == IAN_TASKS
    wait_until(lambda: (TaskKind.IAN, TaskStatus.SCHEDULED) not in statuses(ledger), what="")


@pytest.fixture
def open_monitor(monitor_environment: dict[str, str], tmp_path: Path) -> Iterator[Monitor]:
    """A Flower on loopback without a login."""
    started = start_monitor(monitor_environment, tmp_path / "open.log")
    started.user = None
    yield started
    started.process.stop()


def test_own_pages_of_flower_keep_working(open_monitor: Monitor, visit: Visit) -> None:
    page = visit.open(open_monitor, "/workers", user=None)

    expect(page.get_by_role("link", name="Queues")).to_be_visible()
    for path in ("/tasks", "/broker", "/dicom"):
        page.goto(f"{open_monitor.url}{path}")
        expect(page.get_by_role("link", name="Studies")).to_be_visible()
    assert protected()
