"""The Celery application."""

import subprocess
import sys

import pytest

from tests.fix_process import ROOT
from workers.app import broker_url, celery_settings


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://:secret@redis.example.org/1", "rediss://:secret@redis.example.org/1"),
        ("sentinel://a:26379;sentinel://b:26379", "sentinel://a:26379;sentinel://b:26379"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        (
            "redis+socket:///run/redis.sock?virtual_host=2",
            "redis+socket:///run/redis.sock?virtual_host=2",
        ),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
    ],
)
def test_redis_url_is_written_as_kombu_reads_it(redis_url: str, expected: str) -> None:
    assert broker_url(redis_url) == expected


def test_celery_keeps_and_retries_nothing_itself() -> None:
    settings = celery_settings("redis://localhost/0")
    assert settings["result_backend"] is None
    assert not settings["task_acks_late"]
    assert settings["broker_connection_max_retries"] is None
    assert settings["broker_transport_options"]["priority_steps"] == [0]
    assert settings["broker_transport_options"]["socket_timeout"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import workers", ["celery", "psycopg", "pynetdicom"]),
        ("import workers.commands.dispatcher", ["psycopg", "pynetdicom", "kombu"]),
        ("import workers; workers.celery", ["pynetdicom", "pydicom", "redis", "ldap3"]),
    ],
)
def test_imports_stay_lazy(statement: str, absent: list[str]) -> None:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert not set(absent) & set(done.stdout.split())
