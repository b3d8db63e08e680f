"""The C-GET SCP, asked by getscu and by a requestor of pynetdicom."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.events import Event

from tests.fix_dcmtk import Dcmtk
from tests.fix_move import THROUGH, MoveSite, MoveTalk
from tests.fix_objects import bundled, encoded_dataset
from tests.fix_peer import send_files

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
A702, A900, B000, FE00, FF00 = 0xA702, 0xA900, 0xB000, 0xFE00, 0xFF00


class GetClient:
    """A C-GET SCU; `status` decides the answer to each C-STORE."""

    def __init__(self, port: int, *, syntax: str = EXPLICIT) -> None:
        self.received: dict[str, bytes] = {}
        self.responses: list[tuple[int, tuple[int | None, ...], tuple[str, ...]]] = []
        self.cancel_after = 0
        self.answer = 0
        self.on_response: Callable[[Any], object] = lambda _association: None
        self._port = port
        self._syntax = syntax

    def get(self, **keys: object) -> tuple[int, tuple[int | None, ...], tuple[str, ...]]:
        """Ask and return status, counters and failed UIDs of the final response."""
        ae = AE(ae_title="GETSCU")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        association = ae.associate(
            "127.0.0.1",
            self._port,
            contexts=[
                build_context(STUDY_ROOT_GET),
                build_context(SECONDARY_CAPTURE, self._syntax),
            ],
            ae_title="DCM4CHEE",
            ext_neg=[build_role(SECONDARY_CAPTURE, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, self._on_store)],
        )
        assert association.is_established
        identifier = Dataset()
        for name, value in keys.items():
            setattr(identifier, name, value)
        self._association = association
        for status, found in association.send_c_get(identifier, STUDY_ROOT_GET):
            names = ("Remaining", "Completed", "Failed", "Warning")
            counts = tuple(status.get(f"NumberOf{name}Suboperations") for name in names)
            uids = found.get("FailedSOPInstanceUIDList", []) if found else []
            listed = (uids,) if isinstance(uids, str) else tuple(sorted(map(str, uids)))
            self.responses.append((int(status.Status), counts, listed))
            self.on_response(association)
        association.release()
        return self.responses[-1]

    def _on_store(self, event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.received[uid] = event.request.DataSet.getvalue()
        if len(self.received) == self.cancel_after:
            self._association.send_c_cancel(1, query_model=STUDY_ROOT_GET)
        return self.answer


def test_objects_come_as_they_were_stored(moves: MoveSite) -> None:
    study = moves.study(series=2, instances=3)
    client = GetClient(moves.port)
    uid = study.study_instance_uid
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)
    assert final == (0, (None, 6, 0, 0), ())
    assert client.received == {uid: encoded_dataset(path) for uid, path in study.files.items()}
    assert client.responses[0][:2] == (FF00, (6, 0, 0, 0))
    assert len(client.responses) == 7


def test_native_objects_are_encoded_as_negotiated(moves: MoveSite) -> None:
    study = moves.study(instances=1)
    client = GetClient(moves.port, syntax=IMPLICIT)
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final == (0, (None, 1, 0, 0), ())


def test_refused_identifier(moves: MoveSite) -> None:
    assert GetClient(moves.port).get(QueryRetrieveLevel="STUDY")[0] == A900


def test_nothing_matches(moves: MoveSite) -> None:
    final = GetClient(moves.port).get(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.99")
    assert final == (0, (None, 0, 0, 0), ())


def test_purged_objects_have_failed_when_nobody_may_bring_them(moves: MoveSite) -> None:
    study = moves.study(instances=3)
    lost = sorted(study.files)[:2]
    for uid in lost:
        moves.forget_file(uid, "QRSCP")
    client = GetClient(moves.port)
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final == (B000, (None, 1, 2, 0), tuple(lost))
    assert "dcmExternalRetrieveAEDestination" in moves.site.log()
    assert not moves.tasks()


def test_purged_objects_are_fetched_first(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study = moves.study(instances=4)
    lost = sorted(study.files)[:3]
    for uid in lost:
        moves.forget_file(uid, "QRSCP")
    archive = moves.archive(lambda talk: talk.deliver([study.files[uid] for uid in lost]))
    client = GetClient(moves.port)
    uid = study.study_instance_uid
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)
    assert final == (0, (None, 4, 0, 0), ())
    assert client.received == {uid: encoded_dataset(path) for uid, path in study.files.items()}
    (talk,) = archive.talks
    assert (talk.destination, sorted(talk.identifier.SOPInstanceUID)) == ("DCM4CHEE", lost)
    again = GetClient(moves.port).get(QueryRetrieveLevel="STUDY", StudyInstanceUID=uid)
    assert (again, len(archive.talks)) == ((0, (None, 4, 0, 0), ()), 1)


def test_what_the_other_archive_does_not_bring_has_failed(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study = moves.study(instances=3)
    moves.purge(study)
    files = dict(sorted(study.files.items()))

    def brings_one(talk: MoveTalk) -> None:
        talk.send(list(files.values())[:1])
        talk.respond(A702, (None, 1, 2, 0), comment="out of tapes")

    moves.archive(brings_one)
    client = GetClient(moves.port)
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final == (B000, (None, 1, 2, 0), tuple(files)[1:])
    assert "out of tapes" in moves.site.log()


def test_a_cancel_while_objects_are_fetched(moves: MoveSite) -> None:
    moves.set(**THROUGH)
    study = moves.study(instances=2)
    moves.forget_file(min(study.files), "QRSCP")
    asked = threading.Event()

    def is_slow(talk: MoveTalk) -> None:
        asked.set()
        talk.wait(lambda: client.responses and client.responses[-1][0] == FE00, "the end")
        talk.respond(0, (None, 0, 0, 0))

    moves.archive(is_slow)
    client = GetClient(moves.port)
    client.on_response = lambda association: (
        association.send_c_cancel(1, query_model=STUDY_ROOT_GET) if asked.is_set() else None
    )
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final[:2] == (FE00, (1, 1, 0, 0))
    moves.wait_for_tasks()


@pytest.mark.parametrize(
    ("answer", "status", "counts"),
    [(0xC000, A702, (None, 0, 2, 0)), (0xB000, B000, (None, 0, 0, 2))],
)
def test_answers_are_counted(
    moves: MoveSite, answer: int, status: int, counts: tuple[int | None, ...]
) -> None:
    study = moves.study(instances=2)
    client = GetClient(moves.port)
    client.answer = answer
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final[:2] == (status, counts)


def test_cancel(moves: MoveSite) -> None:
    study = moves.study(instances=10)
    client = GetClient(moves.port)
    client.cancel_after = 4
    final = client.get(QueryRetrieveLevel="STUDY", StudyInstanceUID=study.study_instance_uid)
    assert final[0] == FE00
    remaining, completed, failed, _ = final[1]
    assert completed == len(client.received)
    assert (remaining, failed) == (10 - len(client.received), 0)


def test_getscu_of_dcmtk(moves: MoveSite, dcmtk: Dcmtk, tmp_path: Path) -> None:
    path = bundled("CT_small.dcm")
    head = dcmread(path, stop_before_pixels=True)
    assert set(send_files([path], moves.port).statuses.values()) == {0}
    directory = tmp_path / "got"
    directory.mkdir()
    done = dcmtk.run(
        *("getscu", "-v", "-S", "-aec", "DCM4CHEE", "-od", str(directory)),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={head.StudyInstanceUID}"),
        *("127.0.0.1", str(moves.port)),
    )
    assert done.returncode == 0, done.stdout
    (got,) = directory.iterdir()
    assert dcmread(got).PixelData == dcmread(path).PixelData
