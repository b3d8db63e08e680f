"""C-MOVE of what lies here: the SCP relays what a worker of the retrieve pool does."""

from pathlib import Path

from tests.fix_objects import generate_studies
from tests.fix_retrieve import Counters, Retrieval


def test_study_arrives_at_the_destination(retrieval: Retrieval, tmp_path: Path) -> None:
    peer = retrieval.dcmtk.storescp()
    retrieval.place("STORESCP", peer.port)
    (study,) = generate_studies(tmp_path / "o", studies=1, series=2, instances=3)
    retrieval.store(study)
    moved = retrieval.study(study)
    assert moved.status == 0, moved.output
    assert moved.counters == Counters(None, 6, 0, 0), moved.output
    assert sorted(peer.received()) == sorted(study.files)
