"""Changes on an LDAP server act in all running processes within five seconds, none restarted."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pynetdicom import AE, build_context
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.configuration.defaults import default_entries
from archive.configuration.embedded import content_fingerprint
from archive.configuration.entries import Entry
from archive.configuration.ldif import write_ldif
from archive.configuration.settings import Settings
from archive.configuration.source import open_directory
from archive.ledger.connection import Ledger
from tests.directory_cases import DEVICE, WIKI_EXPORTER, WIKI_EXTERNAL, WIKI_LEADING
from tests.fix_dcmtk import Dcmtk
from tests.fix_leading import LeadingArchive
from tests.fix_monitor import Monitor, rest_answer, start_monitor
from tests.fix_objects import generate_studies
from tests.fix_peer import echo, send_files
from tests.fix_process import free_port, start_process
from tests.fix_redis import RedisServer
from tests.fix_slapd import MakeSlapd, Slapd
from tests.fix_system import ARCHIVE, ARCHIVE_AE, System, port_change
from tests.integration.test_engine_metrics import scrape
from workers.commands.config import config

SOON_S = 5.0
NEEDED = ("Verification", "Secondary Capture Image Storage", "FIND")
RULE = f"""dn: cn=To STORESCP,{ARCHIVE_AE}
changetype: add
objectClass: dcmExportRule
cn: To STORESCP
dcmEntity: Study
dcmExporterID: STORESCP
dcmDuration: PT0.1S
"""
NO_RULE = f"dn: cn=To STORESCP,{ARCHIVE_AE}\nchangetype: delete\n"
OTHER_AE = f"""dn: dicomAETitle=OTHER,{ARCHIVE}
changetype: add
objectClass: dicomNetworkAE
dicomAETitle: OTHER
dicomNetworkConnectionReference: cn=dicom,{ARCHIVE}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE

