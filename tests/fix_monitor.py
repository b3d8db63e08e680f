"""Flower with our pages as a process, and a real Chromium that looks at it."""

import json
import os
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.ledger import objects
from archive.ledger.connection import Ledger
from archive.model.entities import ObjectAttributes, Reception, StoredFile, StorePolicy
from tests.fix_engine import DEVICE_DN
from tests.fix_process import ROOT, RunningProcess, Spawn, free_port, missing, start_process
from tests.fix_redis import RedisServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DEADLINE_MS = 20_000
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
USERS = ("vera:watch", "otto:operate", "anna:administer")
ROLES = ("vera:viewer", "otto:operator", "anna:admin")
REST_PREFIX = "/dcm4chee-arc"
EXPORTER_LDIF = f"""dn: dcmExporterID=PACS,{DEVICE_DN}
changetype: add
objectClass: dcmExporter
dcmExporterID: PACS
dcmURI: dicom:STORESCP
dcmQueueName: Export1
dicomAETitle: DCM4CHEE
dicomDescription: To the PACS
dcmIanDestination: IANSCP
dcmStgCmtSCP: STORESCP

dn: dcmExporterID=PLAIN,{DEVICE_DN}
changetype: add
objectClass: dcmExporter
dcmExporterID: PLAIN
dcmURI: dicom:STORESCP
dcmQueueName: Export1
dicomAETitle: DCM4CHEE
"""
SCREENSHOTS = Path(os.environ.get("TEST_SCREENSHOTS") or ROOT / "build" / "screenshots")


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass
class Monitor:
    """A running Flower with our pages."""

    url: str
    process: RunningProcess
    user: str | None = "otto:operate"
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        user: str | None = "",
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; `user` is ``name:password``, None for nobody."""
        who = self.user if user == "" else user
        sent = {"Content-Type": "application/json", **(headers or {})}
        if who:
            sent["Authorization"] = f"Basic {b64encode(who.encode()).decode()}"
        data = None if body is None and method == "GET" else (body or "").encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}{path}", data, sent, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return Answer(answer.status, dict(answer.headers), answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read().decode())


def start_monitor(
    environment: Mapping[str, str], log: Path, *options: str, health: str = "/healthcheck"
) -> Monitor:
    """Start ``celery -A workers flower`` on a free port and wait until it answers `health`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    celery = str(Path(sys.executable).parent / "celery")
    argv = [celery, "-A", "workers", "flower", "--address=127.0.0.1", f"--port={port}", *options]

    def answers() -> bool:
        with urllib.request.urlopen(f"{url}{health}", timeout=5) as answer:  # noqa: S310
            return int(answer.status) == 200

    return Monitor(url, start_process(argv, log=log, env=environment, ready=answers))


def rest_answer(
    rest: Monitor,
    path: str,
    method: str = "GET",
    **more: Any,  # noqa: ANN401 - as `Monitor.ask` takes it
) -> tuple[int, Any]:
    """Return status and JSON of an answer of the REST interface."""
    got = rest.ask(f"{REST_PREFIX}{path}", method, **more)
    return got.status, json.loads(got.body) if got.body else None


def protected() -> tuple[str, ...]:
    """Return the options that ask for a login and give the test users their roles."""
    return (f"--basic-auth={','.join(USERS)}", f"--roles={','.join(ROLES)}")


@pytest.fixture
def monitor_environment(ledger_url: str, own_redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    """Variables of a Flower over a fresh ledger and the default directory."""
    directory = tmp_path / "data"
    directory.mkdir()
    EmbeddedDirectory(directory / "directory.ldif").create(default_entries())
    return {
        "DATABASE_URL": ledger_url,
        "REDIS_URL": own_redis.url,
        "DICOMQ_DATA": str(directory),
    }


@pytest.fixture
def monitor(monitor_environment: dict[str, str], tmp_path: Path) -> Iterator[Monitor]:
    """A Flower with login and roles over a fresh ledger."""
    started = start_monitor(monitor_environment, tmp_path / "flower.log", *protected())
    yield started
    started.process.stop()


@pytest.fixture
def rest(monitor_environment: dict[str, str], request: pytest.FixtureRequest) -> Monitor:
    """A Flower whose directory has the exporters PACS, and PLAIN that neither notifies nor asks."""
    directory = EmbeddedDirectory(Path(monitor_environment["DICOMQ_DATA"]) / "directory.ldif")
    for record in parse_ldif(EXPORTER_LDIF.encode()).records:
        directory.apply(record)
    monitor: Monitor = request.getfixturevalue("monitor")
    return monitor


@pytest.fixture
def indexed(ledger: Ledger) -> Callable[..., None]:
    """Put objects into the index: ``indexed("1.2", "1.2.1", "1.2.1.1", modality="CT")``."""

    def store(study: str, series: str, instance: str, **attributes: str) -> None:
        new = ObjectAttributes(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
            sop_instance_uid=instance,
            study_instance_uid=study,
            series_instance_uid=series,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **attributes,  # type: ignore[arg-type] # texts only
        )
        file = StoredFile("fs1", instance, "1.2.840.10008.1.2.1", 9, 1, f"md5:{instance}")
        reception = Reception("MOD", "DCM4CHEE")
        with ledger.transaction() as tx:
            objects.store_object(tx, new, file, reception, intents=(), policy=StorePolicy())

    return store


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium, driven by Playwright."""
    if not CHROMIUM.exists():
        missing("no chromium (apt-get install chromium)")
    from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - only where it is used

    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(CHROMIUM_OPTIONS)
        )
        yield browser
        browser.close()


class Visit:
    """Opens pages as a user, and keeps what they look like."""

    def __init__(self, browser: "Browser", name: str) -> None:
        self._browser = browser
        self._name = name
        self.errors: list[str] = []

    def open(
        self, monitor: Monitor, path: str, *, user: str | None = "otto:operate", dark: bool = False
    ) -> "Page":
        """Open a page; errors in its scripts are noted."""
        name, _, password = (user or "").partition(":")
        context = self._browser.new_context(
            viewport={"width": 1280, "height": 800},
            color_scheme="dark" if dark else "light",
            http_credentials={"username": name, "password": password} if user else None,
        )
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{monitor.url}{path}")
        return page

    def keep(self, page: "Page", what: str) -> Path:
        """Keep a screenshot as output of the test."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{self._name}-{what}.png"
        page.screenshot(path=str(path))
        return path


@pytest.fixture
def visit(chromium: "Browser", request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Look at pages; the test fails when one of their scripts did."""
    name: str = request.node.name
    visiting = Visit(chromium, name.removeprefix("test_"))
    yield visiting
    for context in chromium.contexts:
        context.close()
    assert not visiting.errors


@pytest.fixture
def start_flower(spawn: Spawn) -> Callable[[list[str], Mapping[str, str]], RunningProcess]:
    """Start Flower with options and do not wait for anything."""

    def start(options: list[str], environment: Mapping[str, str]) -> RunningProcess:
        celery = str(Path(sys.executable).parent / "celery")
        return spawn([celery, "-A", "workers", "flower", *options], environment)

    return start
