import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.ldif import parse_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource, open_directory, open_source
from archive.errors import ConfigurationError
from tests.directory_cases import DEVICE, WIKI_EXPORTER


class StandingClock:
    """Stands until it is moved."""

    now = staticmethod(SYSTEM_CLOCK.now)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def directory(tmp_path: Path) -> EmbeddedDirectory:
    """The default directory without its many transfer capabilities."""
    made = EmbeddedDirectory(tmp_path / "directory.ldif")
    made.create(one for one in default_entries() if not one.has_class("dicomTransferCapability"))
    return made


@pytest.fixture
def source(directory: EmbeddedDirectory, clock: StandingClock) -> ConfigurationSource:
    return ConfigurationSource(directory, Settings.from_environment({}), clock)


def apply(directory: EmbeddedDirectory, *texts: str) -> None:
    for text in texts:
        done = directory.apply_all(parse_ldif(text.encode()).records)
        assert [one.refusal for one in done] == [None]


def test_a_change_is_seen_after_a_second(
    directory: EmbeddedDirectory, source: ConfigurationSource, clock: StandingClock
) -> None:
    first = source.snapshot()
    apply(directory, WIKI_EXPORTER)
    clock.seconds = 0.5
    assert source.snapshot() is first
    clock.seconds = 1.5
    second = source.snapshot()
    assert list(second.device.exporters) == ["STORESCP"]
    assert second.fingerprint != first.fingerprint
    clock.seconds = 3
    assert source.snapshot() is second


def test_the_last_good_snapshot_stays_while_the_directory_is_unusable(
    directory: EmbeddedDirectory,
    source: ConfigurationSource,
    clock: StandingClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = source.snapshot()
    good = directory.path.read_bytes()
    for content in (None, b"dn: nonsense\n", b"dn: cn=a\no: 1\n"):
        if content is None:
            directory.path.unlink()
        else:
            directory.path.write_bytes(content)
        clock.seconds += 2
        assert source.snapshot() is first
        clock.seconds += 2
        assert source.snapshot() is first
    directory.path.write_bytes(good)
    clock.seconds += 2
    assert source.snapshot() == first
    messages = [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(messages) == 4
    assert all("stays in use" in one for one in messages[:3])
    assert "usable again" in messages[3]


def test_without_any_good_directory_there_is_an_error(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DICOMQ_DIRECTORY": str(tmp_path / "d.ldif")})
    (tmp_path / "d.ldif").write_bytes(b"dn: cn=a\no: 1\n")
    with pytest.raises(ConfigurationError, match="dicomConfigurationRoot"):
        open_source(settings).snapshot()


def test_problems_are_logged_once(
    directory: EmbeddedDirectory,
    source: ConfigurationSource,
    clock: StandingClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    apply(directory, WIKI_EXPORTER)
    source.snapshot()
    text = f"dn: {DEVICE}\nchangetype: modify\nreplace: dicomDescription\ndicomDescription: x\n"
    apply(directory, text)
    clock.seconds += 2
    source.snapshot()
    assert sum("no dcmQueue entry Export1" in one.message for one in caplog.records) == 1


def test_the_default_directory_is_made_when_there_is_none(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DICOMQ_DATA": str(tmp_path / "new")})
    assert open_source(settings).snapshot().problems == ()
    assert (tmp_path / "new" / "directory.ldif").is_file()
    assert open_source(settings).snapshot().device.name == "dcm4chee-arc"


@pytest.mark.parametrize("url", ["http://host/dc=x", "ldap:///dc=x"])
def test_a_url_that_is_no_ldap_server_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no LDAP URL"):
        open_directory(Settings.from_environment({"DICOMQ_DIRECTORY": url}))


def in_threads(calls: Sequence[threading.Thread]) -> None:
    for one in calls:
        one.start()
    for one in calls:
        one.join()


def test_imports_at_the_same_time_all_arrive(directory: EmbeddedDirectory) -> None:
    names = [f"E{number}" for number in range(8)]

    def import_one(name: str) -> None:
        apply(
            EmbeddedDirectory(directory.path),
            WIKI_EXPORTER.replace("ID=STORESCP", f"ID={name}").replace(
                "ID: STORESCP", f"ID: {name}"
            ),
        )

    in_threads([threading.Thread(target=import_one, args=(name,)) for name in names])
    exporters: Iterable[str] = (
        text for one in directory.read() for text in one.texts("dcmExporterID")
    )
    assert sorted(exporters) == names


def test_threads_share_one_reading(
    source: ConfigurationSource, clock: StandingClock, directory: EmbeddedDirectory
) -> None:
    source.snapshot()
    apply(directory, WIKI_EXPORTER)
    clock.seconds += 2
    in_threads([threading.Thread(target=source.snapshot) for _ in range(8)])
    assert list(source.snapshot().device.exporters) == ["STORESCP"]
