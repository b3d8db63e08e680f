"""The files of the docker-compose stack, as far as they can be checked without an engine."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fix_process import ROOT, missing

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
STACK: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OWN = [name for name, service in SERVICES.items() if "build" in service]
ONCE = {"migrate", "admin"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_guarded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert not service.get("privileged")
    assert ("healthcheck" in service) == (name not in ONCE)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_exists(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", ())) <= set(STACK["secrets"])
    assert set(service["networks"]) <= set(STACK["networks"])
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert source in STACK["volumes"] or (DEPLOY / source).exists(), volume
    conditions = service.get("depends_on", {})
    for other in conditions:
        assert other in SERVICES
        if isinstance(conditions, dict) and conditions[other]["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", OWN)
def test_an_image_does_not_run_as_root(name: str) -> None:
    target = SERVICES[name]["build"]["target"]
    stage = re.search(
        rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
    assert stage is not None, f"no stage {target}"
    users = re.findall(r"^USER (\d+):", stage[1], re.MULTILINE)
    assert users
    assert int(users[-1]) > 0


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_address_unless_told_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:"), port


def test_no_service_but_these_can_be_reached_from_outside() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"balancer", "flower", "ldap", "prometheus", "grafana"}
    assert STACK["networks"]["inside"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["inside"] for name in ("postgres", "redis"))


def test_every_pool_has_a_worker_and_everything_a_health_check_of_its_kind() -> None:
    from workers.queues import PoolKind  # noqa: PLC0415 - the stack is what this module is about

    for kind in PoolKind:
        command = SERVICES[kind]["command"]
        assert command[command.index("--kind") + 1] == kind
        assert SERVICES[kind]["healthcheck"]["test"][-1] == kind


def test_what_can_be_set_has_an_example_and_a_default() -> None:
    text = (DEPLOY / "docker-compose.yml").read_text()
    example = (DEPLOY / "env.example").read_text()
    known = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+)(:-)?", text))
    assert all(used.values())
    assert set(used) - {"GRAFANA_IMAGE", "DICOMQ_LDAP_ADMIN_DN"} <= known
    assert known - {"COMPOSE_PROJECT_NAME"} <= set(used)


def test_an_association_may_end_before_the_container_is_killed() -> None:
    scp = SERVICES["scp"]
    drain_s = int(re.findall(r"\d+", scp["environment"]["DICOMQ_DRAIN_S"])[0])
    assert int(scp["stop_grace_period"].removesuffix("s")) > drain_s + 8  # objects under way


def test_the_lock_of_the_image_holds_the_versions_of_the_others() -> None:
    def versions(path: Path) -> set[str]:
        return set(re.findall(r"^(\S+==[^ ;\\]+)", path.read_text(), re.MULTILINE))

    locked = versions(DEPLOY / "image.lock")
    assert locked <= versions(ROOT / "requirements.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["s3"]]
    names = {re.match(r"[\w-]+", each)[0] for each in wanted}  # type: ignore[index] # they match
    assert names <= {each.partition("==")[0].partition("[")[0] for each in locked}


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        missing("docker-compose is not installed (apt-get install docker-compose)")
    argv = ["docker-compose", "-f", str(DEPLOY / "docker-compose.yml")]
    argv += ["--profile", "monitoring"]
    settings = tmp_path / "env"
    settings.write_text((DEPLOY / "env.example").read_text())
    done = subprocess.run(
        [*argv, "--env-file", str(settings), "config", "--quiet"],
        check=False,
        env={**os.environ, "COMPOSE_PROJECT_NAME": "check"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_secrets_are_made_once_and_anew_when_named(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "compose", tmp_path / "compose", ignore=lambda *_: ["wheels"])
    script, secrets = tmp_path / "compose" / "secrets.sh", tmp_path / "secrets"

    def made(*names: str) -> dict[str, str]:
        subprocess.run([script, *names], check=True)
        return {path.name: path.read_text().strip() for path in secrets.iterdir()}

    first = made()
    assert set(first) == set(STACK["secrets"])
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert len(set(first.values())) == len(first)
    assert made() == first
    second = made("postgres_password")
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"postgres_password", "database_url"}
    assert second["postgres_password"] in second["database_url"]
    (secrets / "database_url").chmod(0o600)
    (secrets / "database_url").write_text("postgresql://me@db.example.org/mine")
    assert made("postgres_password")["database_url"] == "postgresql://me@db.example.org/mine"


def test_the_dashboard_is_found_and_asks_the_provisioned_source() -> None:
    grafana = DEPLOY / "compose" / "grafana"
    source = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())
    provider = yaml.safe_load((grafana / "provisioning/dashboards/dicomq.yml").read_text())
    mounts = dict(
        reversed(volume.removesuffix(":ro").split(":", 1))
        for volume in SERVICES["grafana"]["volumes"]
    )
    folder = DEPLOY / mounts[provider["providers"][0]["options"]["path"]]
    dashboards = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert dashboards
    uids = {each["uid"] for each in source["datasources"]}
    for panel in (panel for dashboard in dashboards for panel in dashboard["panels"]):
        assert panel["datasource"]["uid"] in uids
