"""An SCP behind a balancer that says whose connection it passes on (PROXY protocol, version 2)."""

import ipaddress
import struct

import pytest

from scp.proxied import SIGNATURE
from tests.fix_scp import Site, small_dataset
from tests.fix_system import ARCHIVE, ARCHIVE_AE

MODALITY = "192.0.2.77"
RULE = f"""\
dn: dcmExporterID=X,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: X
dcmURI: dicom:STORESCP
dcmQueueName: Export
dicomAETitle: DCM4CHEE

dn: cn=Of the modality,{ARCHIVE_AE}
changetype: add
objectClass: dcmExportRule
cn: Of the modality
dcmEntity: Study
dcmExporterID: X
dcmProperty: SendingHostname={MODALITY}
"""


def header(source: str) -> bytes:
    body = ipaddress.ip_address(source).packed + bytes(4) + struct.pack(">HH", 5000, 11112)
    return SIGNATURE + struct.pack(">BBH", 0x21, 0x11, len(body)) + body


@pytest.mark.parametrize(
    ("proxies", "start", "tasks"),
    [
        ("127.0.0.0/8", header(MODALITY), 1),
        ("127.0.0.0/8", header("192.0.2.78"), 0),
        ("127.0.0.0/8", b"", 0),
    ],
    ids=["the modality", "another one", "not through the balancer"],
)
def test_rules_see_the_modality(site: Site, proxies: str, start: bytes, tasks: int) -> None:
    site.configure(RULE)
    site.start(DICOMQ_PROXIES=proxies)
    with site.peer() as peer:
        peer.send(start)
        peer.associate()
        assert peer.store("1.2.3.4", small_dataset("1.2.3.4")).status == 0
    assert site.count("task") == tasks


def test_nobody_else_is_believed(site: Site) -> None:
    site.start(DICOMQ_PROXIES="10.0.0.0/8")
    with site.peer() as peer:
        peer.send(header(MODALITY))
        with pytest.raises(ConnectionError):
            peer.associate()
