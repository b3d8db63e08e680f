"""The association as requestor: limits, contexts, shutting down, handing the socket over."""

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.association import Association as PeerAssociation
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event
from pynetdicom.sop_class import _STORAGE_CLASSES
from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.errors import (
    AssociationAbortedError,
    AssociationRejectedError,
    AssociationRejectedPermanentlyError,
    NoAcceptedContextError,
    PeerError,
    PeerUnreachableError,
)
from archive.model.commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    SopReference,
    request_dataset,
)
from archive.model.task import TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import ExportBench, exporter, remote_ae
from tests.fix_objects import bundled, encoded_dataset, secondary_capture, write
from tests.fix_peer import CommitmentScp, ReceivedRequest, StoreScp, report_on
from tests.fix_process import wait_until
from tests.fix_raw_peer import RawConnection, RawPeer, pdu, store_response
from workers.association import Association
from workers.contexts import ProposedContext
from workers.route import Route, TimeLimits
from workers.sending import StoreLoop, StoreRequest

StartStoreScp = Callable[..., StoreScp]
StartRawPeer = Callable[..., RawPeer]
VERIFICATION = "1.2.840.10008.1.1"
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
PROPOSED = (ProposedContext(CT, (EXPLICIT,)),)
LIMITS = TimeLimits(2.0, 1.0, 1.0, 1.0, 5.0, 1.0)


def _route(port: int, **changes: object) -> Route:
    route = Route("STORESCP", "DCM4CHEE", "STORESCP", "127.0.0.1", port, LIMITS)
    return dataclasses.replace(route, **changes)  # type: ignore[arg-type]


def _send(association: Association, count: int) -> list[int]:
    data = encoded_dataset(bundled("CT_small.dcm"))
    with association.exclusive_socket() as sock:
        loop = StoreLoop(association, sock)
        return [
            loop.send(StoreRequest(1, CT, f"1.2.{index}", len(data)), BytesIO(data)).status
            for index in range(count)
        ]


def test_socket_goes_back_and_forth(store_scp: StartStoreScp) -> None:
    peer = store_scp()
    threads = threading.active_count()
    with Association(_route(peer.port), PROPOSED) as association:
        assert _send(association, 2) == [0, 0]
        assert _send(association, 3) == [0, 0, 0]
    assert len(peer.received) == 5
    wait_until(lambda: threading.active_count() <= threads, what="the association's threads to end")


def test_rejection_is_read_however_fast_the_peer_hangs_up(dcmtk: Dcmtk) -> None:
    peer = dcmtk.storescp("--refuse")
    for _ in range(60):
        with (
            pytest.raises(AssociationRejectedPermanentlyError, match="no reason given"),
            Association(_route(peer.port), PROPOSED),
        ):
            pytest.fail("the association came about")


def test_release_reaches_the_peer(dcmtk: Dcmtk) -> None:
    peer = dcmtk.storescp("-v")
    with Association(_route(peer.port), PROPOSED) as association:
        _send(association, 1)
    log = peer.directory.with_suffix(".log")
    wait_until(lambda: "Association Release" in log.read_text(errors="replace"))
    assert "Abort" not in log.read_text(errors="replace")


def test_error_in_the_block_aborts(dcmtk: Dcmtk) -> None:
    peer = dcmtk.storescp("-v")
    with pytest.raises(ZeroDivisionError), Association(_route(peer.port), PROPOSED):
        raise ZeroDivisionError
    log = peer.directory.with_suffix(".log")
    wait_until(lambda: "Association Aborted" in log.read_text(errors="replace"))


def test_rejected_for_now(raw_peer: StartRawPeer) -> None:
    def script(connection: RawConnection) -> None:
        connection.read_pdu()
        connection.sock.sendall(pdu(3, bytes([0, 2, 3, 2])))

    peer = raw_peer(script)
    with (
        pytest.raises(AssociationRejectedError, match="for now: local limit exceeded"),
        Association(_route(peer.port), PROPOSED),
    ):
        pass


