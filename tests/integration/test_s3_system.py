"""An archive on S3: what was acknowledged is there, whatever happens to the server."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from archive.configuration.descriptors import Storage
from archive.model.entities import StoredFile
from archive.model.task import Failure, TaskStatus
from archive.storage.s3 import S3Storage
from archive.storage.verification import Thoroughness, verify_file
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, remote_ae
from tests.fix_objects import encoded_dataset, secondary_capture, write
from tests.fix_peer import StoreScp
from tests.fix_process import wait_until
from tests.fix_proxy import Proxy, to_port
from tests.fix_s3 import S3Server
from tests.fix_scp import RawPeer, Site, small_dataset
from tests.fix_tls import DEVICE_DN

STORAGE_DN = f"dcmStorageID=fs1,{DEVICE_DN}"


def configure(site: Site, entry: Storage) -> None:
    """Make the site's storage one of a bucket."""
    lines = [f"dn: {STORAGE_DN}", "changetype: modify", "replace: dcmURI", f"dcmURI: {entry.uri}"]
    lines += ["-", "add: dcmProperty"]
    lines += [f"dcmProperty: {name}={value}" for name, value in entry.properties]
    site.configure("\n".join([*lines, "-", ""]))


def recorded(site: Site) -> dict[str, StoredFile]:
    """Return what the ledger says of every object's file."""
    query = b"""
        SELECT i.sop_instance_uid, f.storage_id, f.storage_path, f.transfer_syntax_uid,
               f.object_size, f.dataset_offset, f.digest
        FROM location f JOIN instance i ON i.pk = f.instance_fk"""
    with site.ledger.statement() as tx:
        return {row[0]: StoredFile(*row[1:]) for row in tx.execute(query).fetchall()}


@dataclass
class Sender:
    """Sends objects over one association until it is told to stop."""

    port: int
    acknowledged: set[str] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)
    finished: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send."""
        with RawPeer(self.port, timeout_s=60) as peer:
            peer.associate()
            for number in itertools.count(1):
                uid = f"1.2.840.{number}"
                status = peer.store(uid, small_dataset(uid, pixels=300_000)).status
                self.statuses.add(status)
                if status == 0:
                    self.acknowledged.add(uid)
                if self.finished.is_set():
                    break
            peer.release()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    site: Site, private_s3_server: S3Server, tmp_path: Path
) -> None:
    server = private_s3_server
    entry = server.descriptor("archive", timeout="5")
    configure(site, entry)
    site.start()
    sender = Sender(site.port)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        wait_until(lambda: len(sender.acknowledged) >= 3, what="the first objects")
        server.kill()
        wait_until(lambda: 0xA700 in sender.statuses, what="a refusal")
        before = len(sender.acknowledged)
        server.start()
        wait_until(lambda: len(sender.acknowledged) >= before + 3, what="more objects")
    finally:
        sender.finished.set()
        thread.join()
    assert sender.statuses == {0, 0xA700}
    files = recorded(site)
    assert sender.acknowledged <= files.keys()
    storage = S3Storage(entry, tmp_path)
    for uid in sender.acknowledged:
        verify_file(storage, files[uid], Thoroughness.CHECKSUM)
    assert server_secret(entry) not in site.log()


def server_secret(entry: Storage) -> str:
    """Return the secret of an entry."""
    return dict(entry.properties)["credential"]


def test_an_scp_starts_and_answers_without_its_bucket(site: Site, s3_server: S3Server) -> None:
    configure(site, s3_server.descriptor("archive", "http://127.0.0.1:1", timeout="1"))
    site.start()
    with RawPeer(site.port, timeout_s=60) as peer:
        peer.associate()
        reply = peer.store("1.2.3", small_dataset("1.2.3"))
        assert reply.status == 0xA700
        peer.release()
    assert site.count("instance") == 0


@pytest.mark.parametrize("size", [16, 4000])
def test_objects_of_a_bucket_are_exported_as_they_are(
    bench: ExportBench, s3_server: S3Server, dcmtk: Dcmtk, tmp_path: Path, size: int
) -> None:
    """Small ones, and such as were written in parts."""
    bench.device.storages["fs1"] = s3_server.descriptor(f"export-{size}")
    study = f"1.2.3.{size}"
    dataset = secondary_capture(study, 1, 1, size=size)
    path = write(dataset, tmp_path / "object.dcm")
    peer = dcmtk.storescp()
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(path)
    assert bench.perform(bench.export_task(study)).status is TaskStatus.COMPLETED
    [file] = peer.received().values()
    assert encoded_dataset(file) == encoded_dataset(path)


def test_an_export_waits_for_a_bucket_that_cannot_be_reached(
    bench: ExportBench, s3_server: S3Server, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    proxy = Proxy(to_port(s3_server.ports["proxy"]))
    endpoint = f"http://127.0.0.1:{proxy.port}"
    bench.device.storages["fs1"] = s3_server.descriptor("outage", endpoint, timeout="1")
    bench.add(exporter(), remote_ae("STORESCP", store_scp().port))
    bench.store(write(secondary_capture("1.2.3.9", 1, 1), tmp_path / "object.dcm"))
    task = bench.export_task("1.2.3.9")
    proxy.cut()
    outcome = bench.perform(task)
    assert outcome.status is TaskStatus.FAILED
    assert outcome.failure is Failure.TRANSIENT
    proxy.mend()
    assert bench.perform(task).status is TaskStatus.COMPLETED
    proxy.close()
