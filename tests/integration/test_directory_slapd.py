"""A real slapd with the shipped schema and default, and the embedded directory beside it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from archive.configuration.defaults import default_entries, default_folder
from archive.configuration.descriptors import Snapshot
from archive.configuration.directory import LdapDirectory
from archive.configuration.embedded import EmbeddedDirectory
from archive.configuration.entries import Entry
from archive.configuration.ldif import parse_ldif, write_ldif
from archive.configuration.records import Record
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource, Directory
from archive.errors import DirectoryUnavailableError
from tests.directory_cases import CASES, DEVICE, WIKI_EXPORTER, WIKI_EXPORTER_AS_PRINTED
from tests.fix_process import free_port, wait_until
from tests.fix_slapd import Slapd


def ldap_settings(slapd: Slapd) -> Settings:
    return Settings.from_environment(
        {
            "DICOMQ_DIRECTORY": f"{slapd.url}/{slapd.base_dn}",
            "DICOMQ_LDAP_BIND_DN": slapd.bind_dn,
            "DICOMQ_LDAP_PASSWORD": slapd.password,
        }
    )


def records(text: str) -> tuple[Record, ...]:
    return parse_ldif(text.encode()).records


def snapshot_of(directory: Directory) -> Snapshot:
    source = ConfigurationSource(directory, Settings.from_environment({}))
    return replace(source.snapshot(), fingerprint="")


Connect = Callable[[Settings], LdapDirectory]


def with_shadow(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries, and another AE with as many transfer capabilities."""
    for entry in entries:
        yield entry
        if "dicomAETitle=DCM4CHEE,dicomDeviceName" in entry.dn:
            shadow = entry.dn.replace("dicomAETitle=DCM4CHEE", "dicomAETitle=SHADOW")
            title = {"dicomaetitle": (b"SHADOW",)} if entry.values("dicomAETitle") else {}
            yield Entry(shadow, entry.attributes | title)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open LDAP directories, which are closed after the test."""
    opened: list[LdapDirectory] = []

    def open_one(settings: Settings) -> LdapDirectory:
        opened.append(LdapDirectory.from_settings(settings))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def small(slapd: Slapd, tmp_path: Path) -> Slapd:
    """Slapd with the default directory but its transfer capabilities."""
    entries = [one for one in default_entries() if not one.has_class("dicomTransferCapability")]
    ldif = tmp_path / "small.ldif"
    ldif.write_bytes(write_ldif(entries))
    done = slapd.ldapadd(ldif)
    assert done.returncode == 0, done.stderr
    return slapd


def test_slapd_and_the_embedded_directory_give_the_same_snapshot(
    connect: Connect, slapd: Slapd, tmp_path: Path
) -> None:
    for path in sorted(default_folder().glob("*.ldif")):
        done = slapd.ldapadd(path)
        assert done.returncode == 0, done.stderr
    wiki = tmp_path / "wiki.ldif"
    wiki.write_text(WIKI_EXPORTER, encoding="utf-8")
    done = slapd.ldapadd(wiki)
    assert done.returncode == 0, done.stderr
    embedded = EmbeddedDirectory(tmp_path / "directory.ldif")
    embedded.create(default_entries())
    applied = embedded.apply_all(records(WIKI_EXPORTER_AS_PRINTED))
    assert [one.refusal for one in applied] == [None]
    server = connect(ldap_settings(slapd))
    expected = snapshot_of(embedded)
    assert snapshot_of(server) == expected
    assert expected.device.exporters["STORESCP"].queue_name == "Export1"


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_changes_end_with_the_code_of_slapd(
    connect: Connect, small: Slapd, text: str, expected: list[int]
) -> None:
    server = connect(ldap_settings(small))
    done = server.apply_all(records(text), go_on=True)
    assert [0 if one.refusal is None else one.refusal.code for one in done] == expected


def test_changes_are_seen(connect: Connect, small: Slapd) -> None:
    server = connect(ldap_settings(small))
    with closing(ConfigurationSource(server, ldap_settings(small))) as source:
        assert not source.snapshot().device.exporters
        server.apply_all(records(WIKI_EXPORTER))
        wait_until(lambda: list(source.snapshot().device.exporters) == ["STORESCP"], deadline_s=5)
        server.apply_all(records(f"dn: dcmExporterID=STORESCP,{DEVICE}\nchangetype: delete\n"))
        wait_until(lambda: not source.snapshot().device.exporters, deadline_s=5)


def test_an_unreachable_server_is_named(connect: Connect) -> None:
    settings = Settings.from_environment(
        {"DICOMQ_DIRECTORY": f"ldap://127.0.0.1:{free_port()}/dc=x"}
    )
    with pytest.raises(DirectoryUnavailableError, match=r"127\.0\.0\.1"):
        connect(settings).read()


def test_a_wrong_password_is_named(connect: Connect, small: Slapd) -> None:
    settings = replace(ldap_settings(small), ldap_password="wrong")  # noqa: S106 - no secret
    with pytest.raises(DirectoryUnavailableError, match=r"Invalid credentials \(49\)"):
        connect(settings).read()


def test_a_server_that_gives_a_part_only_is_a_failure(
    connect: Connect, slapd: Slapd, tmp_path: Path
) -> None:
    everything = tmp_path / "all.ldif"
    aes = "".join(
        f"\ndn: dicomDeviceName=d{number},cn=Devices,cn=DICOM Configuration,{slapd.base_dn}\n"
        f"objectClass: dicomDevice\ndicomDeviceName: d{number}\ndicomInstalled: TRUE\n"
        for number in range(510)
    )
    everything.write_bytes(write_ldif(default_entries()) + aes.encode())
    done = slapd.ldapadd(everything)
    assert done.returncode == 0, done.stderr
    anonymous = replace(ldap_settings(slapd), ldap_bind_dn=None, ldap_password=None)
    with pytest.raises(DirectoryUnavailableError, match="only a part of the entries"):
        connect(anonymous).read()


def test_many_transfer_capabilities_are_read_in_pieces(
    connect: Connect, slapd: Slapd, tmp_path: Path
) -> None:
    everything = tmp_path / "all.ldif"
    everything.write_bytes(write_ldif(with_shadow(default_entries())))
    done = slapd.ldapadd(everything)
    assert done.returncode == 0, done.stderr
    anonymous = replace(ldap_settings(slapd), ldap_bind_dn=None, ldap_password=None)
    bound = connect(ldap_settings(slapd))
    limited = connect(anonymous)
    assert snapshot_of(limited) == snapshot_of(bound)
