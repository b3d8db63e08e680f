"""Associations that share a lane: what one does harms no other, and what is rare goes as ever."""

import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from archive.clock import SYSTEM_CLOCK
from scp.pdus import PduType, encode_command, encode_fragment
from tests.fix_process import wait_until
from tests.fix_scp import SECONDARY_CAPTURE, RawPeer, Site, small_dataset, store_command
from tests.fix_system import ARCHIVE
from tests.fix_violations import PIECE, SOP, VIOLATIONS, assert_aborted

WARM = 3
"""Objects after which an association is in its lane."""


def uid(association: int, number: int) -> str:
    return f"1.2.3.9.{association}.{number}"


def dataset_of(association: int, number: int, *, pixels: int = 64) -> bytes:
    study = f"1.2.3.9.{association}"
    return small_dataset(uid(association, number), study=study, series=f"{study}.0", pixels=pixels)


def store(peer: RawPeer, association: int, number: int) -> int:
    return peer.store(uid(association, number), dataset_of(association, number)).status


@contextmanager
def in_lane(site: Site, count: int = 1) -> Iterator[list[RawPeer]]:
    """Associations that have stored `WARM` objects each."""
    with ExitStack() as stack:
        peers = [stack.enter_context(site.peer()) for _ in range(count)]
        for association, peer in enumerate(peers):
            peer.associate()
            for number in range(1, WARM + 1):
                assert store(peer, association, number) == 0
        yield peers


def assert_kept(site: Site, count: int) -> None:
    """Expect so many objects, and their files alone."""
    assert site.count("instance") == site.count("location") == count
    wait_until(lambda: len(site.files()) == count, what="only the stored files to remain")


@pytest.fixture
def logging_scp(site: Site) -> Site:
    site.start(DICOMQ_LOG_LEVEL="DEBUG")
    return site


def test_an_association_enters_its_lane_and_comes_back(logging_scp: Site) -> None:
    with in_lane(logging_scp) as (peer,):
        assert logging_scp.log().count("scp.lane-entered") == 1
        for number in range(10, 20):
            assert store(peer, 0, number) == 0
        assert logging_scp.log().count("scp.lane-entered") == 1, "it never left"
        other = small_dataset("1.2.3.8.1", study="1.2.3.8", series="1.2.3.8.0")
        assert peer.store("1.2.3.8.1", other).status == 0
        assert store(peer, 0, 20) == store(peer, 0, 21) == 0
        assert logging_scp.log().count("scp.lane-entered") == 2
        peer.release()
    assert_kept(logging_scp, WARM + 13)


@pytest.mark.parametrize("pieces", [0, 2])
@pytest.mark.parametrize("name", [each for each in VIOLATIONS if each != "release inside"])
def test_a_violation_ends_one_association(scp: Site, name: str, pieces: int) -> None:
    with in_lane(scp, 2) as (bad, good):
        bad.begin_store(SOP)
        bad.send(PIECE * pieces)
        bad.send(VIOLATIONS[name])
        assert store(good, 1, 10) == 0
        assert_aborted(bad)
        assert store(good, 1, 11) == 0
        good.release()
    assert_kept(scp, 2 * WARM + 2)
    assert "Traceback" not in scp.log()


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "release"])
def test_an_end_inside_an_object_leaves_nothing(scp: Site, ending: str) -> None:
    with in_lane(scp, 2) as (gone, other):
        gone.begin_store(SOP)
        gone.send(PIECE)
        if ending == "abort":
            gone.send(struct.pack(">BxLL", PduType.A_ABORT, 4, 0))
        elif ending == "release":
            gone.send(struct.pack(">BxLL", PduType.A_RELEASE_RQ, 4, 0))
        elif ending == "reset":
            gone.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        gone.sock.close()
        wait_until(lambda: "scp.object-abandoned" in scp.log(), what="the object to be given up")
        assert store(other, 1, 10) == 0
        other.release()
    assert_kept(scp, 2 * WARM + 1)


@pytest.mark.parametrize("stage", ["between", "header", "command", "inside"])
def test_silence_ends_after_the_configured_time(site: Site, stage: str) -> None:
    site.modify(f"cn=dicom,{ARCHIVE}", dcmIdleTimeout="1500")
    site.start()
    with in_lane(site, 2) as (silent, other):
        if stage == "header":
            silent.send(b"\x04\x00\x00")
        if stage in {"command", "inside"}:
            silent.begin_store(SOP)
        if stage == "inside":
            silent.send(PIECE[:100])
        began, number = SYSTEM_CLOCK.monotonic(), 10
        silent.sock.settimeout(0.1)
        while True:
            assert store(other, 1, number) == 0, "the other one goes on"
            number += 1
            try:
                assert silent.sock.recv(1) in {b"", b"\x07"}
                break
            except TimeoutError:
                assert SYSTEM_CLOCK.monotonic() - began < 20
        other.release()
    assert_kept(site, 2 * WARM + number - 10)


