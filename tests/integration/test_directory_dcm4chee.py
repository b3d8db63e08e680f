"""A directory such as dcm4chee ships: it loads into slapd with our schema, and works here."""

from collections.abc import Iterable
from contextlib import closing

from archive.configuration.decode import Variables
from archive.configuration.descriptors import Snapshot
from archive.configuration.directory import LdapDirectory
from archive.configuration.entries import Entry
from archive.configuration.ldif import write_ldif
from archive.configuration.schema import load_schema
from archive.configuration.settings import Settings
from archive.configuration.snapshot import build_snapshot
from tests.dcm4chee_directory import AES, QUEUES, kitchen_sink, shipped_like
from tests.directory_cases import DEVICE
from tests.fix_slapd import MakeSlapd, Slapd


def ldif(entries: Iterable[Entry]) -> bytes:
    return write_ldif(entries, load_schema().spelling)


def read(server: Slapd) -> tuple[Entry, ...]:
    settings = Settings.from_environment(
        {
            "DICOMQ_DIRECTORY": f"{server.url}/{server.base_dn}",
            "DICOMQ_LDAP_BIND_DN": server.bind_dn,
            "DICOMQ_LDAP_PASSWORD": server.password,
        }
    )
    with closing(LdapDirectory.from_settings(settings)) as directory:
        return directory.read()


def decode(entries: Iterable[Entry]) -> Snapshot:
    variables = Variables({}, {"jboss.server.data.url": "file:///data"})
    return build_snapshot(entries, "dcm4chee-arc", variables, fingerprint="")


def test_it_loads_whole_and_without_problems(make_slapd: MakeSlapd) -> None:
    shipped = list(shipped_like())
    assert len(shipped) > 1100
    entries = read(make_slapd(ldif(shipped)))
    snapshot = decode(entries)
    errors = [one for one in snapshot.problems if one.severity == "error"]
    assert not errors
    assert set(snapshot.device.aes) == set(AES)
    assert set(snapshot.device.queues) == set(QUEUES)
    assert {"STORESCP", "SCHEDULED"} <= set(snapshot.remote_aes)
    capabilities = snapshot.device.aes["DCM4CHEE"].transfer_capabilities
    assert len(capabilities) == sum(AES["DCM4CHEE"][1:])
    assert snapshot.device.external_retrieve_ae_destination == "DCM4CHEE"
    assert snapshot.device.storages["fs1"].uri == "file:///data/fs1/"
    assert snapshot == decode(shipped)


def test_every_class_and_attribute_of_the_schema_is_taken(make_slapd: MakeSlapd) -> None:
    shipped, sink = list(shipped_like()), list(kitchen_sink())
    whole = read(make_slapd(ldif([*shipped, *sink])))
    snapshot, plain = decode(whole), decode(shipped)
    # The nonsense is set aside entry by entry; what was there before works as before.
    assert snapshot.device.queues.items() >= plain.device.queues.items()
    assert snapshot.device.aes.keys() >= plain.device.aes.keys()
    named = {one.dn for one in snapshot.problems if one.severity == "error"}
    assert f"cn=all of dcmExportRule,{DEVICE}" in named
    assert all(one.reason for one in snapshot.problems)
