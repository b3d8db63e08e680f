"""Objects that come on several associations at once share a transaction, not their fate."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.fix_process import wait_until
from tests.fix_scp import RawPeer, Site, small_dataset

SENDERS = 8
BAD = "1.2.3.9.4.2"


def study(number: int) -> str:
    return f"1.2.3.9.{number}"


def send(peer: RawPeer, number: int, instance: int) -> int:
    """Send an object of the study of one sender and return the status."""
    uid = f"{study(number)}.{instance}"
    dataset = small_dataset(uid, study=study(number), series=f"{study(number)}.0")
    return peer.store(uid, dataset).status


@contextmanager
def ready_senders(site: Site) -> Iterator[list[RawPeer]]:
    """Associations on which the first object of a series was stored."""
    with ExitStack() as stack:
        peers = [stack.enter_context(site.peer()) for _ in range(SENDERS)]
        for number, peer in enumerate(peers):
            peer.associate()
            assert send(peer, number, 1) == 0
        yield peers


def send_at_once(site: Site, ledger_url: str, peers: list[RawPeer]) -> list[Future[int]]:
    """Let the first one wait for PostgreSQL and the others for it; then let them go on."""
    pool = ThreadPoolExecutor(SENDERS)
    with psycopg.connect(ledger_url) as blocker:
        blocker.execute("LOCK TABLE instance IN EXCLUSIVE MODE")
        futures = [pool.submit(send, peers[0], 0, 2)]
        wait_until(lambda: _is_blocked(ledger_url), what="the first one to wait for the lock")
        futures += [pool.submit(send, peers[each], each, 2) for each in range(1, SENDERS)]
        wait_until(lambda: len(_in_doubt(site)) == SENDERS, what="all files to be placed")
    pool.shutdown()
    return futures


def _in_doubt(site: Site) -> list[str]:
    return [path.name for path in site.files() if "@" in path.name]


def _is_blocked(ledger_url: str) -> bool:
    with psycopg.connect(ledger_url) as connection:
        query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return connection.execute(query).fetchone() is not None


def transactions(site: Site) -> list[str]:
    """Return the transactions that wrote the second objects."""
    with site.ledger.statement() as tx:
        query = "SELECT xmin::text FROM instance WHERE sop_instance_uid LIKE '%.2'"
        return [xmin for (xmin,) in tx.execute(query)]


def test_objects_share_a_transaction(scp: Site, ledger_url: str) -> None:
    with ready_senders(scp) as peers:
        answers = send_at_once(scp, ledger_url, peers)
        assert [answer.result() for answer in answers] == [0] * SENDERS
        for peer in peers:
            peer.release()
    written = transactions(scp)
    assert len(written) == SENDERS
    assert len(set(written)) < SENDERS, "nobody shared"
    assert scp.count("location") == len(scp.files()) == 2 * SENDERS
    assert _in_doubt(scp) == []


def test_one_that_is_refused_fails_no_other(scp: Site, ledger_url: str) -> None:
    with scp.ledger.transaction() as tx:
        tx.execute(
            "ALTER TABLE instance ADD CONSTRAINT bad CHECK (sop_instance_uid <> '1.2.3.9.4.2')"
        )
    with ready_senders(scp) as peers:
        answers = send_at_once(scp, ledger_url, peers)
        statuses = [answer.result() for answer in answers]
        assert [number for number, status in enumerate(statuses) if status != 0] == [4]
        for peer in peers:
            peer.release()
    assert scp.count("instance") == scp.count("location") == len(scp.files()) == 2 * SENDERS - 1


def test_a_series_that_is_gone_is_made_anew(scp: Site, ledger_url: str) -> None:
    with ready_senders(scp) as peers:
        with scp.ledger.transaction() as tx:
            tx.execute(
                "DELETE FROM location l USING instance i "
                "WHERE i.pk = l.instance_fk AND i.sop_instance_uid = '1.2.3.9.5.1'"
            )
            tx.execute("DELETE FROM instance WHERE sop_instance_uid = '1.2.3.9.5.1'")
            tx.execute("DELETE FROM series WHERE series_instance_uid = '1.2.3.9.5.0'")
        answers = send_at_once(scp, ledger_url, peers)
        assert [answer.result() for answer in answers] == [0] * SENDERS
        for peer in peers:
            peer.release()
    assert scp.count("instance") == 2 * SENDERS - 1, "the first one went with its series"


@pytest.mark.parametrize("checkpoint", ["scp.committed", "scp.before-response"])
def test_killed_meanwhile(site: Site, ledger_url: str, checkpoint: str) -> None:
    """The process dies when the first of those who waited comes by: no row lacks its file."""
    victim = site.start(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL:{SENDERS + 1}")
    with ready_senders(site) as peers:
        answers = send_at_once(site, ledger_url, peers)
        wait_until(lambda: not victim.is_alive(), what="the process to be killed")
        acknowledged = [answer for answer in answers if answer.exception() is None]
    assert len(acknowledged) < SENDERS
    site.start()
    rows = site.count("instance")
    assert rows >= SENDERS + len(acknowledged)
    wait_until(lambda: len(site.files()) == rows, what="files and rows to agree")
    with ThreadPoolExecutor(SENDERS) as pool, ready_senders(site) as peers:
        assert set(pool.map(lambda each: send(peers[each], each, 2), range(SENDERS))) == {0}
    assert site.count("instance") == len(site.files()) == 2 * SENDERS
