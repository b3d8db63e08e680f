"""The docker-compose stack as an administrator starts it: ``make test-compose``.

Builds the images, so it takes minutes: without DICOMQ_TEST_COMPOSE it is skipped.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom
from threading import Event, Thread
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from archive.clock import SYSTEM_CLOCK
from tests.fix_compose import Stack, all_stored
from tests.fix_dcmtk import Dcmtk, DcmtkStoreScp
from tests.fix_objects import Study, encoded_dataset, generate_studies
from tests.fix_peer import IanScp
from tests.fix_process import wait_until
from tests.fix_tls import Node, Pki, tls_connection

SECONDS = float(os.environ.get("DICOMQ_TEST_COMPOSE") or 0)
KILL_EVERY_S = 3.0
DEVICES = "cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"
ARCHIVE = f"dicomDeviceName=dcm4chee-arc,{DEVICES}"

pytestmark = [
    pytest.mark.timeout(SECONDS + 2400),
    pytest.mark.skipif(not SECONDS, reason="make test-compose runs it: it builds images"),
]


def connection(device: str, host: str, port: int) -> str:
    return (
        f"dn: cn=dicom,dicomDeviceName={device},{DEVICES}\n"
        "changetype: modify\n"
        f"replace: dicomHostname\ndicomHostname: {host}\n-\n"
        f"replace: dicomPort\ndicomPort: {port}\n\n"
    )


EXPORTER = f"""\
dn: dcmExporterID=STORESCP,{ARCHIVE}
changetype: add
objectClass: dcmExporter
dcmExporterID: STORESCP
dcmURI: dicom:STORESCP
dcmQueueName: Outside
dicomAETitle: DCM4CHEE
dcmIanDestination: IANSCP

dn: cn=To STORESCP,dicomAETitle=DCM4CHEE,{ARCHIVE}
changetype: add
objectClass: dcmExportRule
cn: To STORESCP
dcmEntity: Study
dcmExporterID: STORESCP
dcmDuration: PT1S

dn: dcmQueueName=Outside,{ARCHIVE}
changetype: add
objectClass: dcmQueue
dcmQueueName: Outside
dicomDescription: exports of the test
dcmMaxRetries: 50
dcmRetryDelay: PT1S
dcmMaxRetryDelay: PT5S

"""


class Sender:
    """Stores studies from outside, each again until all of it was acknowledged."""

    def __init__(self, dcmtk: Dcmtk, port: int, directory: Path) -> None:
        self._dcmtk, self._port, self._directory = dcmtk, port, directory
        self.stored: list[Study] = []

    def store(self, study: Study) -> None:
        def accepted() -> bool:
            done = self._dcmtk.storescu(*study.files.values(), port=self._port)
            return all_stored(done, len(study.files))

        wait_until(accepted, deadline_s=300, what="a study to be accepted")
        self.stored.append(study)

    def store_until(self, stop: Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            folder = self._directory / str(number)
            root = f"1.2.826.0.1.10.{number}"
            self.store(generate_studies(folder, studies=1, instances=3, root=root)[0])


OVERRIDE = """\
secrets:
  dicom_key: {file: ./secrets/dicom_key}
services:
  scp: {secrets: [database_url, redis_url, ldap_reader_password, dicom_key]}