def test_messages_sent_without_waiting(scp: Site) -> None:
    numbers = range(10, 30)
    burst = b""
    for number in numbers:
        burst += encode_command(1, store_command(number, SECONDARY_CAPTURE, uid(0, number)))
        burst += encode_fragment(1, dataset_of(0, number), control=2)
    with in_lane(scp) as (peer,):
        peer.send(burst)
        answers = [peer.reply() for _ in numbers]
        assert [(each.status, each.message_id) for each in answers] == [
            (0, number) for number in numbers
        ]
        peer.release()
    assert_kept(scp, WARM + len(numbers))


def test_several_messages_in_one_pdu(scp: Site) -> None:
    body = b""
    for number in (10, 11, 12):
        dataset = dataset_of(0, number)
        command = store_command(number, SECONDARY_CAPTURE, uid(0, number))
        body += encode_command(1, command)[6:]
        body += encode_fragment(1, dataset[:99], control=0)[6:]
        body += encode_fragment(1, dataset[99:], control=2)[6:]
    with in_lane(scp) as (peer,):
        peer.send(b"\x04\x00" + len(body).to_bytes(4, "big") + body)
        assert [peer.reply().message_id for _ in range(3)] == [10, 11, 12]
        assert store(peer, 0, 13) == 0
        peer.release()
    assert_kept(scp, WARM + 4)


@pytest.mark.parametrize("cut", [1, 7, 13, 50])
def test_pdus_cut_anywhere(scp: Site, cut: int) -> None:
    stream = encode_command(1, store_command(1, SECONDARY_CAPTURE, uid(0, 10)))
    stream += encode_fragment(1, dataset_of(0, 10), control=2)
    with in_lane(scp) as (peer,):
        for start in range(0, min(len(stream), cut * 12), cut):
            peer.send(stream[start : start + cut])
            SYSTEM_CLOCK.sleep(0.002)  # separate segments
        peer.send(stream[min(len(stream), cut * 12) :])
        assert peer.reply().status == 0
        peer.release()
    assert_kept(scp, WARM + 1)


def test_long_objects_and_short_ones_take_turns(scp: Site) -> None:
    with in_lane(scp, 2) as (first, second):
        for number in range(10, 14):
            long = dataset_of(0, number, pixels=3 << 20)
            assert first.store(uid(0, number), long).status == 0
            assert store(first, 0, number + 10) == store(second, 1, number) == 0
        for peer in (first, second):
            peer.release()
    assert_kept(scp, 2 * WARM + 12)


def test_what_is_no_object_is_refused_and_the_association_goes_on(scp: Site) -> None:
    with in_lane(scp) as (peer,):
        assert peer.store(SOP, b"GIF89a" * 100).status == 0xC499
        assert store(peer, 0, 10) == 0
        assert peer.store(SOP, small_dataset("1.2.9")).status == 0xA900
        peer.begin_store("../../../tmp/x")
        peer.send(PIECE[:12] + PIECE[12:])
        peer.send(encode_fragment(1, b"", control=2))
        assert peer.reply().status == 0x0117
        assert store(peer, 0, 11) == store(peer, 0, 12) == 0
        assert store(peer, 0, 12) == 0, "again"
        peer.release()
    assert_kept(scp, WARM + 3)


def test_a_peer_that_goes_before_its_answer(scp: Site) -> None:
    """Its object is whole: it may be kept; the others go on."""
    with in_lane(scp, 2) as (gone, other):
        gone.begin_store(uid(0, 10))
        gone.send(encode_fragment(1, dataset_of(0, 10), control=2))
        gone.sock.close()
        for number in range(10, 20):
            assert store(other, 1, number) == 0
        other.release()
    wait_until(lambda: scp.count("instance") == 2 * WARM + 11, what="the object to be kept")
    assert_kept(scp, 2 * WARM + 11)


@contextmanager
def held_up(site: Site, ledger_url: str, peers: list[RawPeer]) -> Iterator[list[Future[int]]]:
    """Object 10 of each association, sent while PostgreSQL is not to be had."""
    with ThreadPoolExecutor(len(peers)) as pool, psycopg.connect(ledger_url) as blocker:
        blocker.execute("LOCK TABLE instance IN EXCLUSIVE MODE")
        yield [pool.submit(store, peer, number, 10) for number, peer in enumerate(peers)]
        count = (WARM + 1) * len(peers)
        alive = site.processes[-1].is_alive
        wait_until(lambda: len(site.files()) >= count or not alive(), what="files to be placed")


