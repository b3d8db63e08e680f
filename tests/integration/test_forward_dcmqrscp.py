"""C-MOVE of purged studies, fetched back from dcmqrscp: through the archive, and as a proxy."""

from pathlib import Path

import pytest

from tests.fix_dcmtk import DcmtkStoreScp
from tests.fix_objects import Study, generate_studies
from tests.fix_retrieve import Counters, Qrscp, Retrieval

THROUGH = "dcmExternalRetrieveAEDestination: DCM4CHEE"


@pytest.fixture
def peer(retrieval: Retrieval) -> DcmtkStoreScp:
    started = retrieval.dcmtk.storescp()
    retrieval.place("STORESCP", started.port)
    return started


@pytest.fixture
def archive(retrieval: Retrieval, peer: DcmtkStoreScp) -> Qrscp:
    return retrieval.qrscp(destinations={"STORESCP": peer.port})


def purged_study(
    retrieval: Retrieval, archive: Qrscp, directory: Path, *, series: int = 1, instances: int
) -> Study:
    """Return a study that is in both archives, its files purged in ours."""
    (study,) = generate_studies(directory / "o", studies=1, series=series, instances=instances)
    archive.store(list(study.files.values()))
    retrieval.store(study)
    done = retrieval.purge(study, archive.title)
    assert done.returncode == 0, done.stdout
    return study


def test_through_the_archive(
    retrieval: Retrieval, peer: DcmtkStoreScp, archive: Qrscp, tmp_path: Path
) -> None:
    study = purged_study(retrieval, archive, tmp_path, series=2, instances=3)
    retrieval.configure_archive(THROUGH)
    moved = retrieval.study(study)
    assert moved.status == 0, moved.output + retrieval.system.explain()
    assert moved.counters == Counters(None, 6, 0, 0)
    assert sorted(peer.received()) == sorted(study.files)
    # the objects stay here: the next C-MOVE is served without the other archive
    archive.process.kill()
    again = retrieval.study(study)
    assert (again.status, again.counters) == (0, Counters(None, 6, 0, 0))


def test_proxy(retrieval: Retrieval, peer: DcmtkStoreScp, archive: Qrscp, tmp_path: Path) -> None:
    study = purged_study(retrieval, archive, tmp_path, instances=4)
    moved = retrieval.study(study)
    assert moved.status == 0, moved.output + retrieval.system.explain()
    assert moved.counters == Counters(None, 4, 0, 0)
    assert sorted(peer.received()) == sorted(study.files)