"""
"""As in docs/deployment.md."""


def test_the_stack_stores_exports_announces_and_loses_nothing(
    stack: Stack, dcmtk: Dcmtk, pki: Pki, tmp_path: Path
) -> None:
    give_key(stack, pki)
    stack.script("up.sh", timeout_s=1800)
    assert_guarded(stack)
    assert_tls(stack, dcmtk, pki)
    destination = dcmtk.storescp("--fork")
    with announced(stack) as receiver:
        place = connection("storescp", stack.gateway(), destination.port)
        stack.configure(place + connection("ianscp", receiver.host, receiver.port) + EXPORTER)
        sender = Sender(dcmtk, stack.dicom_port, tmp_path / "objects")
        sender.store(generate_studies(tmp_path / "first", studies=1, instances=5)[0])
        assert_delivered(stack, sender, destination, receiver)
        killed = kill_for(stack, sender, SECONDS)
        stack.wait_until_healthy()
        stack.wait_until_done()
        assert_delivered(stack, sender, destination, receiver)
    assert len(killed) > SECONDS / KILL_EVERY_S / 2
    assert len(sender.stored) > 1
    assert_metrics(stack)


def give_key(stack: Stack, pki: Pki) -> None:
    """Give the SCPs a key of their own as one more secret."""
    stack.script("secrets.sh")
    key = stack.deploy / "secrets" / "dicom_key"
    key.write_bytes(pki.ours.both.read_bytes())
    key.chmod(0o444)
    (stack.deploy / "docker-compose.override.yml").write_text(OVERRIDE)


def assert_tls(stack: Stack, dcmtk: Dcmtk, pki: Pki) -> None:
    """The balancer passes TLS on: peer and SCP see each other's certificate and address."""
    authority = base64.b64encode(pki.authority.certificate.public_bytes(Encoding.DER)).decode()
    trust = (
        f"dn: {ARCHIVE}\nchangetype: modify\nadd: objectClass\nobjectClass: pkiCA\n-\n"
        f"add: cACertificate;binary\ncACertificate;binary:: {authority}\n-\n"
        f"add: dicomAuthorizedNodeCertificateReference\n"
        f"dicomAuthorizedNodeCertificateReference: {ARCHIVE}\n-\n"
        "add: dcmKeyStoreURL\ndcmKeyStoreURL: file:/run/secrets/dicom_key\n\n"
    )
    stack.configure(trust + tls_connection(2762).replace("dcmBindAddress: 127.0.0.1\n", ""))

    def echo(node: Node) -> bool:
        options = ("+tls", str(node.key), str(node.cert), "+cf", str(pki.authority.file))
        return dcmtk.echoscu(stack.tls_port, options=options).returncode == 0

    wait_until(lambda: echo(pki.peer), deadline_s=30, what="a C-ECHO over TLS")
    assert not echo(pki.stranger)
    refused = rf"tls-refused peer={re.escape(stack.gateway())} .*no authority that we trust"
    names = [name for name in stack.running() if re.search(r"[-_]scp[-_]", name)]
    wait_until(
        lambda: any(re.search(refused, stack.engine.run("logs", name)) for name in names),
        what="an SCP to name the peer that it refused",
    )


def kill_for(stack: Stack, sender: Sender, seconds: float) -> list[str]:
    """Kill containers while objects come in, each once in a random order; return their names."""
    seed = int(os.environ.get("CHAOS_SEED") or SystemRandom().randrange(10**6))
    random, stop, killed = Random(seed), Event(), list[str]()  # noqa: S311 - to be repeated
    thread = Thread(target=sender.store_until, args=(stop,))
    thread.start()
    end = SYSTEM_CLOCK.monotonic() + seconds
    waiting: list[str] = []
    try:
        while SYSTEM_CLOCK.monotonic() < end:
            waiting = waiting or random.sample(names := sorted(stack.running()), len(names))
            if stack.kill(name := waiting.pop()):
                killed.append(name)
            stop.wait(KILL_EVERY_S)
    finally:
        stop.set()
        thread.join()
    print(f"SEED={seed}: killed {', '.join(killed)}; {len(sender.stored)} studies")  # noqa: T201
    return killed


def assert_guarded(stack: Stack) -> None:
    """No root, nothing to write to, no capability, no secret in the environment, loopback only."""
    passwords = [path.read_text().strip() for path in (stack.deploy / "secrets").iterdir()]
    for each in stack.containers():
        name, host, config = each["Name"], each["HostConfig"], each["Config"]
        assert config["User"] not in {"", "0", "root"}, name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Memory"] > 0, name
        assert not any(secret in line for secret in passwords for line in config["Env"]), name
        published = [bind for ports in (host["PortBindings"] or {}).values() for bind in ports]
        assert all(bind["HostIp"] == "127.0.0.1" for bind in published), name


