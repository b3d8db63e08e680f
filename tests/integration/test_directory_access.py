"""What an LDAP server lets us see: access rules, size limits, pages; and what looking costs."""

import resource
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from archive.clock import SYSTEM_CLOCK
from archive.configuration.directory import LdapDirectory
from archive.configuration.entries import Entry
from archive.configuration.ldif import parse_ldif, write_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import ConfigurationSource
from archive.configuration.watching import SHORTEST_NAMES_S
from archive.errors import ConfigurationError, DirectoryUnavailableError
from tests.directory_cases import BASE, DEVICE, DEVICES
from tests.fix_slapd import MakeSlapd, Slapd, small_directory

READER = f"cn=reader,{BASE}"
READER_LDIF = f"""
dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: quiet
""".encode()
RULES = (
    "access to attrs=userPassword by * auth",
    f'access to attrs=dcmKeyStorePin by dn.exact="{READER}" none by * none',
    f'access to * by dn.exact="{READER}" read by * auth',
)
PIN = b"dn: " + DEVICE.encode() + b"\nchangetype: modify\nadd: dcmKeyStorePin\ndcmKeyStorePin: x\n"


class FastClock:
    """Passes a minute whenever it is asked, so that everything is due every time."""

    now = staticmethod(SYSTEM_CLOCK.now)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)

    def __init__(self) -> None:
        self._minutes = count(step=60)

    def monotonic(self) -> float:
        return float(next(self._minutes))


class SetClock:
    """Stands still until it is set."""

    now = staticmethod(SYSTEM_CLOCK.now)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def settings_for(server: Slapd, **more: str) -> Settings:
    directory = {"DICOMQ_DIRECTORY": f"{server.url}/{server.base_dn}"}
    return Settings.from_environment(directory | more)


def many_peers(number: int) -> bytes:
    """Return the small default directory and `number` devices with an AE each."""
    texts = [small_directory()]
    for index in range(number):
        device = f"dicomDeviceName=peer{index},{DEVICES}"
        texts.append(
            f"\ndn: {device}\nobjectClass: dicomDevice\ndicomDeviceName: peer{index}\n"
            "dicomInstalled: TRUE\n"
            f"\ndn: cn=dicom,{device}\nobjectClass: dicomNetworkConnection\ncn: dicom\n"
            "dicomHostname: 127.0.0.1\ndicomPort: 104\n"
            f"\ndn: dicomAETitle=PEER{index},{device}\nobjectClass: dicomNetworkAE\n"
            f"dicomAETitle: PEER{index}\ndicomNetworkConnectionReference: cn=dicom,{device}\n"
            "dicomAssociationInitiator: TRUE\ndicomAssociationAcceptor: TRUE\n".encode()
        )
    return b"".join(texts)


def test_a_reader_with_its_password_in_a_file(make_slapd: MakeSlapd, tmp_path: Path) -> None:
    server = make_slapd(small_directory() + READER_LDIF, *RULES)
    server.change(PIN.decode())
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    bind = {"DICOMQ_LDAP_BIND_DN": READER, "DICOMQ_LDAP_PASSWORD_FILE": str(secret)}
    with closing(LdapDirectory.from_settings(settings_for(server, **bind))) as directory:
        with pytest.raises(DirectoryUnavailableError, match=r"Invalid credentials \(49\)"):
            directory.read()
        secret.write_text("quiet\n")  # a new password needs no restart
        entries = directory.read()
    assert any(entry.dn == DEVICE for entry in entries)
    assert not any("dcmkeystorepin" in entry.attributes for entry in entries)
    with (
        closing(LdapDirectory.from_settings(settings_for(server))) as nobody,
        pytest.raises(DirectoryUnavailableError, match=r"Insufficient access \(50\)"),
    ):
        nobody.read()


