from pathlib import Path

import pytest

from archive.configuration.settings import Settings
from archive.errors import InvalidValueError


def test_everything_has_a_default() -> None:
    settings = Settings.from_environment({})
    assert settings.data_dir == Path("data")
    assert settings.directory == "data/directory.ldif"
    assert settings.device_name == "dcm4chee-arc"
    assert (settings.lease_s, settings.heartbeat_s, settings.poll_s) == (20, 5, 5)


def test_the_directory_is_below_the_data() -> None:
    assert Settings.from_environment({"DICOMQ_DATA": "/srv/d"}).directory == "/srv/d/directory.ldif"


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("DATABASE_URL", "postgresql://h/d", "database_url", "postgresql://h/d"),
        ("REDIS_URL", "redis://h/1", "redis_url", "redis://h/1"),
        ("DICOMQ_DIRECTORY", "ldap://h/dc=x", "directory", "ldap://h/dc=x"),
        ("DICOMQ_DEVICE", "arc2", "device_name", "arc2"),
        ("DICOMQ_BIND", "0.0.0.0", "bind_address", "0.0.0.0"),  # noqa: S104 - not bound here
        ("DICOMQ_LEASE_S", "2.5", "lease_s", 2.5),
        ("DICOMQ_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("DICOMQ_LOG_FORMAT", "JSON", "log_format", "json"),
        ("DICOMQ_METRICS_PORT", "9101", "metrics_port", 9101),
        ("DICOMQ_DRAIN_S", "0", "drain_s", 0),
        ("DICOMQ_LDAP_START_TLS", "TRUE", "ldap_start_tls", True),
    ],
)
def test_variables(name: str, text: str, attribute: str, value: object) -> None:
    assert getattr(Settings.from_environment({name: f" {text} "}), attribute) == value


def test_every_bad_variable_is_named_at_once() -> None:
    wrong = {"DICOMQ_LEASE_S": "soon", "DICOMQ_POLL_S": "-1", "DICOMQ_LOG_LEVEL": "LOUD"}
    with pytest.raises(InvalidValueError) as caught:
        Settings.from_environment(wrong)
    assert all(name in str(caught.value) for name in wrong)


def test_secrets_are_not_shown() -> None:
    settings = Settings.from_environment(
        {"DICOMQ_LDAP_PASSWORD": "hunter2", "DATABASE_URL": "postgresql://u:hunter2@h/d"}
    )
    assert "hunter2" not in repr(settings)


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://:hunter2@h/1\n")
    settings = Settings.from_environment({"REDIS_URL_FILE": str(path)})
    assert settings.redis_url == "redis://:hunter2@h/1"


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "url").write_text("redis://h")
    wrong = {
        "DATABASE_URL_FILE": str(tmp_path / "missing"),
        "DICOMQ_DEVICE_FILE": str(tmp_path / "empty"),
        "REDIS_URL_FILE": str(tmp_path / "url"),
        "REDIS_URL": "redis://other",
    }
    with pytest.raises(InvalidValueError) as caught:
        Settings.from_environment(wrong)
    assert all(name in str(caught.value) for name in wrong)
