"""Alert rules and dashboard: what they ask for exists, and Prometheus takes them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from archive.ledger.connection import Ledger
from tests.fix_process import ROOT, missing
from workers.directory_metrics import DirectoryCollector
from workers.metrics import DispatcherMetrics, LedgerCollector, WorkerMetrics

RULES = ROOT / "deploy" / "compose" / "prometheus" / "alerts.yml"
DASHBOARDS = ROOT / "deploy" / "compose" / "grafana" / "dashboards"
OF_OTHERS = {
    "up",
    # of the balancer; tests/acceptance/test_compose.py sees it in Prometheus
    "haproxy_backend_active_servers",
    "haproxy_backend_current_sessions",
    "haproxy_backend_sessions_total",
}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def asked(expression: str) -> set[str]:
    """Return the metrics of an expression: words before a selector, an operator or the end."""
    plain = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:dicomq|haproxy)_\w+", plain)) | set(re.findall(r"\bup\b", plain))


@pytest.fixture
def served(ledger: Ledger, tmp_path: Path) -> dict[str, set[str]]:
    """Labels by name of each sample that a dispatcher and a worker serve."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(ledger, "d"))
    settings = Settings.from_environment({"DICOMQ_DATA": str(tmp_path)})
    registry.register(DirectoryCollector(open_source(settings)))
    found: dict[str, set[str]] = {}
    for each in (WorkerMetrics().registry, DispatcherMetrics().registry, registry):
        for family in each.collect():
            for suffix in SUFFIXES[family.type]:
                found[family.name + suffix] = set()
    return found


def test_every_metric_of_an_alert_exists(served: dict[str, set[str]]) -> None:
    for name, rule in alerts().items():
        metrics = asked(rule["expr"])
        assert metrics, name
        assert metrics <= set(served) | OF_OTHERS, name


def test_every_metric_of_the_dashboard_exists(served: dict[str, set[str]]) -> None:
    for path in DASHBOARDS.glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                metrics = asked(target["expr"])
                assert metrics, panel["title"]
                assert metrics <= set(served) | OF_OTHERS, panel["title"]


def test_every_metric_and_alert_is_documented(served: dict[str, set[str]]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in served}
    assert [name for name in sorted(bases) if name not in text] == []
    assert [name for name in alerts() if f"`{name}`" not in text] == []


def test_prometheus_takes_configuration_and_rules() -> None:
    if shutil.which("promtool") is None:
        missing("promtool is not installed (apt-get install prometheus)")
    for what, path in (("config", RULES.with_name("prometheus.yml")), ("rules", RULES)):
        done = subprocess.run(
            ["promtool", "check", what, path], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Played with promtool: each series, minute by minute, and the alerts after a while."""
    if shutil.which("promtool") is None:
        missing("promtool is not installed (apt-get install prometheus)")
    cases = {
        "LedgerUnreachable": 'dicomq_ledger_up{instance="a"}: 0x20',
        "DirectoryUnreachable": "dicomq_directory_up: 0x20",
        "QueueStalled": 'dicomq_queue_oldest_due_seconds{queue="Q"}: 900x20',
        "DestinationUnreachable": (
            'dicomq_destination_paused{destination="D",cause="unreachable"}: 1x20'
        ),
        "TasksFail": ('dicomq_attempts_total{queue="Q",destination="D",status="FAILED"}: 0+1x20'),
        "WorkersLost": 'dicomq_rescued_total{queue="Q"}: 0+1x20',
        "HintsLost": 'dicomq_recalled_total{queue="Q"}: 0+100x20',
        "CommitmentOverdue": 'dicomq_commitments_overdue{destination="D"}: 1x20',
        "SlowStart": 'dicomq_start_delay_seconds_bucket{queue="Q",le="600"}: 0+10x40\n'
        'dicomq_start_delay_seconds_bucket{queue="Q",le="+Inf"}: 0+10x40',
        "NoScp": 'haproxy_backend_active_servers{proxy="scp"}: 0x20',
        "ProcessDown": 'up{job="worker",instance="i"}: 0x20',
        "NoDispatcher": 'up{job="worker",instance="i"}: 1x20',
        "DispatcherStuck": "dicomq_dispatcher_last_pass_timestamp_seconds: 5x20",
    }
    assert set(cases) == set(alerts())
    tests = [_played(name, series) for name, series in cases.items()]
    path = tmp_path / "played.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _played(name: str, series: str) -> dict[str, Any]:
    """Return a case of promtool: `count` of firing alerts of the name is one after 20 minutes."""
    pairs = [line.rsplit(": ", 1) for line in series.splitlines()]
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in pairs],
        "promql_expr_test": [
            {"expr": expression, "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 1}]}
        ],
    }
