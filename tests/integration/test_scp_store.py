"""Objects from real senders: stored whole, once, indexed, and safe before they are answered."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydicom import dcmread

from archive.storage.incoming import BUFFERED_BYTES
from scp.pdus import encode_fragment
from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import bundled, encoded_dataset, generate_studies
from tests.fix_postgres import PostgresServer
from tests.fix_process import wait_until
from tests.fix_scp import RawPeer, Site, small_dataset
from tests.fix_system import ARCHIVE, ARCHIVE_AE

SOP = "1.2.3.4.1.7"
CHECKPOINTS = [
    "scp.object-received", "scp.file-durable", "scp.committed", "scp.before-response"
]  # fmt: skip


def store(site: Site, dataset: bytes, *, sop: str = SOP, calling_aet: str = "RAWPEER") -> int:
    """Store an object in an association of its own and return the status."""
    with site.peer() as peer:
        peer.associate(calling_aet=calling_aet)
        status = peer.store(sop, dataset).status
        peer.release()
    return status


def stored_datasets(site: Site) -> list[bytes]:
    """Return the data sets on the storage, which holds nothing else."""
    return [encoded_dataset(path) for path in site.files()]


def test_echo(scp: Site, dcmtk: Dcmtk) -> None:
    assert dcmtk.echoscu(scp.port).returncode == 0
    assert dcmtk.echoscu(scp.port, called_aet="NOBODY").returncode != 0


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtplan.dcm", "MR_small_bigendian.dcm",
     "examples_palette.dcm", "MR_small_RLE.dcm", "reportsi.dcm"],
)  # fmt: skip
def test_bundled_files_are_kept_bit_by_bit(scp: Site, name: str) -> None:
    path = bundled(name)
    original = dcmread(path, stop_before_pixels=True)
    syntax, sop = str(original.file_meta.TransferSyntaxUID), str(original.SOPInstanceUID)
    with scp.peer() as peer:
        peer.associate({1: (str(original.SOPClassUID), [syntax])}, calling_aet="STORESCU")
        reply = peer.store(sop, encoded_dataset(path), sop_class=str(original.SOPClassUID))
        assert reply.status == 0, scp.log()
        peer.release()
    assert stored_datasets(scp) == [encoded_dataset(path)]
    (file,) = scp.files()
    meta = dcmread(file, stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == syntax
    assert meta.MediaStorageSOPInstanceUID == sop
    assert meta.SourceApplicationEntityTitle == "STORESCU"
    with scp.ledger.statement() as tx:
        row = tx.execute("SELECT sop_instance_uid, version FROM instance").fetchone()
    assert row == (sop, 1)


@pytest.mark.parametrize("step", [1, 7, 100, 16000])
def test_fragments_of_any_size(scp: Site, step: int) -> None:
    dataset = small_dataset(SOP, pixels=2000)
    with scp.peer() as peer:
        peer.associate()
        assert peer.store(SOP, dataset, step=step).status == 0
        peer.release()
    assert stored_datasets(scp) == [dataset]


def test_many_objects_and_two_processes(site: Site, dcmtk: Dcmtk, tmp_path: Path) -> None:
    site.start()
    site.start()
    studies = generate_studies(tmp_path / "objects", studies=8, series=2, instances=5)
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(lambda each: dcmtk.dcmsend(*each.files.values(), port=site.port), studies)
        )
    assert all(each.returncode == 0 for each in done), [each.stdout for each in done]
    assert site.count("instance") == len(site.files()) == 80
    served = [process.output().count("scp.object-stored") for process in site.processes]
    assert sum(served) == 80


def test_sixty_four_associations_at_once(scp: Site) -> None:
    peers = [scp.peer() for _ in range(64)]
    for peer in peers:
        peer.associate()
    for number, peer in enumerate(peers):
        uid = f"{SOP}.{number}"
        peer.begin_store(uid)

    def finish(numbered: tuple[int, RawPeer]) -> int:
        number, peer = numbered
        uid = f"{SOP}.{number}"
        peer.send(encode_fragment(1, small_dataset(uid), control=2))
        return peer.reply().status

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(finish, enumerate(peers))) == {0}
    for peer in peers:
        peer.release()
        peer.sock.close()
    assert scp.count("instance") == 64


def test_same_object_again_is_answered_and_kept_once(scp: Site) -> None:
    for _ in range(3):
        assert store(scp, small_dataset(SOP)) == 0
    assert (scp.count("instance"), len(scp.files())) == (1, 1)


def test_same_object_on_many_associations_at_once(scp: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: store(scp, small_dataset(SOP)), range(24)))
    assert set(statuses) == {0}
    assert (scp.count("instance"), len(scp.files())) == (1, 1)


@pytest.mark.parametrize(
    ("policy", "second_aet", "kept"),
    [
        ("NEVER", "RAWPEER", 1),
        ("SAME_SOURCE", "RAWPEER", 2),
        ("SAME_SOURCE", "STRANGER", 1),
        ("ALWAYS", "STRANGER", 2),
        ("EVEN_WITH_EQUAL_DIGEST", "STRANGER", 2),
    ],
)
def test_overwrite_policies(site: Site, policy: str, second_aet: str, kept: int) -> None:
    site.modify(ARCHIVE, dcmOverwritePolicy=policy)
    site.start()
    first, second = small_dataset(SOP, pixels=10), small_dataset(SOP, pixels=20)
    assert store(site, first) == 0
    assert store(site, second, calling_aet=second_aet) == 0
    assert stored_datasets(site) == [first if kept == 1 else second]
    assert site.count("instance") == 1


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_killed_at_a_checkpoint(site: Site, checkpoint: str) -> None:
    victim = site.start(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL")
    with pytest.raises(ConnectionError):
        store(site, small_dataset(SOP))
    wait_until(lambda: not victim.is_alive(), what="the process to be killed")
    survivor = site.start()
    rows = site.count("instance")
    wait_until(lambda: len(site.files()) == rows, what="files and rows to agree")
    assert rows == (1 if checkpoint in CHECKPOINTS[2:] else 0)
    assert store(site, small_dataset(SOP)) == 0
    assert stored_datasets(site) == [small_dataset(SOP)]
    assert survivor.is_alive()


def test_killed_before_a_replaced_file_is_deleted(site: Site) -> None:
    site.modify(ARCHIVE, dcmOverwritePolicy="ALWAYS")
    victim = site.start(DICOMQ_CHECKPOINT="scp.replaced:KILL")
    first, second = small_dataset(SOP, pixels=10), small_dataset(SOP, pixels=20)
    assert store(site, first) == 0
    with pytest.raises(ConnectionError):
        store(site, second)
    wait_until(lambda: not victim.is_alive(), what="the process to be killed")
    assert len(site.files()) == 2
    site.start()
    assert stored_datasets(site) == [second]
    assert site.count("obsolete_file") == 0
    assert store(site, first) == 0
    assert stored_datasets(site) == [first]
    assert site.count("obsolete_file") == 0


@pytest.mark.parametrize(
    "checkpoint", ["scp.file-placed", "scp.file-durable", "scp.committed", "scp.before-response"]
)
def test_killed_at_a_checkpoint_of_the_short_way(site: Site, checkpoint: str) -> None:
    """A series is known from its first object; the second one's file and rows go side by side."""
    passes = 1 if checkpoint == "scp.file-placed" else 2
    victim = site.start(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL:{passes}")
    with site.peer() as peer:
        peer.associate()
        assert peer.store("1.2.3.1", small_dataset("1.2.3.1")).status == 0
        with pytest.raises(ConnectionError):
            peer.store(SOP, small_dataset(SOP))
    wait_until(lambda: not victim.is_alive(), what="the process to be killed")
    site.start()
    rows = site.count("instance")
    wait_until(lambda: len(site.files()) == rows, what="files and rows to agree")
    assert rows == (2 if checkpoint in CHECKPOINTS[2:] else 1)
    assert store(site, small_dataset(SOP)) == 0
    assert len(site.files()) == site.count("instance") == site.count("location") == 2


def test_file_that_cannot_get_its_path_has_no_row(site: Site) -> None:
    """The long way and the short way are open again afterwards."""
    site.start()
    with site.peer() as peer:
        peer.associate()
        assert peer.store("1.2.3.1", small_dataset("1.2.3.1")).status == 0
        series = site.files()[0].parent
        series.rename(series.with_name("moved"))
        series.touch()  # no directory
        assert peer.store(SOP, small_dataset(SOP)).status == 0xA700
        series.unlink()
        assert site.count("instance") == 1
        assert peer.store(SOP, small_dataset(SOP)).status == 0
        peer.release()
    assert site.count("instance") == site.count("location") == len(site.files()) == 2


def test_ledger_outage_is_answered_and_nothing_is_kept(
    scp: Site, postgres_server: PostgresServer
) -> None:
    database = str(conninfo_to_dict(scp.environment["DATABASE_URL"])["dbname"])
    with scp.peer() as peer, psycopg.connect(postgres_server.url(), autocommit=True) as admin:
        peer.associate()
        assert peer.store("1.2.3.1", small_dataset("1.2.3.1")).status == 0
        name = sql.Identifier(database)
        admin.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database]
        )
        reply = peer.store(SOP, small_dataset(SOP))
        assert reply.status == 0xA700
        assert "PostgreSQL" in reply.comment
        assert len(scp.files()) == 1
        admin.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(name))
        wait_until(
            lambda: peer.store(SOP, small_dataset(SOP)).status == 0, what="the ledger to be back"
        )
        peer.release()
    assert len(scp.files()) == 2