def test_objects_share_transactions(scp: Site, ledger_url: str) -> None:
    with in_lane(scp, 8) as peers:
        with held_up(scp, ledger_url, peers) as answers:
            pass
        assert [each.result() for each in answers] == [0] * 8
        for peer in peers:
            peer.release()
    with scp.ledger.statement() as tx:
        query = "SELECT DISTINCT xmin::text FROM instance WHERE sop_instance_uid LIKE '%.10'"
        assert len(tx.execute(query).fetchall()) < 8
    assert_kept(scp, 8 * (WARM + 1))


def test_one_that_is_refused_fails_no_other(scp: Site, ledger_url: str) -> None:
    with scp.ledger.transaction() as tx:
        tx.execute(
            "ALTER TABLE instance ADD CONSTRAINT bad CHECK (sop_instance_uid <> '1.2.3.9.4.10')"
        )
    with in_lane(scp, 8) as peers:
        with held_up(scp, ledger_url, peers) as answers:
            pass
        statuses = [each.result() for each in answers]
        assert [number for number, status in enumerate(statuses) if status != 0] == [4]
        assert store(peers[4], 4, 11) == 0
        for peer in peers:
            peer.release()
    assert_kept(scp, 8 * (WARM + 1))


@pytest.mark.parametrize("checkpoint", ["scp.file-durable", "scp.committed", "scp.before-response"])
def test_killed_meanwhile(site: Site, ledger_url: str, checkpoint: str) -> None:
    """No row lacks its file, nothing answered is lost, and the same objects can be sent again."""
    victim = site.start(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL:{8 * WARM + 3}")
    with in_lane(site, 8) as peers:
        with held_up(site, ledger_url, peers) as answers:
            pass
        wait_until(lambda: not victim.is_alive(), what="the process to be killed")
        kept = [number for number, each in enumerate(answers) if each.exception() is None]
    assert len(kept) < 8
    site.start()
    with site.ledger.statement() as tx:
        query = "SELECT sop_instance_uid FROM instance WHERE sop_instance_uid LIKE '%.10'"
        assert {uid(number, 10) for number in kept} <= {row[0] for row in tx.execute(query)}
    rows = site.count("instance")
    wait_until(lambda: len(site.files()) == rows, what="files and rows to agree")
    for number in range(8):
        with site.peer() as peer:
            peer.associate()
            assert store(peer, number, 10) == 0
            peer.release()
    assert_kept(site, 8 * (WARM + 1))


def test_stop_ends_associations_in_a_lane(site: Site) -> None:
    process = site.start()
    with in_lane(site, 3) as peers:
        assert process.stop() == 0
        for peer in peers:
            assert_aborted(peer)
    assert "scp.stopped" in site.log()
    assert_kept(site, 3 * WARM)


def test_connections_to_the_ledger_that_ended(scp: Site, ledger_url: str) -> None:
    with in_lane(scp, 2) as peers:
        with psycopg.connect(ledger_url, autocommit=True) as admin:
            admin.execute(  # waits for their end
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        for association, peer in enumerate(peers):
            assert store(peer, association, 10) == 0, "over a new connection"
            peer.release()
    assert_kept(scp, 2 * WARM + 2)


def test_a_lock_that_is_not_to_be_had(scp: Site, ledger_url: str) -> None:
    """A lane does not wait for it: its transactions could wait for each other in a circle."""
    with in_lane(scp, 9) as (*peers, other), psycopg.connect(ledger_url) as blocker:
        blocker.execute("SELECT FROM series WHERE series_instance_uid = '1.2.3.9.3.0' FOR UPDATE")
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(store, peer, number, 10) for number, peer in enumerate(peers)]
            wait_until(
                lambda: "lock timeout" in scp.log(), what="the threads of the associations to try"
            )
            assert store(other, 8, 10) == 0
            assert not answers[3].done()
            blocker.rollback()
            assert [each.result() for each in answers] == [0] * 8
        for peer in (*peers, other):
            peer.release()
    assert_kept(scp, 9 * (WARM + 1))


def test_objects_of_the_same_studies_in_any_order(site: Site) -> None:
    """Two processes take objects of the same studies, each in another order."""
    for _ in range(2):
        site.start()
    with in_lane(site, 8) as peers, ThreadPoolExecutor(8) as pool:
        for number in range(10, 30):
            order = [(number + each) % 8 for each in range(8)]
            sent = [
                pool.submit(store, peer, study, 100 * number + at)
                for at, (peer, study) in enumerate(zip(peers, order, strict=True))
            ]
            assert [each.result(timeout=60) for each in sent] == [0] * 8
        for peer in peers:
            peer.release()
    assert_kept(site, 8 * (WARM + 20))