def test_no_context_accepted(store_scp: StartStoreScp) -> None:
    peer = store_scp(transfer_syntaxes=["1.2.840.10008.1.2"])
    with pytest.raises(NoAcceptedContextError), Association(_route(peer.port), PROPOSED):
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "no-such-host.invalid"}, "dicomHostname"),
        ({"bind_address": "192.0.2.1"}, "dcmClientBindAddress"),
    ],
)
def test_addresses_that_cannot_be_used(changes: dict[str, object], words: str) -> None:
    with pytest.raises(PeerUnreachableError, match=words):
        Association(_route(11112, **changes), PROPOSED)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full: a further one is never answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def test_connecting_is_limited_in_time(deaf_port: int) -> None:
    route = _route(deaf_port, limits=dataclasses.replace(LIMITS, connect_s=0.5))
    started = SYSTEM_CLOCK.monotonic()
    with pytest.raises(PeerUnreachableError, match="timed out"), Association(route, PROPOSED):
        pass
    assert SYSTEM_CLOCK.monotonic() - started < 3


def test_shutdown_breaks_connecting(deaf_port: int) -> None:
    association = Association(
        _route(deaf_port, limits=dataclasses.replace(LIMITS, connect_s=60.0)), PROPOSED
    )
    timer = threading.Timer(0.3, association.shutdown)
    timer.start()
    started = SYSTEM_CLOCK.monotonic()
    with pytest.raises(AssociationAbortedError, match="cut off on request"), association:
        pass
    assert SYSTEM_CLOCK.monotonic() - started < 5
    timer.join()


def test_shutdown_breaks_negotiating(raw_peer: StartRawPeer) -> None:
    peer = raw_peer(RawConnection.hold)
    limits = dataclasses.replace(LIMITS, accept_s=60.0)
    association = Association(_route(peer.port, limits=limits), PROPOSED)
    timer = threading.Timer(0.3, association.shutdown)
    timer.start()
    started = SYSTEM_CLOCK.monotonic()
    with pytest.raises(AssociationAbortedError, match="cut off on request"), association:
        pass
    assert SYSTEM_CLOCK.monotonic() - started < 5
    timer.join()


@pytest.mark.parametrize("max_pdu", [16, 130, 4096, 16384, 0])
def test_pdus_obey_the_peers_limit(raw_peer: StartRawPeer, max_pdu: int) -> None:
    lengths: list[int] = []
    datasets: list[bytes] = []

    def script(connection: RawConnection) -> None:
        connection.max_pdu = max_pdu
        connection.accept()
        bodies = connection.read_message()
        lengths.extend(len(body) for body in bodies)
        datasets.append(b"".join(body[6:] for body in bodies if not body[5] & 1))
        connection.sock.sendall(store_response(1))
        connection.hold()

    peer = raw_peer(script)
    with Association(_route(peer.port), PROPOSED) as association:
        assert _send(association, 1) == [0]
    assert datasets == [encoded_dataset(bundled("CT_small.dcm"))]
    assert max(lengths) <= (max_pdu or 16378)
    assert all(length % 2 == 0 for length in lengths)


def test_message_ids_start_again_after_the_last(store_scp: StartStoreScp) -> None:
    seen: list[int] = []

    def status(event: Event) -> int:
        seen.append(event.message_id)
        return 0

    peer = store_scp(status=status)
    data = encoded_dataset(bundled("CT_small.dcm"))
    with (
        Association(_route(peer.port), PROPOSED) as association,
        association.exclusive_socket() as sock,
    ):
        loop = StoreLoop(association, sock)
        loop._message_id = 0xFFFE  # noqa: SLF001
        for _ in range(2):
            loop.send(StoreRequest(1, CT, "1.2.3", len(data)), BytesIO(data))
    assert seen == [0xFFFF, 1]


def test_peer_that_left_before_the_first_request(raw_peer: StartRawPeer) -> None:
    left = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.accept()
        connection.sock.close()
        left.set()

    peer = raw_peer(script)
    association = Association(_route(peer.port), PROPOSED)
    with contextlib.ExitStack() as stack:
        stack.enter_context(association)
        left.wait(5)
        with pytest.raises(PeerError, match="closed the connection"):
            _send(association, 1)


