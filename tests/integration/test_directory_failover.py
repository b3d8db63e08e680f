"""Two slapds that stand in for one another: killed, frozen, restarted, and both gone."""

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.configuration.directory import LdapDirectory
from archive.configuration.ldif import parse_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import COPY_NAME, ConfigurationSource, open_source
from archive.errors import DirectoryUnavailableError
from tests.directory_cases import DEVICE, WIKI_EXPORTER
from tests.fix_process import Spawn, free_port, wait_until
from tests.fix_slapd import MakeSlapd, Slapd

NO_EXPORTER = f"dn: dcmExporterID=STORESCP,{DEVICE}\nchangetype: delete\n"
Open = Callable[..., ConfigurationSource]


class MovableClock:
    """The time of the machine, and what a test adds."""

    now = staticmethod(SYSTEM_CLOCK.now)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)

    def __init__(self) -> None:
        self.added_s = 0.0

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.added_s


@pytest.fixture
def pair(make_slapd: MakeSlapd) -> tuple[Slapd, Slapd]:
    return make_slapd(), make_slapd()


@pytest.fixture
def open_sources(tmp_path: Path) -> Iterator[Open]:
    """Open sources of the directory that the given servers hold; closed after the test."""
    opened: list[ConfigurationSource] = []

    def open_one(*servers: Slapd, timeout_s: int = 1) -> ConfigurationSource:
        source = open_source(settings_for(tmp_path, *servers, timeout_s=timeout_s))
        opened.append(source)
        return source

    yield open_one
    for source in opened:
        source.close()


def settings_for(folder: Path, *servers: Slapd, timeout_s: int = 1) -> Settings:
    urls = [f"{one.url}/{one.base_dn}" for one in servers]
    return Settings.from_environment(
        {
            "DICOMQ_DATA": str(folder / "data"),
            "DICOMQ_DIRECTORY": ",".join(urls),
            "DICOMQ_LDAP_TIMEOUT_S": str(timeout_s),
        }
    )


def has_exporter(source: ConfigurationSource) -> bool:
    return "STORESCP" in source.snapshot().device.exporters


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_the_next_server_serves_when_one_is_gone(
    pair: tuple[Slapd, Slapd], open_sources: Open, fault: str
) -> None:
    first, second = pair
    source = open_sources(first, second)
    assert not has_exporter(source)
    getattr(first, fault)()
    second.change(WIKI_EXPORTER)
    wait_until(lambda: has_exporter(source) and source.outage() is None, deadline_s=15)
    assert isinstance(source.directory, LdapDirectory)
    assert source.directory.server_in_use == second.url


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_work_returns_to_the_first_server(pair: tuple[Slapd, Slapd], fault: str) -> None:
    first, second = pair
    clock = MovableClock()
    settings = settings_for(first.directory, first, second)
    directory = LdapDirectory.from_settings(settings, clock)
    directory.read()
    getattr(first, fault)()
    directory.read()
    assert directory.server_in_use == second.url
    first.thaw() if fault == "freeze" else first.start()
    directory.read()
    assert directory.server_in_use == second.url, "it is left alone for a while"
    clock.added_s += 31
    directory.read()
    assert directory.server_in_use == first.url
    directory.close()


def test_a_server_still_frozen_is_left_again(pair: tuple[Slapd, Slapd]) -> None:
    first, second = pair
    clock = MovableClock()
    directory = LdapDirectory.from_settings(settings_for(first.directory, first, second), clock)
    first.freeze()
    for _ in range(2):
        directory.read()
        assert directory.server_in_use == second.url
        clock.added_s += 31
    directory.close()


def test_nobody_waits_for_frozen_servers(pair: tuple[Slapd, Slapd], open_sources: Open) -> None:
    source = open_sources(*pair, timeout_s=3)
    before = source.snapshot()
    for server in pair:
        server.freeze()
    worst = 0.0

    def ask() -> bool:
        nonlocal worst
        began = SYSTEM_CLOCK.monotonic()
        assert source.snapshot() is before
        worst = max(worst, SYSTEM_CLOCK.monotonic() - began)
        return source.outage() is not None

    wait_until(ask, deadline_s=30, what="the outage to be noticed")
    outage = source.outage()
    assert outage is not None
    for server in pair:
        assert server.url in outage.reason
        server.thaw()
    assert worst < 1.5, "the servers were silent for three seconds each"
    wait_until(lambda: source.outage() is None, deadline_s=15)


