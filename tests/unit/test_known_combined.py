"""Which objects can share a transaction, and in which order."""

from itertools import permutations
from pathlib import Path

import pytest

from archive.configuration.descriptors import Storage
from archive.ledger.known_series import CommonParameters, Particulars
from archive.model.entities import ObjectAttributes, Reception, StoredFile
from archive.storage.filesystem import FileStorage
from scp.known import Placed, combined
from tests.fix_scp import CT, EXPLICIT

FILE = StoredFile("fs1", "a/b", EXPLICIT, 1, 0, "blake3:00")


class Maker:
    """Makes placed objects; the study is the UID without its last two components."""

    def __init__(self, data: Path) -> None:
        self._storage = FileStorage(Storage("fs1", f"file://{data}/fs1/", ""), data)

    def placed(self, uid: str, common: CommonParameters, intents: bytes = b"[]") -> Placed:
        series = uid.rpartition(".")[0]
        attributes = ObjectAttributes(CT, uid, series.rpartition(".")[0], series, EXPLICIT)
        reception = Reception(calling_aet="A", called_aet="B", calling_host="h")
        own = Particulars(attributes, None, FILE, reception, intents)
        return Placed(common, own, self._storage.create(b"", EXPLICIT))


def common() -> CommonParameters:
    return CommonParameters(rows=(), policy=(), announcements=None)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def uids(objects: list[Placed]) -> list[str]:
    return [each.own.attributes.sop_instance_uid for each in objects]


def test_one_order_for_all(maker: Maker) -> None:
    first, second = common(), common()
    objects = [
        maker.placed("1.1.1.2", first),
        maker.placed("1.1.1.1", first),
        maker.placed("1.2.1.1", second),
    ]
    for order in permutations(objects):
        assert uids(combined(order)) == ["1.1.1.1", "1.1.1.2", "1.2.1.1"]


def test_another_series_of_a_study_goes_alone(maker: Maker) -> None:
    objects = [maker.placed("1.1.2.1", common()), maker.placed("1.1.1.1", common())]
    assert uids(combined(objects)) == ["1.1.2.1"]


def test_other_exports_of_a_study_go_alone(maker: Maker) -> None:
    series = common()
    objects = [
        maker.placed("1.1.1.1", series),
        maker.placed("1.1.1.2", series, b'[{"entity": "Study"}]'),
        maker.placed("1.1.1.3", series),
    ]
    assert uids(combined(objects)) == ["1.1.1.1", "1.1.1.3"]
