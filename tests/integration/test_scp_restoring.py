"""A repeated object whose stored file is gone or damaged: the new copy takes its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fix_objects import encoded_dataset
from tests.fix_process import wait_until
from tests.fix_scp import Site, small_dataset
from tests.fix_system import ARCHIVE

SOP = "1.2.3.4.1.7"
FIRST, SECOND = small_dataset(SOP, pixels=10), small_dataset(SOP, pixels=20)
RESTORED = "scp.object-restored"


def store(site: Site, dataset: bytes, *, calling_aet: str = "RAWPEER") -> int:
    """Store an object in an association of its own and return the status."""
    with site.peer() as peer:
        peer.associate(calling_aet=calling_aet)
        status = peer.store(SOP, dataset).status
        peer.release()
    return status


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def falsify(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def datasets(site: Site) -> list[bytes]:
    """Return the data sets on the storage, each of which the index has to list."""
    with site.ledger.statement() as tx:
        listed = sorted(path for (path,) in tx.execute("SELECT storage_path FROM location"))
    files = sorted(site.files())
    for file, path in zip(files, listed, strict=True):
        assert str(file).endswith(f"/{path}")
    return [encoded_dataset(file) for file in files]


@pytest.mark.parametrize("damage", [Path.unlink, truncate, falsify])
def test_the_new_copy_takes_the_place_of_a_bad_one(
    scp: Site, damage: Callable[[Path], None]
) -> None:
    assert store(scp, FIRST) == 0
    damage(scp.files()[0])
    assert store(scp, FIRST, calling_aet="STRANGER") == 0
    assert datasets(scp) == [FIRST]
    assert (scp.count("instance"), scp.count("obsolete_file")) == (1, 0)
    assert scp.log().count(RESTORED) == 1
    assert store(scp, FIRST) == 0
    assert scp.log().count(RESTORED) == 1


@pytest.mark.parametrize(("policy", "restored"), [("NEVER", 1), ("ALWAYS", 0)])
def test_other_contents_take_the_place_of_a_missing_file(
    site: Site, policy: str, restored: int
) -> None:
    """With NEVER they would be dropped if the file were there, with ALWAYS they replace it."""
    site.modify(ARCHIVE, dcmOverwritePolicy=policy)
    site.start()
    assert store(site, FIRST) == 0
    site.files()[0].unlink()
    assert store(site, SECOND, calling_aet="STRANGER") == 0
    assert datasets(site) == [SECOND]
    assert (site.count("instance"), site.count("obsolete_file")) == (1, 0)
    assert site.log().count(RESTORED) == restored


def test_a_storage_that_cannot_be_asked_says_nothing_about_its_files(site: Site) -> None:
    site.start()
    assert store(site, FIRST) == 0
    with site.ledger.transaction() as tx:
        tx.execute("UPDATE location SET storage_id = 'elsewhere'")
    assert store(site, FIRST) == 0
    assert (site.count("location"), site.log().count(RESTORED)) == (1, 0)
    assert "scp.object-duplicate" in site.log()


@pytest.mark.parametrize("checkpoint", ["scp.file-durable", "scp.committed", "scp.before-response"])
def test_killed_while_it_restores(site: Site, checkpoint: str) -> None:
    victim = site.start(DICOMQ_CHECKPOINT=f"{checkpoint}:KILL:2")
    assert store(site, FIRST) == 0
    site.files()[0].unlink()
    with pytest.raises(ConnectionError):
        store(site, FIRST)
    wait_until(lambda: not victim.is_alive(), what="the process to be killed")
    site.start()
    assert store(site, FIRST) == 0
    assert datasets(site) == [FIRST]
