"""Who may see and do what: login, roles, CSRF, headers, and no anonymous access from outside."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tornado.web import create_signed_value

from archive.ledger import tasks
from archive.ledger.connection import Ledger
from archive.model.task import NewTask, TaskKind, TaskStatus
from tests.fix_monitor import Monitor, start_monitor
from tests.fix_process import RunningProcess, free_port, wait_until
from workers.monitor.openapi import all_endpoints

VIEWER, OPERATOR, ADMIN = "vera:watch", "otto:operate", "anna:administer"
PAGES = (
    *("/dicom", "/dicom/queues", "/dicom/studies", "/dicom/destinations", "/dicom/rules"),
    *("/dicom/tasks.csv", "/dicom/api/tasks/count", "/dcm4chee-arc/monitor/export"),
    *("/dcm4chee-arc/openapi.json", "/workers", "/tasks", "/api/workers"),
)


@pytest.fixture
def task_pk(ledger: Ledger) -> int:
    """A task that waits for a while."""
    new = NewTask(
        kind=TaskKind.EXPORT,
        queue_name="Export",
        device_name="dcm4chee-arc",
        local_aet="DCM4CHEE",
        remote_aet="STORESCP",
        study_instance_uid="1.2.3",
        exporter_id="STORESCP",
        due_in_s=3600,
    )
    with ledger.transaction() as tx:
        return tasks.stage(tx, new, actor="test")


def test_login_and_roles(monitor: Monitor, ledger: Ledger, task_pk: int) -> None:
    cancel = f"/dicom/api/tasks/{task_pk}/cancel"
    rest_cancel = f"/dcm4chee-arc/monitor/export/{task_pk}/cancel"

    assert {path: monitor.ask(path, user=None).status for path in PAGES} == dict.fromkeys(
        PAGES, 401
    )
    assert {monitor.ask(path, user="otto:wrong").status for path in PAGES} == {401}
    assert {monitor.ask(path, user=VIEWER).status for path in PAGES} == {200}
    for path in (cancel, rest_cancel, "/dicom/api/queues/Export/pause"):
        assert monitor.ask(path, "POST", user=None, body="{}").status == 401
        assert monitor.ask(path, "POST", user=VIEWER, body="{}").status == 403
    # Flower's own control of workers needs an admin.
    shutdown = "/api/worker/shutdown/nobody@nowhere"
    assert monitor.ask(shutdown, "POST", user=VIEWER).status == 403
    assert monitor.ask(shutdown, "POST", user=OPERATOR).status == 403
    assert monitor.ask(shutdown, "POST", user=ADMIN).status == 404
    assert monitor.ask(cancel, "POST", user=OPERATOR, body="{}").status == 200
    with ledger.statement() as tx:
        assert tasks.get(tx, task_pk).status is TaskStatus.CANCELED
        assert tasks.history(tx, task_pk)[-1].actor == "otto@127.0.0.1 (Flower)"


OWN_CHANGES = (
    *("tasks/bulk", "tasks/preview", "tasks/1/cancel", "tasks/1/reschedule", "tasks/1/delete"),
    *("queues/Export/pause", "queues/Export/resume", "destinations/X/pause"),
    *("destinations/X/resume", "destinations/X/echo", "studies/export", "studies/find"),
    *("studies/retrieve", "bulk/1/stop"),
)


def test_every_change_needs_an_operator(monitor: Monitor) -> None:
    """Whatever the tables of REST and pages have: not anonymous, no viewer, no other site."""
    changes = [("POST", f"/dicom/api/{path}") for path in OWN_CHANGES]
    reads: list[tuple[str, str]] = []
    for endpoint in all_endpoints():
        path = re.sub(r"\{\w+\}", "1", f"/dcm4chee-arc{endpoint.path}")
        (reads if endpoint.method == "GET" else changes).append((endpoint.method, path))
    assert len(changes) > 60
    wrong = []
    for method, path in changes:
        for user, headers, status in (
            (None, {}, 401),
            (VIEWER, {}, 403),
            (OPERATOR, {"Sec-Fetch-Site": "cross-site"}, 403),
        ):
            answer = monitor.ask(path, method, user=user, body="{}", headers=headers)
            if answer.status != status:
                wrong.append((method, path, user, answer.status))
    wrong += [
        (method, path, None, status)
        for method, path in reads
        if (status := monitor.ask(path, user=None).status) != 401
    ]
    assert wrong == []


def test_dry_runs_are_for_viewers(monitor: Monitor) -> None:
    for what, status in (("received", 200), ("header", 400), ("ldif", 400)):
        path = f"/dicom/api/dry-run/{what}?called=DCM4CHEE"
        answer = monitor.ask(path, "POST", user=VIEWER, body="no such file")
        assert answer.status == status, answer.body
        assert monitor.ask(path, "POST", user=None, body="x").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_changes_asked_for_by_other_sites_are_refused(
    monitor: Monitor, ledger: Ledger, task_pk: int, headers: dict[str, str]
) -> None:
    for path in (
        f"/dicom/api/tasks/{task_pk}/delete",
        f"/dcm4chee-arc/monitor/export/{task_pk}/cancel",
        "/api/worker/shutdown/nobody@nowhere",
    ):
        answer = monitor.ask(path, "POST", user=ADMIN, body="{}", headers=headers)
        assert answer.status == 403, path
    with ledger.statement() as tx:
        assert tasks.get(tx, task_pk).status is TaskStatus.SCHEDULED


def test_security_headers_and_errors(monitor: Monitor) -> None:
    for path in ("/dicom/queues", "/dcm4chee-arc/queue", "/dicom/tasks/4711"):
        headers = monitor.ask(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
    for path in ("/workers", "/api/workers", "/dicom/tasks.csv"):
        headers = monitor.ask(path).headers
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == (
            *("nosniff", "DENY"),
        )
    assert monitor.ask("/dicom/tasks/4711").status == 404
    wrong = monitor.ask("/dicom/queues?status=%3Cscript%3Ealert(1)%3C/script%3E&createdTime=soon")
    assert wrong.status == 400
    assert "<script>alert" not in wrong.body
    assert "&lt;script&gt;" in wrong.body
    assert monitor.ask("/dicom/queues?after=x").status == 400
    bad = monitor.ask("/dicom/api/tasks/bulk?status=FAILED", "POST", body="[")
    assert (bad.status, "not JSON" in json.loads(bad.body)["errorMessage"]) == (400, True)


@pytest.fixture
def open_monitor(monitor_environment: dict[str, str], tmp_path: Path) -> Iterator[Monitor]:
    """A Flower on loopback without a login."""
    started = start_monitor(monitor_environment, tmp_path / "open.log")
    started.user = None
    yield started
    started.process.stop()


def test_without_login_only_this_machine_by_its_name(open_monitor: Monitor) -> None:
    assert open_monitor.ask("/dicom/queues").status == 200
    # A web page whose host name leads here (DNS rebinding) is refused, Flower's own pages too.
    for path in ("/dicom/queues", "/dcm4chee-arc/queue", "/workers"):
        assert open_monitor.ask(path, headers={"Host": "evil.example"}).status == 403
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert open_monitor.ask("/dcm4chee-arc/ctrl/reload", "POST", headers=cross).status == 403
    assert open_monitor.ask("/dcm4chee-arc/ctrl/reload", "POST").status == 204


OAUTH = (
    *("--auth=anna@example.org|vera@example.org", "--cookie_secret=secret"),
    *("--auth_provider=flower.views.auth.GithubLoginHandler", "--oauth2_key=key"),
    *("--oauth2_secret=secret", "--oauth2_redirect_uri=http://localhost/login"),
    "--roles=anna@example.org:operator",
)


def test_oauth_sessions_have_roles_too(monitor_environment: dict[str, str], tmp_path: Path) -> None:
    started = start_monitor(monitor_environment, tmp_path / "oauth.log", *OAUTH)
    started.user = None

    def session(user: str) -> dict[str, str]:
        return {"Cookie": f"user={create_signed_value('secret', 'user', user).decode()}"}

    try:
        reload = "/dcm4chee-arc/ctrl/reload"
        assert started.ask("/dcm4chee-arc/queue").status == 401
        assert started.ask(reload, "POST").status == 401
        assert started.ask("/dicom/queues", headers=session("anna@example.org")).status == 200
        assert started.ask("/dcm4chee-arc/queue", headers=session("eve@evil.example")).status == 401
        answers = [
            started.ask(reload, "POST", headers=session(f"{name}@example.org")).status
            for name in ("anna", "vera")
        ]
        assert answers == [204, 403]
    finally:
        started.process.stop()


def test_below_a_prefix_with_everything_from_the_environment(
    monitor_environment: dict[str, str], tmp_path: Path
) -> None:
    roles = tmp_path / "roles"
    roles.write_text("# who may do what\nanna:admin\n")
    environment = monitor_environment | {
        "FLOWER_BASIC_AUTH": "vera:watch,anna:administer",
        "FLOWER_ROLES_FILE": str(roles),
        "FLOWER_REST_PREFIX": "/archive",
    }
    log = tmp_path / "prefix.log"
    started = start_monitor(environment, log, "--url_prefix=mon", health="/mon/healthcheck")
    try:
        page = started.ask("/mon/dicom/queues", user=VIEWER)
        assert 'href="/mon/dicom/static/dicomq.css"' in page.body
        assert 'content="/mon/dicom"' in page.body
        assert started.ask("/mon/dicom/static/dicomq.js", user=None).status == 200
        document = json.loads(started.ask("/mon/archive/openapi.json", user=VIEWER).body)
        assert document["servers"] == [{"url": "/mon/archive"}]
        reload = "/mon/archive/ctrl/reload"
        answers = [started.ask(reload, "POST", user=user).status for user in (VIEWER, ADMIN)]
        assert answers == [403, 204]
    finally:
        started.process.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address=0.0.0.0"], "Flower would let everybody on 0.0.0.0 change tasks"),
        (["--roles=anna:king"], "'anna:king' cannot be used"),
        (["--roles_file=/nowhere"], "/nowhere"),
    ],
)
def test_unsafe_starts_are_refused(
    start_flower: Callable[[list[str], Mapping[str, str]], RunningProcess],
    monitor_environment: dict[str, str],
    options: list[str],
    words: str,
) -> None:
    process = start_flower([*options, f"--port={free_port()}"], monitor_environment)

    wait_until(lambda: not process.is_alive(), what="Flower to end")

    assert "Flower cannot start" in process.output() or words in process.output()
    assert words in process.output()
    with contextlib.suppress(ProcessLookupError):
        assert process.kill() != 0