def test_a_password_file_that_is_not_there_is_named(make_slapd: MakeSlapd, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    settings = settings_for(make_slapd(), DICOMQ_LDAP_PASSWORD_FILE=missing)
    with (
        closing(LdapDirectory.from_settings(settings)) as directory,
        pytest.raises(DirectoryUnavailableError, match="DICOMQ_LDAP_PASSWORD_FILE cannot be read"),
    ):
        directory.read()


def test_a_reader_may_not_write(make_slapd: MakeSlapd) -> None:
    server = make_slapd(small_directory() + READER_LDIF, *RULES)
    bind = {"DICOMQ_LDAP_BIND_DN": READER, "DICOMQ_LDAP_PASSWORD": "quiet"}
    with closing(LdapDirectory.from_settings(settings_for(server, **bind))) as directory:
        (done,) = directory.apply_all(parse_ldif(PIN).records)
    assert done.refusal is not None
    assert done.refusal.code == 50
    assert "bind as a DN that may write" in str(done.refusal)


@pytest.mark.parametrize(
    "limits",
    [
        ("sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited",),
        ("sizelimit 500", "limits * size=unlimited"),
    ],
    ids=["pages", "no limit"],
)
def test_a_large_directory_is_read_in_pages(make_slapd: MakeSlapd, limits: tuple[str, ...]) -> None:
    server = make_slapd(many_peers(600), *limits)
    with closing(LdapDirectory.from_settings(settings_for(server))) as directory:
        titles = [text for entry in directory.read() for text in entry.texts("dicomAETitle")]
        assert len({title for title in titles if title.startswith("PEER")}) == 600
        assert directory.fingerprint() == directory.fingerprint()


def test_a_size_limit_without_pages_is_a_failure_that_says_what_to_do(
    make_slapd: MakeSlapd,
) -> None:
    server = make_slapd(many_peers(600), "sizelimit 500")
    with (
        closing(LdapDirectory.from_settings(settings_for(server))) as directory,
        pytest.raises(DirectoryUnavailableError, match="olcLimits: size=unlimited"),
    ):
        directory.read()


def misplaced() -> Iterator[Entry]:
    """Yield an exporter two levels below the device, and a rule below a connection."""
    for name, above in (
        ("DEEP", f"dicomAETitle=DCM4CHEE,{DEVICE}"),
        ("LOST", f"cn=dicom,{DEVICE}"),
    ):
        pairs = [("objectClass", b"dcmExporter"), ("dcmExporterID", name.encode())]
        pairs += [("dcmURI", b"noop:x"), ("dcmQueueName", b"Export")]
        yield Entry.of(f"dcmExporterID={name},{above}", pairs)


def test_only_what_lies_one_level_below_counts(make_slapd: MakeSlapd) -> None:
    server = make_slapd(small_directory() + write_ldif(misplaced()).removeprefix(b"version: 1\n"))
    settings = settings_for(server)
    with closing(LdapDirectory.from_settings(settings)) as directory:
        source = ConfigurationSource(directory, settings)
        assert not source.refresh().device.exporters


def priority(number: int) -> str:
    """Return a change of a queue."""
    dn = f"dcmQueueName=Export,{DEVICE}"
    return f"dn: {dn}\nchangetype: modify\nreplace: dcmMaxRetries\ndcmMaxRetries: {number}\n"


CHANGES = {
    "add": (
        f"dn: cn=New,{DEVICE}\nchangetype: add\nobjectClass: dcmExportRule\ncn: New\n"
        "dcmEntity: Study\ndcmExporterID: X\n"
    ),
    "modify": priority(3),
    "delete": f"dn: dcmQueueName=Export,{DEVICE}\nchangetype: delete\n",
    "rename": (
        f"dn: dicomAETitle=STORESCU,dicomDeviceName=storescu,{DEVICES}\nchangetype: modrdn\n"
        "newrdn: dicomAETitle=RENAMED\ndeleteoldrdn: 1\n"
    ),
}


@pytest.mark.parametrize("overlay", [(), ("overlay syncprov",)], ids=["plain", "syncprov"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_change_is_noticed_by_the_next_look(
    make_slapd: MakeSlapd, change: str, overlay: tuple[str, ...]
) -> None:
    server = make_slapd(None, *overlay)
    with closing(LdapDirectory.from_settings(settings_for(server))) as directory:
        before = [directory.fingerprint() for _ in range(3)]
        assert len(set(before)) == 1
        server.change(change)
        assert directory.fingerprint() != before[0]


def test_a_context_csn_left_over_is_not_believed(make_slapd: MakeSlapd) -> None:
    server = make_slapd(None, "overlay syncprov")
    server.change(priority(1))
    server.stop()
    server.options = ()  # without the overlay its last value stays in the database
    server.start()
    assert "contextCSN" in server.ldapsearch("-s", "base", "contextCSN")
    with closing(LdapDirectory.from_settings(settings_for(server))) as directory:
        for number in range(2, 6):
            before = directory.fingerprint()
            server.change(priority(number))
            assert directory.fingerprint() != before


def test_deletions_elsewhere_are_noticed_when_all_is_compared(make_slapd: MakeSlapd) -> None:
    server = make_slapd()
    with closing(LdapDirectory.from_settings(settings_for(server), FastClock())) as directory:
        before = directory.fingerprint()
        server.tool("ldapdelete", "-r", f"dicomDeviceName=storescu,{DEVICES}")
        assert directory.fingerprint() != before


def test_deletions_elsewhere_are_noticed_within_seconds(make_slapd: MakeSlapd) -> None:
    """By the names of all entries, before versions are compared again."""
    peer = f"dicomDeviceName=storescu,{DEVICES}"
    capability = (
        f"\ndn: cn=CT,dicomAETitle=STORESCU,{peer}\nobjectClass: dicomTransferCapability\n"
        "cn: CT\ndicomSOPClass: 1.2.3\ndicomTransferRole: SCU\n"
        "dicomTransferSyntax: 1.2.840.10008.1.2\n"
    )
    server, clock = make_slapd(small_directory() + capability.encode()), SetClock()
    with closing(LdapDirectory.from_settings(settings_for(server), clock)) as directory:
        seen = [directory.fingerprint()]
        for gone in ("cn=CT,dicomAETitle=STORESCU", "dicomAETitle=STORESCU"):
            clock.seconds += SHORTEST_NAMES_S
            assert directory.fingerprint() == seen[-1]
            done = server.tool("ldapdelete", f"{gone},{peer}")
            assert done.returncode == 0, done.stderr
            clock.seconds += SHORTEST_NAMES_S
            seen.append(directory.fingerprint())
        assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("overlay", "searches"), [(("overlay syncprov",), 1), ((), 3)], ids=["syncprov", "plain"]
)
def test_looking_is_cheap_with_a_thousand_peers(
    make_slapd: MakeSlapd,
    overlay: tuple[str, ...],
    searches: int,
    record_property: Callable[..., None],
) -> None:
    server = make_slapd(many_peers(1000), *overlay, "sizelimit unlimited")
    with closing(LdapDirectory.from_settings(settings_for(server))) as directory:
        for number in range(3):  # a contextCSN is believed when it was seen to change
            server.change(priority(number))
            directory.fingerprint()
        directory.fingerprint()
        asked: list[int] = []
        inner = directory._search  # noqa: SLF001 - counts what goes over the wire

        def counted(*arguments: object, **more: object) -> list[Entry]:
            found = inner(*arguments, **more)  # type: ignore[arg-type] # passed on as they came
            asked.append(sum(len(repr(entry)) for entry in found))
            return found

        directory._search = counted  # type: ignore[method-assign] # counts and passes on # noqa: SLF001
        began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        for _ in range(20):
            directory.fingerprint()
        seconds = (resource.getrusage(resource.RUSAGE_SELF).ru_utime - began) / 20
    record_property("cpu_s_per_look", seconds)
    assert len(asked) == 20 * searches
    assert sum(asked) / 20 < 8000
    assert seconds < 0.02


def test_servers_of_different_directories_are_refused() -> None:
    directory = "ldap://a/dc=one,dc=org ldap://b/dc=two,dc=org"
    with pytest.raises(ConfigurationError, match="different base DNs"):
        LdapDirectory.from_settings(Settings.from_environment({"DICOMQ_DIRECTORY": directory}))


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("ldap://a/dc=x,dc=y", "ldap://a/dc=x,dc=y"),
        ("ldap://a:1389 ldaps://b/dc=x,dc=y", "ldap://a:1389 ldaps://b/dc=x,dc=y"),
        ("ldap://a/dc=x,dc=y,ldap://b/dc=x,dc=y", "ldap://a ldap://b/dc=x,dc=y"),
        ("ldaps://a , ldaps://b", "ldaps://a ldaps://b/dc=dcm4che,dc=org"),
    ],
)
def test_several_servers_are_written_behind_one_another(text: str, location: str) -> None:
    settings = Settings.from_environment({"DICOMQ_DIRECTORY": text})
    assert LdapDirectory.from_settings(settings).location == location
