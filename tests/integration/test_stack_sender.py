"""What the tests of the docker-compose stack take for an acknowledgement of dcmtk's storescu."""

from collections.abc import Callable
from pathlib import Path

from pynetdicom.events import Event

from tests.fix_compose import all_stored
from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import generate_studies
from tests.fix_peer import StoreScp


def test_a_refused_object_is_not_taken_for_stored(
    dcmtk: Dcmtk, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    study = generate_studies(tmp_path / "objects", studies=1, instances=3)[0]
    answers = [0x0000, 0xA700, 0x0000]

    def answer(_event: Event) -> int:
        return answers.pop(0) if answers else 0x0000

    peer = store_scp(status=answer)
    files = study.files.values()
    assert not all_stored(dcmtk.storescu(*files, port=peer.port, called_aet=peer.title), 3)
    assert all_stored(dcmtk.storescu(*files, port=peer.port, called_aet=peer.title), 3)