dn: cn=Echo,dicomAETitle=OTHER,{ARCHIVE}
changetype: add
objectClass: dicomTransferCapability
cn: Echo
dicomSOPClass: 1.2.840.10008.1.1
dicomTransferRole: SCP
dicomTransferSyntax: 1.2.840.10008.1.2
"""


def queue(installed: str) -> str:
    change = "add" if installed == "FALSE" else "modify"
    if change == "modify":
        body = "replace: dicomInstalled\ndicomInstalled: TRUE\n"
    else:
        body = "objectClass: dcmQueue\ndcmQueueName: Export1\ndicomInstalled: FALSE\n"
    return f"dn: dcmQueueName=Export1,{ARCHIVE}\nchangetype: {change}\n{body}"


@dataclass
class LdapSystem(System):
    """A running dicomq that is configured by slapds."""

    servers: list[Slapd] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)

    @property
    @override
    def environment(self) -> dict[str, str]:
        urls = [f"{one.url}/{one.base_dn}" for one in self.servers]
        more = {"DICOMQ_DIRECTORY": " ".join(urls), "DICOMQ_LDAP_TIMEOUT_S": "2"}
        return {**super().environment, **more, **self.more}

    @override
    def configure(self, *ldif: str) -> None:
        """Apply change records with ldapmodify, and wait until every process has seen them."""
        for text in ldif:
            self.servers[0].change(text)
        directory = open_directory(Settings.from_environment(self.environment))
        words = f"configuration {content_fingerprint(directory.read())} "
        began = SYSTEM_CLOCK.monotonic()
        self.wait_until(lambda: self._all_have_said(words), what="the configuration to be read")
        assert SYSTEM_CLOCK.monotonic() - began < SOON_S

    def _all_have_said(self, words: str) -> bool:
        alive = (one for one in self.processes.values() if one.is_alive())
        return all(words in one.output() for one in alive)


MakeSystem = Callable[..., LdapSystem]


@pytest.fixture
def make_system(
    tmp_path: Path, ledger_url: str, own_redis: RedisServer, make_slapd: MakeSlapd
) -> Iterator[MakeSystem]:
    """Start a dicomq with ``make_system(*names)`` over one slapd, or more."""
    made: list[LdapSystem] = []

    def make(*names: str, servers: int = 1) -> LdapSystem:
        directory = tmp_path / "data"
        directory.mkdir()
        slapds = [make_slapd(write_ldif(needed_entries())) for _ in range(servers)]
        ledger = Ledger(ledger_url, max_connections=4)
        system = LdapSystem(directory, ledger_url, own_redis, free_port(), ledger, servers=slapds)
        made.append(system)
        for slapd in slapds:
            slapd.change(port_change(f"cn=dicom,{ARCHIVE}", system.port))
        for name in names:
            system.start(name)
        system.wait_until(lambda: echo(system.port), what="a C-ECHO of DCM4CHEE")
        return system

    yield make
    for system in made:
        system.stop()
        system.ledger.close()


def needed_entries() -> Iterator[Entry]:
    """Yield the default directory without the capabilities that nobody needs here."""
    for entry in default_entries():
        name = "".join(entry.texts("cn"))
        if not entry.has_class("dicomTransferCapability") or any(one in name for one in NEEDED):
            yield entry


def generated(system: System, number: int) -> list[Path]:
    """Return the file of a study of one object."""
    folder = system.directory.parent / f"objects-{number}"
    folder.mkdir()
    (study,) = generate_studies(folder, studies=1, root=f"1.2.826.0.1.{number}")
    return list(study.files.values())


def store(system: System, number: int) -> list[str]:
    """Store a study of one object; return its SOP Instance UID."""
    sent = send_files(generated(system, number), system.port)
    assert set(sent.statuses.values()) == {0}
    return list(sent.statuses)


def flower(system: LdapSystem) -> Monitor:
    monitor = start_monitor(system.environment, system.directory.parent / "flower.log")
    monitor.user = None
    system.processes["flower"] = monitor.process
    return monitor


def test_exporter_rule_queue_and_ae_act_without_a_restart(
    make_system: MakeSystem, dcmtk: Dcmtk
) -> None:
    system = make_system("scp-0", "dispatcher", "export")
    monitor = flower(system)
    peer = dcmtk.storescp()
    system.place_peer("STORESCP", peer.port)
    assert rest_answer(monitor, "/export") == (200, [])

    system.configure(WIKI_EXPORTER)
    assert [one["id"] for one in rest_answer(monitor, "/export")[1]] == ["STORESCP"]
    system.configure(RULE)
    (first,) = store(system, 1)
    assert first in peer.wait_for(1)

    assert not echo(system.port, "OTHER")
    system.configure(OTHER_AE)
    assert echo(system.port, "OTHER")

    system.configure(queue("FALSE"))
    (second,) = store(system, 2)
    system.wait_until(lambda: len(system.tasks("EXPORT")) == 2, what="the second task")
    system.configure(queue("TRUE"))
    assert second in peer.wait_for(2)
    system.wait_until_idle()

    system.configure(NO_RULE)
    store(system, 3)
    assert len(system.tasks("EXPORT")) == 2


def test_the_leading_archive_of_the_documentation_acts_without_a_restart(
    make_system: MakeSystem, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    system = make_system("scp-0", "dispatcher", "export", "query")
    leading = LeadingArchive("QRSCP", free_port(), tmp_path / "leading" / "QRSCP", dcmtk)
    leading.start()
    peer = dcmtk.storescp()
    system.place_peer("STORESCP", peer.port)
    system.place_peer("QRSCP", leading.port)
    system.configure(WIKI_EXPORTER, RULE, WIKI_EXTERNAL)
    system.configure(WIKI_LEADING.removesuffix("-\n"))
    store(system, 1)
    peer.wait_for(1)
    leading.stop()
    asked = system.tasks("LEADING_CFIND")
    assert [task.remote_aet for task in asked] == ["QRSCP"]


BAD_RULE = f"""dn: cn=Bad,{ARCHIVE_AE}
changetype: add
objectClass: dcmExportRule
cn: Bad
dcmEntity: Study
dcmExporterID: STORESCP
dcmSchedule: 18-6
"""


def test_an_association_keeps_the_configuration_it_began_with(make_system: MakeSystem) -> None:
    system = make_system("scp-0")
    paths = [path for number in (1, 2) for path in generated(system, number)]
    before, after = (dcmread(path, stop_before_pixels=True) for path in paths)
    ae = AE(ae_title="STORESCU")
    contexts = [build_context(before.SOPClassUID, before.file_meta.TransferSyntaxUID)]
    association = ae.associate("127.0.0.1", system.port, contexts=contexts, ae_title="DCM4CHEE")
    assert association.is_established
    system.configure(WIKI_EXPORTER, RULE)
    assert association.send_c_store(paths[0]).Status == 0
    association.release()
    assert set(send_files(paths[1:], system.port).statuses.values()) == {0}
    studies = [task.study_instance_uid for task in system.tasks("EXPORT")]
    assert studies == [after.StudyInstanceUID]


def test_a_bad_entry_is_set_aside_alone_and_a_reload_reaches_all(
    make_system: MakeSystem,
) -> None:
    system = make_system("scp-0", "dispatcher")
    system.configure(BAD_RULE, WIKI_EXPORTER, RULE)
    for process in system.processes.values():
        assert f"cn=Bad,{ARCHIVE_AE}: dcmSchedule" in process.output()
    store(system, 1)
    assert [task.exporter_id for task in system.tasks("EXPORT")] == ["STORESCP"]
    done = CliRunner().invoke(config, ["reload"], env=system.environment)
    assert done.exit_code == 0, done.output
    system.wait_until(
        lambda: all("somebody asked for it" in one.output() for one in system.processes.values()),
        what="every process to hear of the reload",
    )


def start_measured(system: LdapSystem, name: str) -> int:
    """Start a process that serves metrics; return their port."""
    port = free_port()
    system.more["DICOMQ_METRICS_PORT"] = str(port)
    system.start(name)
    del system.more["DICOMQ_METRICS_PORT"]
    return port


def assert_nothing_starts_without_a_copy(system: LdapSystem) -> None:
    elsewhere = {"DICOMQ_DATA": str(system.directory.parent / "elsewhere")}
    celery = [str(Path(sys.executable).parent / "celery"), "-A", "workers"]
    started = [
        start_process(
            argv,
            log=system.directory.parent / f"elsewhere-{argv[-1]}.log",
            env={**system.environment, **elsewhere},
        )
        for argv in ([sys.executable, "-m", "scp"], [*celery, "dispatcher"], [*celery, "worker"])
    ]
    for process in started:
        assert process.popen.wait(60) != 0
        assert process.output().count("there is no copy of it in") == 1


def test_frozen_and_killed_servers_hold_nothing_up(make_system: MakeSystem, dcmtk: Dcmtk) -> None:
    system = make_system("scp-0", "export", servers=2)
    metrics = start_measured(system, "dispatcher")
    monitor = flower(system)
    peer = dcmtk.storescp()
    for slapd in system.servers:
        slapd.change(port_change(f"cn=dicom,{PEER}", peer.port))
        slapd.change(f"{WIKI_EXPORTER}\n{RULE}")
    system.configure()
    for slapd in system.servers:
        slapd.freeze()
    began = SYSTEM_CLOCK.monotonic()
    (first,) = store(system, 1)
    assert first in peer.wait_for(1)
    assert SYSTEM_CLOCK.monotonic() - began < 2 * SOON_S
    words = "the configuration read last stays in use"
    system.wait_until(
        lambda: all(words in one.output() for one in system.processes.values()),
        what="every process to say that the directory is away",
    )
    assert "The directory is unreachable" in monitor.ask("/dicom").body
    assert scrape(metrics)("dicomq_directory_up") == 0
    for slapd in system.servers:
        slapd.kill()
    assert_nothing_starts_without_a_copy(system)
    system.restart("scp-0")
    system.wait_until(lambda: echo(system.port), what="the SCP to start from the copy")
    assert "the local copy of" in system.processes["scp-0"].output()
    (second,) = store(system, 2)
    assert second in peer.wait_for(2)


PEER = f"dicomDeviceName=storescp,{DEVICE.partition(',')[2]}"
