"""Associations that stay open between tasks: used again, released when idle, never in the way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.model.task import IanDetails, TaskStatus
from tests.fix_export import ExportBench, exporter, local_ae, remote_ae
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import IanScp
from tests.fix_process import wait_until
from tests.fix_raw_peer import RawConnection, RawPeer, pdu, store_response
from workers.kept import KeptAssociations
from workers.processor import StopReason

StartRawPeer = Callable[..., RawPeer]
LONG_S = 300.0
A_RELEASE_RQ, A_RELEASE_RP = 5, 6
MESSAGE_ID = bytes([0, 0, 0x10, 0x01])
LAST_OF_DATA_SET = 2


@pytest.fixture
def keeping(
    bench: ExportBench,
    raw_peer: StartRawPeer,  # noqa: ARG001 - peers end only after what is kept
    ian_scp: Callable[..., IanScp],  # noqa: ARG001 - likewise
) -> Iterator[ExportBench]:
    """An archive whose workers keep associations for longer than a test takes."""
    bench.kept = KeptAssociations(LONG_S)
    yield bench
    bench.kept.close()


class Answering:
    """A script that answers C-STOREs, and the release at the end."""

    def __init__(self) -> None:
        self.released = 0

    def __call__(self, connection: RawConnection) -> None:
        connection.accept()
        message_id = 0
        while True:
            kind, body = connection.read_pdu()
            if kind == A_RELEASE_RQ:
                self.released += 1
                connection.sock.sendall(pdu(A_RELEASE_RP, bytes(4)))
                return
            if MESSAGE_ID in body:
                start = body.index(MESSAGE_ID) + len(MESSAGE_ID) + 4
                message_id = int.from_bytes(body[start : start + 2], "little")
            if body[5] == LAST_OF_DATA_SET:
                connection.sock.sendall(store_response(message_id))


def studies(bench: ExportBench, tmp_path: Path, count: int) -> list[Study]:
    """Store studies of three objects each."""
    made = generate_studies(tmp_path, studies=count, instances=3)
    for study in made:
        for path in study.files.values():
            bench.store(path)
    return made


def test_the_next_task_uses_the_association_again(
    keeping: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    script = Answering()
    peer = raw_peer(script)
    keeping.add(exporter(), remote_ae("STORESCP", peer.port))
    for study in studies(keeping, tmp_path, 3):
        outcome = keeping.perform(keeping.export_task(study.study_instance_uid))
        assert outcome.status is TaskStatus.COMPLETED
        assert len(keeping.held(study.study_instance_uid)) == 3
    assert (peer.connections, script.released) == (1, 0)
    keeping.kept.close()
    assert script.released == 1


def test_an_idle_association_is_released(
    bench: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    bench.kept = KeptAssociations(0.05)
    script = Answering()
    peer = raw_peer(script)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = studies(bench, tmp_path, 1)
    bench.perform(bench.export_task(study.study_instance_uid))
    wait_until(lambda: script.released == 1, what="the release")
    assert (bench.kept.idle, peer.connections) == (0, 1)
    assert len(bench.held(study.study_instance_uid)) == 3


def test_a_peer_that_limits_its_associations_is_left_after_each_task(
    keeping: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    script = Answering()
    peer = raw_peer(script)
    keeping.add(exporter(), remote_ae("STORESCP", peer.port, limit_open_associations=1))
    for number, study in enumerate(studies(keeping, tmp_path, 2), start=1):
        outcome = keeping.perform(keeping.export_task(study.study_instance_uid))
        assert outcome.status is TaskStatus.COMPLETED
        assert (peer.connections, script.released) == (number, number)
    assert keeping.kept.idle == 0


@pytest.mark.parametrize("answered", [3, 4])
def test_a_peer_that_closes_between_tasks_costs_no_failure(
    keeping: ExportBench, raw_peer: StartRawPeer, tmp_path: Path, answered: int
) -> None:
    first, second = studies(keeping, tmp_path, 2)

    def closing(connection: RawConnection) -> None:
        connection.accept()
        for message_id in range(1, answered + 1):
            connection.read_message()
            if message_id <= 3:
                connection.sock.sendall(store_response(message_id))

    peer = raw_peer(closing, Answering())
    keeping.add(exporter(), remote_ae("STORESCP", peer.port))
    for study in (first, second):
        outcome = keeping.perform(keeping.export_task(study.study_instance_uid))
        assert (outcome.status, outcome.message.count("failed")) == (TaskStatus.COMPLETED, 0)
        assert len(keeping.held(study.study_instance_uid)) == 3
    assert peer.connections == 2


def test_another_configuration_opens_another_association(
    keeping: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    old, new = raw_peer(Answering()), raw_peer(Answering())
    keeping.add(exporter(), remote_ae("STORESCP", old.port))
    first, second = studies(keeping, tmp_path, 2)
    keeping.perform(keeping.export_task(first.study_instance_uid))
    keeping.add(remote_ae("STORESCP", new.port))
    keeping.perform(keeping.export_task(second.study_instance_uid))
    assert (old.connections, new.connections) == (1, 1)


def test_an_association_that_was_cut_off_is_not_kept(
    keeping: ExportBench, raw_peer: StartRawPeer, tmp_path: Path
) -> None:
    def silent(connection: RawConnection) -> None:
        connection.accept()
        connection.read_message()
        keeping.stop_signal.stop(StopReason.CANCELED)
        keeping.stop_signal.abort()
        connection.hold()

    peer = raw_peer(silent)
    keeping.add(exporter(), remote_ae("STORESCP", peer.port))
    (study,) = studies(keeping, tmp_path, 1)
    outcome = keeping.perform(keeping.export_task(study.study_instance_uid))
    assert outcome.status is TaskStatus.CANCELED
    assert not keeping.kept.idle


def test_notifications_share_an_association(
    keeping: ExportBench, ian_scp: Callable[..., IanScp], tmp_path: Path
) -> None:
    receiver = ian_scp("IANSCP")
    keeping.add(local_ae(), remote_ae("IANSCP", receiver.port))
    details = IanDetails(("DCM4CHEE",), "ONLINE")
    for study in studies(keeping, tmp_path, 3):
        outcome = keeping.perform(keeping.ian_task(study.study_instance_uid, details))
        assert outcome.status is TaskStatus.COMPLETED
    assert keeping.kept.idle == 1
    assert len(receiver.wait_for(3)) == 3