@contextmanager
def announced(stack: Stack) -> Iterator[IanScp]:
    """Run an IAN SCP on this machine where the containers reach it."""
    receiver = IanScp()
    receiver.host = stack.gateway()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def assert_delivered(
    stack: Stack, sender: Sender, destination: DcmtkStoreScp, receiver: IanScp
) -> None:
    """Every acknowledged object is at its destination with its bytes, and announced."""
    files = {uid: path for study in sender.stored for uid, path in study.files.items()}

    def there() -> bool:
        return set(files) <= set(destination.received())

    wait_until(there, deadline_s=240, what="every object at the destination")
    received = destination.received()
    for uid, path in files.items():
        assert encoded_dataset(received[uid]) == encoded_dataset(path), uid

    wait_until(
        lambda: set(files) <= notified(receiver), deadline_s=120, what="every object announced"
    )
    failed = "SELECT pk, kind, error_message FROM task WHERE status IN ('FAILED', 'WARNING')"
    assert stack.query(failed) == []


def notified(receiver: IanScp) -> set[str]:
    """Return the SOP Instance UIDs of accepted notifications."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for notification in receiver.accepted
        for series in notification.dataset.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def assert_metrics(stack: Stack) -> None:
    """Prometheus finds every process by its name, and what alerts and dashboard ask for."""
    stack.compose("--profile", "monitoring", "build", "prometheus", timeout_s=600)
    stack.compose("--profile", "monitoring", "up", "-d", "prometheus")
    # two dispatchers, five workers, the balancer
    wait_until(
        lambda: values(stack, "count(up == 1)") == ["8"],
        deadline_s=90,
        what="Prometheus to see eight processes",
    )
    assert values(stack, 'haproxy_backend_active_servers{proxy="scp"}') == ["2"]
    known = prometheus(stack, "metadata")
    for expression in expressions(stack):
        found = prometheus(stack, f"query?query={quote(expression)}")
        assert found["resultType"] == "vector", expression
        for name in re.findall(r"\b(?:dicomq|haproxy)_\w+", expression):
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            # the client library names a counter without its ending in older forms of the text
            assert {family, family.removesuffix("_total")} & set(known), expression
        if grouped := GROUPED.match(expression):
            labels = set(grouped[1].split(", ")) - {"le"}
            assert all(set(each["metric"]) == labels for each in found["result"]), expression
    assert values(stack, 'count(ALERTS{alertstate="firing"})') == []


GROUPED = re.compile(r"(?:histogram_quantile\([\d.]+, )?(?:max|sum) by \(([^)]*)\)")


def prometheus(stack: Stack, query: str) -> Any:  # noqa: ANN401 - JSON
    """Return what Prometheus answers, None while it does not."""
    url = f"http://127.0.0.1:{stack.prometheus_port}/api/v1/{query}"
    try:
        with urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def values(stack: Stack, expression: str) -> list[str]:
    """Return the values of an expression."""
    found = prometheus(stack, f"query?query={quote(expression)}") or {"result": []}
    return [each["value"][1] for each in found["result"]]


def expressions(stack: Stack) -> list[str]:
    """Return what the alert rules and the panels of the dashboard ask for."""
    folder = stack.deploy / "compose"
    groups = yaml.safe_load((folder / "prometheus" / "alerts.yml").read_text())["groups"]
    board = json.loads((folder / "grafana" / "dashboards" / "dicomq.json").read_text())
    rules = [rule["expr"] for group in groups for rule in group["rules"]]
    return rules + [target["expr"] for panel in board["panels"] for target in panel["targets"]]