def test_full_storage_is_answered(site: Site) -> None:
    mount = site.data / "fs1"
    mount.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if subprocess.run(mounting, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        site.start()
        with site.peer() as peer:
            peer.associate()
            reply = peer.store(SOP, small_dataset(SOP, pixels=1 << 20))
            assert reply.status == 0xA700
            assert peer.store("1.2.3.5", small_dataset("1.2.3.5")).status == 0
            peer.release()
        assert len(site.files()) == 1
    finally:
        site.stop()
        subprocess.run(["umount", str(mount)], check=True)


def test_memory_does_not_grow_with_the_object(scp: Site) -> None:
    assert store(scp, small_dataset("1.2.9", pixels=1 << 16), sop="1.2.9") == 0
    before = scp.resident_bytes()
    peak = before
    dataset = small_dataset(SOP, pixels=200 << 20)
    with scp.peer() as peer:
        peer.associate()
        peer.begin_store(SOP)
        for start in range(0, len(dataset), 131000):
            piece = dataset[start : start + 131000]
            is_last = start + 131000 >= len(dataset)
            peer.send(encode_fragment(1, piece, control=2 if is_last else 0))
            if start % (131000 * 64) == 0:
                peak = max(peak, scp.resident_bytes())
        assert peer.reply().status == 0
        peak = max(peak, scp.resident_bytes())
        peer.release()
    assert peak - before < 16 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_lets_a_running_object_finish(scp: Site, number: signal.Signals) -> None:
    process = scp.processes[0]
    idle = scp.peer()
    idle.associate()
    with scp.peer() as peer:
        peer.associate()
        dataset = small_dataset(SOP, pixels=BUFFERED_BYTES)
        peer.begin_store(SOP)
        for start in range(0, len(dataset) - 50, 100_000):
            piece = dataset[:-50][start : start + 100_000]
            peer.send(encode_fragment(1, piece, control=0))
        wait_until(scp.files, what="the object to begin")
        process.send(number)
        assert idle.receive()[0] in {7, 0}
        with pytest.raises(OSError, match="refused"):
            scp.peer()
        peer.send(encode_fragment(1, dataset[-50:], control=2))
        assert peer.reply().status == 0
        assert peer.receive()[0] in {7, 0}
    idle.sock.close()
    wait_until(lambda: not process.is_alive(), what="the process to end")
    assert process.popen.returncode == 0
    assert stored_datasets(scp) == [dataset]
    assert "Traceback" not in scp.log()


def test_stop_does_not_wait_for_ever(scp: Site) -> None:
    with scp.peer() as peer:
        peer.associate()
        peer.begin_store(SOP)
        scp.processes[0].send(signal.SIGTERM)
        wait_until(lambda: not scp.processes[0].is_alive(), what="the process to end")
    assert scp.processes[0].popen.returncode == 0
    assert scp.files() == []


def test_rules_stage_tasks_with_the_object(site: Site) -> None:
    site.configure(
        f"""\
        dn: dcmExporterID=E1,{ARCHIVE}
        changetype: add
        objectClass: dcmExporter
        dcmExporterID: E1
        dcmURI: dicom:STORESCP
        dcmQueueName: Export1

        dn: cn=CT only,{ARCHIVE_AE}
        changetype: add
        objectClass: dcmExportRule
        cn: CT only
        dcmEntity: Series
        dcmExporterID: E1
        dcmProperty: Modality=OT
        dcmProperty: SendingApplicationEntityTitle=CT.*
        """
    )
    site.start()
    assert store(site, small_dataset(SOP), calling_aet="MR1") == 0
    assert site.count("task") == 0
    for number in range(3):
        uid = f"{SOP}.{number}"
        assert store(site, small_dataset(uid), sop=uid, calling_aet="CT7") == 0
    assert site.count("task") == 1


def test_configuration_changes_act_on_the_next_association(scp: Site) -> None:
    first = scp.peer()
    first.associate(calling_aet="CT1")
    scp.modify(ARCHIVE_AE, dcmAcceptedCallingAETitle="MR1")

    def is_rejected() -> bool:
        with scp.peer() as peer:
            try:
                peer.associate(calling_aet="CT1")
            except ConnectionError as error:
                return "PDU 03 00010103" in str(error)
            return False

    wait_until(is_rejected, what="CT1 to be rejected")
    assert first.store(SOP, small_dataset(SOP)).status == 0
    first.release()
    first.sock.close()
    with scp.peer() as peer:
        peer.associate(calling_aet="MR1")
        peer.release()


def test_association_limits(site: Site) -> None:
    site.modify(ARCHIVE, dcmLimitOpenAssociations="2")
    site.start()
    peers = [site.peer(), site.peer()]
    for peer in peers:
        peer.associate()
    with site.peer() as third, pytest.raises(ConnectionError, match="PDU 03 00020302"):
        third.associate()
    peers[0].release()
    peers[0].sock.close()

    def is_accepted() -> bool:
        with site.peer() as peer:
            try:
                peer.associate()
            except ConnectionError:
                return False
            peer.release()
            return True

    wait_until(is_accepted, what="a free place")
    peers[1].release()
    peers[1].sock.close()