def test_more_than_128_contexts_take_several_associations(
    bench: ExportBench, store_scp: StartStoreScp, tmp_path: Path
) -> None:
    contexts: dict[int, int] = {}

    def status(event: Event) -> int:
        requestor = event.assoc.requestor
        contexts[requestor.port] = len(requestor.primitive.presentation_context_definition_list)
        return 0

    peer = store_scp(status=status)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    classes = sorted(set(_STORAGE_CLASSES.values()))[:150]
    for index, sop_class in enumerate(classes):
        dataset = secondary_capture("1.2.3", 1, index)
        dataset.SOPClassUID = sop_class
        bench.store(write(dataset, tmp_path / f"{index}.dcm"))
    outcome = bench.perform(bench.export_task("1.2.3"))
    assert outcome.status is TaskStatus.COMPLETED
    assert len(peer.received) == 150
    assert sorted(contexts.values()) == [44, 128, 128]


class LatePause(threading.Event):
    """A pause of the reactor that it passes, and is then held up until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.is_armed = False
        self.passed, self.go_on = threading.Event(), threading.Event()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        result = super().wait(timeout)
        if self.is_armed and not self.passed.is_set():
            self.passed.set()
            self.go_on.wait()
        return result


def test_the_reactor_takes_no_response_that_a_request_waits_for(store_scp: StartStoreScp) -> None:
    route = dataclasses.replace(_route(store_scp().port), limits=TimeLimits(response_s=5.0))
    association = Association(route, [ProposedContext(VERIFICATION, (EXPLICIT,))])
    requestor = association._requestor  # noqa: SLF001 - the race is within pynetdicom
    requestor._reactor_checkpoint = pause = LatePause()  # noqa: SLF001
    send = requestor.dimse.send_msg
    looked = threading.Event()
    look = requestor.dul.idle_timer_expired  # what the reactor does after it looked for a message

    def note_look() -> bool:
        looked.set()
        return look()

    def send_and_let_the_reactor_look_first(*message: Any) -> None:  # noqa: ANN401 - pynetdicom's
        send(*message)
        wait_until(lambda: not requestor.dimse.msg_queue.empty(), what="the response")
        requestor.dul.idle_timer_expired = note_look  # type: ignore[method-assign]
        pause.go_on.set()
        assert looked.wait(10)

    requestor.dimse.send_msg = send_and_let_the_reactor_look_first  # type: ignore[assignment]
    with association:
        pause.is_armed = True
        assert pause.passed.wait(10)
        assert association.echo() == 0


def test_an_association_is_not_released_before_a_report_has_its_response(
    commitment_scp: Callable[..., CommitmentScp],
) -> None:
    answers: list[int | None] = []
    entered = threading.Event()

    def report(association: PeerAssociation, request: ReceivedRequest) -> None:
        answers.append(report_on(association, request.report()))

    def take(_information: Dataset) -> int:
        entered.set()
        return 0x0000

    peer = commitment_scp(then=report)
    proposal = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, (EXPLICIT,))
    association = Association(_route(peer.port, called_aet=peer.title), [proposal])
    association.on_event_report(take)
    requestor = association._requestor  # noqa: SLF001 - the race is within pynetdicom
    send = requestor.dimse.send_msg

    def send_late(primitive: Any, context_id: int) -> None:  # noqa: ANN401 - pynetdicom's
        if isinstance(primitive, N_EVENT_REPORT):
            with contextlib.suppress(TimeoutError):  # what must not come about
                wait_until(lambda: requestor._sent_release, deadline_s=0.5)  # noqa: SLF001
        send(primitive, context_id)

    requestor.dimse.send_msg = send_late  # type: ignore[method-assign]
    information = request_dataset("1.2.3", [SopReference(CT, "1.2.4")])
    with association:
        answer = association.action(
            STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE, 1, dataset=information
        )
        assert answer.status == 0x0000
        assert entered.wait(10)
    wait_until(lambda: answers, what="the response to the report, or its time-out")
    assert answers == [0x0000]
