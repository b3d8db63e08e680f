"""Changes of many tasks in a real browser: progress is seen, they can be stopped, pages live."""

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from archive.ledger.connection import Ledger
from tests.fix_monitor import Monitor, Visit

if TYPE_CHECKING:
    from playwright.sync_api import Page

TASKS = 12_000
CHUNK = 2000
HELD = 7000
INSERT = """
INSERT INTO task (kind, queue_name, device_name, scheduled_time, local_aet, remote_aet,
                  exporter_id, study_instance_uid)
SELECT 'EXPORT', 'Export', 'dcm4chee-arc', now() + interval '1 d', 'DCM4CHEE', 'STORESCP',
       'STORESCP', '1.2.' || i
FROM generate_series(1, %s) i
"""
LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.longTasks.push(each.duration);
}).observe({ type: "longtask", buffered: true });
"""


@pytest.fixture
def many_tasks(ledger: Ledger) -> int:
    """Many tasks that wait until tomorrow; their IDs begin with 1."""
    with ledger.transaction() as tx:
        tx.execute(INSERT, (TASKS,))
    return TASKS


def start_cancel(page: "Page") -> None:
    page.get_by_role("button", name="All actions").click()
    page.get_by_role("button", name="Cancel all matching tasks").click()
    expect(page.locator("#dq-bulk-preview")).to_contain_text("12\u202f000 tasks would be canceled")
    page.locator("#dq-dialog-ok").click()


def test_progress_and_stop(monitor: Monitor, ledger: Ledger, many_tasks: int, visit: Visit) -> None:
    page = visit.open(monitor, "/dicom/queues?queue=Export&status=SCHEDULED")
    with ledger.transaction() as tx:
        # The fourth chunk has to wait for somebody else, so that there is time to look and to stop.
        tx.execute("SELECT FROM task WHERE pk = %s FOR UPDATE", (HELD,))
        start_cancel(page)
        expect(page.locator("#dq-bulk-progress")).to_contain_text("6\u202f000 of 12\u202f000")
        assert page.get_by_role("progressbar").get_attribute("value") == "6000"
        visit.keep(page, "progress")
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.get_by_role("button", name="Stop", exact=True)).to_be_enabled()
    expect(page.locator("#dq-bulk-result")).to_contain_text("Stopped. 8\u202f000 tasks canceled")
    visit.keep(page, "stopped")
    page.keyboard.press("Escape")
    expect(page.locator("#dq-dialog")).to_be_hidden()
    page.get_by_role("button", name="Count").click()
    left = many_tasks - HELD // CHUNK * CHUNK - CHUNK
    expect(page.locator("#dq-count-result")).to_contain_text(f"{left:,}".replace(",", "\u202f"))


def test_hidden_progress_ends_in_a_message(
    monitor: Monitor, ledger: Ledger, many_tasks: int, visit: Visit
) -> None:
    page = visit.open(monitor, "/dicom/queues?queue=Export&status=SCHEDULED")
    with ledger.transaction() as tx:
        tx.execute("SELECT FROM task WHERE pk = %s FOR UPDATE", (many_tasks,))
        start_cancel(page)
        page.get_by_role("button", name="Hide").click()
        expect(page.locator("#dq-dialog")).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="12\u202f000 tasks canceled")).to_be_visible()
    expect(page.get_by_text("No task matches.")).to_be_visible()


@pytest.mark.usefixtures("many_tasks")
def test_live_update_leaves_alone_what_did_not_change(
    monitor: Monitor, ledger: Ledger, visit: Visit
) -> None:
    """Rows come, go and change places; the focus and selected text of a row stay."""
    page = visit.open(monitor, "/dicom/queues?queue=Export&orderby=taskID&limit=25")
    row = page.locator("tr[data-task='2']")
    row.get_by_role("button", name="Cancel task 2").focus()
    row.locator(".dq-uid a").evaluate("each => getSelection().selectAllChildren(each)")
    row.evaluate("each => { each.mark = 'the same'; }")
    with ledger.transaction() as tx:
        tx.execute("DELETE FROM task WHERE pk = 1")
        tx.execute("UPDATE task SET status = 'CANCELED', end_time = now() WHERE pk = 3")

    expect(page.locator("tr[data-task='1']")).to_have_count(0)
    expect(page.locator("tr[data-task='3']")).to_contain_text("CANCELED")
    expect(page.locator("tr[data-task='26']")).to_be_visible()
    rows = page.locator("#dq-tasks tbody tr").evaluate_all("all => all.map(e => e.dataset.task)")
    assert rows == [str(pk) for pk in range(2, 27)]
    assert row.evaluate("each => each.mark") == "the same"
    assert page.evaluate("getSelection().toString()") == "1.2.2"
    expect(row.get_by_role("button", name="Cancel task 2")).to_be_focused()


@pytest.mark.usefixtures("many_tasks")
def test_live_update_blocks_nothing(monitor: Monitor, ledger: Ledger, visit: Visit) -> None:
    """Rows change while the page of 200 rows is live: it is drawn anew without a long stop."""
    page = visit.open(monitor, "/dicom/queues?queue=Export&limit=200")
    page.evaluate(LONG_TASKS)
    for batch in ("first", "second"):
        with ledger.transaction() as tx:
            tx.execute("UPDATE task SET batch_id = %s, updated_time = clock_timestamp()", (batch,))
        expect(page.locator("#dq-tasks tbody tr").first).to_contain_text(batch)
    # 200 ms is what a user begins to notice; the machine of the tests is busy with other things.
    assert all(each < 500 for each in page.evaluate("window.longTasks"))
