"""The pages in a real Chromium with many tasks: smooth while they are live and much changes.

    python -m benchmarks.browser [--tasks 1000000] [--seconds 20]

Opens each page over a filled ledger while tasks keep changing, and notes the long tasks of the
browser (more than 50 ms during which it answers nothing) and the gaps between frames. Then cancels
a tenth of all tasks from the page, with its progress, and stops the rescheduling of another tenth.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from archive.ledger.connection import Ledger
from benchmarks.pages import flower
from tests.fix_monitor import CHROMIUM, CHROMIUM_OPTIONS, Monitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

WATCH = """
window.longTasks = [];
window.gaps = [];
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.longTasks.push(each.duration);
}).observe({ type: "longtask" });
let last = performance.now();
const frame = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""
PAGES = {
    "Overview": "/dicom",
    "Queues, 50 rows": "/dicom/queues",
    "Queues, 200 rows": "/dicom/queues?limit=200",
    "Destinations": "/dicom/destinations",
}
CHANGE = """
UPDATE task SET updated_time = clock_timestamp(), batch_id = 'b' || floor(random() * 1000)
WHERE pk IN (SELECT floor(random() * %s)::bigint + 1 FROM generate_series(1, 50))
"""


@contextmanager
def changing(ledger: Ledger, count: int) -> Iterator[None]:
    """Change 50 random tasks five times a second."""
    stop = threading.Event()

    def change() -> None:
        while not stop.wait(0.2):
            with ledger.statement() as tx:
                tx.execute(CHANGE, (count,))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def told(page: "Page", name: str) -> None:
    """Print what the browser noted since `WATCH`."""
    long_tasks = page.evaluate("window.longTasks")
    gaps = sorted(page.evaluate("window.gaps"))
    p99 = gaps[int(len(gaps) * 0.99)] if gaps else 0.0
    longest = max(long_tasks, default=0)
    print(
        f"{name:<28} {len(long_tasks):>3} long tasks, longest {longest:>4.0f} ms;"
        f" {len(gaps):>5} frames, median gap {statistics.median(gaps or [0]):>3.0f},"
        f" p99 {p99:>4.0f}, longest {max(gaps, default=0):>4.0f} ms",
        flush=True,
    )


def look(page: "Page", monitor: Monitor, seconds: float) -> None:
    """Look at each page for a while."""
    for name, path in PAGES.items():
        page.goto(f"{monitor.url}{path}")
        page.evaluate(WATCH)
        page.wait_for_timeout(seconds * 1000)
        told(page, name)


def bulk(page: "Page", monitor: Monitor, operation: str, status: str, *, stop: bool) -> None:
    """Change all tasks of a status from the page; print how that went."""
    page.goto(f"{monitor.url}/dicom/queues?status={status}")
    page.get_by_role("button", name="All actions").click()
    page.get_by_role("button", name=f"{operation} all matching tasks").click()
    page.locator("#dq-bulk-preview").wait_for()
    page.evaluate(WATCH)
    started = time.perf_counter()
    page.locator("#dq-dialog-ok").click()
    seen: set[object] = set()
    result = page.locator("#dq-bulk-result")
    while not result.is_visible():
        seen.add(page.evaluate("document.querySelector('progress')?.value ?? ''"))
        if stop and len(seen) > 2:  # noqa: PLR2004 - it is under way
            page.get_by_role("button", name="Stop", exact=True).click()
            stop = False
        page.wait_for_timeout(50)
    took = time.perf_counter() - started
    print(f"{result.inner_text()} {took:.1f} s, {len(seen)} different numbers of progress seen")
    told(page, f"{operation}, {status}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    print(f"filling a ledger with {arguments.tasks:,} tasks ...", flush=True)
    with flower(arguments.tasks) as (monitor, ledger), sync_playwright() as playwright:
        options = list(CHROMIUM_OPTIONS)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        with changing(ledger, arguments.tasks):
            look(page, monitor, arguments.seconds)
        bulk(page, monitor, "Cancel", "SCHEDULED", stop=False)
        bulk(page, monitor, "Reschedule", "FAILED", stop=True)
        browser.close()


if __name__ == "__main__":
    main()