def test_a_process_started_while_the_servers_are_down_uses_the_copy(
    pair: tuple[Slapd, Slapd], open_sources: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    before = open_sources(first, second).snapshot()
    path = tmp_path / "data" / COPY_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first.kill()
    second.freeze()
    source = open_sources(first, second)
    assert replace(source.snapshot(), fingerprint="") == replace(before, fingerprint="")
    outage = source.outage()
    assert outage is not None
    assert outage.copy_time is not None
    assert "the local copy of" in outage.text()
    assert first.url in outage.text()
    assert any("the local copy of" in record.message for record in caplog.records)
    second.thaw()
    second.change(WIKI_EXPORTER)
    wait_until(lambda: has_exporter(source) and source.outage() is None, deadline_s=15)


def test_an_outage_that_began_before_the_start_is_dated_by_the_copy(
    make_slapd: MakeSlapd, open_sources: Open, tmp_path: Path
) -> None:
    server = make_slapd()
    open_sources(server).snapshot()
    server.kill()
    confirmed = (tmp_path / "data" / COPY_NAME).stat().st_mtime
    source = open_sources(server)
    source.snapshot()
    outage = source.outage()
    assert outage is not None
    assert outage.since.timestamp() == pytest.approx(confirmed, abs=0.001)


def test_the_copy_belongs_to_who_owns_the_folder(
    make_slapd: MakeSlapd, open_sources: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    open_sources(make_slapd()).snapshot()
    assert (folder / COPY_NAME).stat().st_uid == folder.stat().st_uid


def test_a_copy_that_cannot_be_kept_or_read_is_told_and_does_no_harm(
    make_slapd: MakeSlapd, open_sources: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_slapd()
    (tmp_path / "data" / COPY_NAME).mkdir(parents=True)
    assert open_sources(server).snapshot().device.name == "dcm4chee-arc"
    assert "no copy of the directory can be kept" in caplog.text
    (tmp_path / "data" / COPY_NAME).rmdir()
    open_sources(server).snapshot()
    path = tmp_path / "data" / COPY_NAME
    path.write_bytes(path.read_bytes().replace(b"\ndn: ", b"\nnonsense ", 1))
    server.kill()
    with pytest.raises(DirectoryUnavailableError, match="there is no copy of it"):
        open_sources(server).snapshot()
    assert "cannot be used: line" in caplog.text


FORKED = """
import os, sys, time
from archive.configuration.settings import Settings
from archive.configuration.source import open_source
source = open_source(Settings.from_environment())
source.snapshot()
child = os.fork()
if not child:
    print("forked", flush=True)
    end = time.monotonic() + 20
    while "STORESCP" not in source.snapshot().device.exporters:
        if time.monotonic() > end:
            os._exit(1)
        time.sleep(0.05)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_asks_by_itself(make_slapd: MakeSlapd, spawn: Spawn) -> None:
    server = make_slapd()
    environment = {
        "DICOMQ_DATA": str(server.directory / "data"),
        "DICOMQ_DIRECTORY": f"{server.url}/{server.base_dn}",
    }
    process = spawn([sys.executable, "-W", "ignore", "-c", FORKED], environment)
    wait_until(lambda: "forked" in process.output(), what="the fork")
    server.change(WIKI_EXPORTER)
    assert process.popen.wait(30) == 0, process.output()


def test_without_a_copy_the_start_fails_with_a_clear_message(
    open_sources: Open, tmp_path: Path
) -> None:
    nobody = Slapd(tmp_path / "none", free_port())
    with pytest.raises(DirectoryUnavailableError, match=r"there is no copy of it in .*start or"):
        open_sources(nobody).snapshot()


def test_the_copy_of_another_directory_is_not_used(
    make_slapd: MakeSlapd, open_sources: Open, tmp_path: Path
) -> None:
    open_sources(make_slapd()).snapshot()
    other = Slapd(tmp_path / "other", free_port())
    with pytest.raises(DirectoryUnavailableError, match="there is no copy of it"):
        open_sources(other).snapshot()


def test_an_emptied_server_does_not_replace_a_good_configuration(
    make_slapd: MakeSlapd, open_sources: Open
) -> None:
    server = make_slapd()
    source = open_sources(server)
    before = source.snapshot()
    server.empty()
    wait_until(lambda: source.outage() is not None, deadline_s=10)
    assert source.snapshot() is before
    again = open_sources(server)
    assert again.snapshot().device.name == "dcm4chee-arc"
    assert again.outage() is not None


def test_a_change_that_may_have_been_made_is_not_repeated(pair: tuple[Slapd, Slapd]) -> None:
    first, second = pair
    settings = replace(
        settings_for(first.directory, first, second, timeout_s=3),
        ldap_bind_dn=first.bind_dn,
        ldap_password=first.password,
    )
    directory = LdapDirectory.from_settings(settings)
    directory.read()
    first.freeze()
    records = parse_ldif(WIKI_EXPORTER.encode()).records
    with pytest.raises(DirectoryUnavailableError, match="timed out"):
        directory.apply_all(records)
    assert "dcmExporterID=STORESCP" not in second.ldapsearch("1.1")
    directory.close()


def test_threads_share_the_connection(make_slapd: MakeSlapd) -> None:
    server = make_slapd()
    directory = LdapDirectory.from_settings(settings_for(server.directory, server))
    read: list[int] = []
    threads = [
        threading.Thread(target=lambda: read.append(len(directory.read()))) for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(read)) == 1
    assert len(read) == 8
    directory.close()
