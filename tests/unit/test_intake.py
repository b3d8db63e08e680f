"""Taking the messages of an association without waiting for its peer."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from archive.storage.syncs import Syncs
from scp.dimse import StoreAnswer, StoreRequest, decode_command
from scp.intake import Intake, Progress
from scp.pdus import Fragment, encode_command, encode_fragment
from scp.stream import PduStream
from tests.fix_scp import SECONDARY_CAPTURE, small_dataset, store_command

SOP = "1.2.3.4"
ECHO = b"".join(
    struct.pack("<HHLH", 0, element, 2, value)
    for element, value in ((0x100, 0x30), (0x110, 1), (0x800, 0x101))
)


class Kept:
    """Keeps an object in memory."""

    is_long = is_finished = False
    is_for_lane = True

    def __init__(self) -> None:
        self.data = b""
        self.abandoned = ""

    def write(self, fragment: memoryview) -> None:
        self.data += fragment

    def prepare(self) -> bool:
        return True

    def begin_sync(self, syncs: Syncs) -> None:
        raise AssertionError(syncs)

    def tidy(self) -> None:
        raise AssertionError

    def finish(self) -> StoreAnswer:
        return StoreAnswer(0)

    def abandon(self, reason: str) -> None:
        self.abandoned = reason


class Ours:
    """An association's side of an intake."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.objects: list[Kept] = []
        self.commands: list[int] = []

    def begin_object(self, request: StoreRequest) -> Kept:
        assert request.sop_instance_uid == SOP
        self.objects.append(Kept())
        return self.objects[-1]

    def pass_command(self, context_id: int, command_field: int, encoded: bytes) -> None:
        assert (context_id, decode_command(encoded).command_field) == (1, command_field)
        self.commands.append(command_field)

    def pass_data(self, fragment: Fragment, *, is_last: bool) -> None:
        raise AssertionError(fragment, is_last)

    def send(self, pdu: bytes) -> None:
        self._socket.sendall(pdu)

    def heard(self) -> None:
        """Nothing counts the time."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The connected sockets of a peer and of ours."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with peer, ours:
        yield peer, ours


@pytest.fixture
def ours(ends: tuple[socket.socket, socket.socket]) -> Ours:
    return Ours(ends[1])


@pytest.fixture
def intake(ends: tuple[socket.socket, socket.socket], ours: Ours) -> Intake:
    stream = PduStream(ends[1], max_length=16384, timeout_s=5)
    return Intake(stream, ends[1], {1: None}, ours)


def message(dataset: bytes) -> bytes:
    command = encode_command(1, store_command(7, SECONDARY_CAPTURE, SOP))
    return command + encode_fragment(1, dataset, control=2)


def advanced(intake: Intake, peer: socket.socket, data: bytes) -> Progress:
    """Send bytes, wait until they have come, and let the intake go on."""
    peer.sendall(data)
    intake_socket = intake._socket  # noqa: SLF001 - to know when all has come
    while len(intake_socket.recv(len(data), socket.MSG_PEEK)) < len(data):
        pass
    return intake.advance()


def test_pieces_are_taken_as_they_come(
    ends: tuple[socket.socket, socket.socket], ours: Ours, intake: Intake
) -> None:
    dataset = small_dataset(SOP)
    data = message(dataset)
    assert intake.advance() is Progress.WAITS
    assert not intake.is_midway
    assert advanced(intake, ends[0], data[:3]) is Progress.WAITS
    assert intake.is_midway
    assert advanced(intake, ends[0], data[3:-1]) is Progress.WAITS
    assert intake.is_receiving
    assert advanced(intake, ends[0], data[-1:]) is Progress.COMPLETE
    assert intake.respond()
    assert not intake.has_left_over
    assert not intake.is_midway
    assert [each.data for each in ours.objects] == [dataset]
    assert decode_command(ends[0].recv(1000)[12:]).command_field == 0x8001


def test_an_answer_that_the_peer_does_not_take_is_left_over(
    ends: tuple[socket.socket, socket.socket], intake: Intake
) -> None:
    peer, sock = ends
    assert advanced(intake, peer, message(b"")) is Progress.COMPLETE
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += sock.send(bytes(65536), socket.MSG_DONTWAIT)
    assert not intake.respond()
    assert intake.has_left_over
    peer.settimeout(5)
    while filled > 65536:
        filled -= len(peer.recv(min(filled, 65536)))
    intake.go_on()
    assert not intake.has_left_over
    rest = b""
    while len(rest) < filled + 6 or len(rest) < filled + 6 + rest[filled + 5]:
        rest += peer.recv(1000)
    assert decode_command(rest[filled + 12 :]).command_field == 0x8001


def test_another_message_is_left_over(
    ends: tuple[socket.socket, socket.socket], ours: Ours, intake: Intake
) -> None:
    assert advanced(intake, ends[0], encode_command(1, ECHO)) is Progress.ELSEWHERE
    assert intake.has_left_over
    assert ours.commands == []
    intake.go_on()
    assert ours.commands == [0x30]
    assert not intake.has_left_over


def test_the_end_inside_an_object_is_left_over(
    ends: tuple[socket.socket, socket.socket], ours: Ours, intake: Intake
) -> None:
    assert advanced(intake, ends[0], message(small_dataset(SOP))[:-1]) is Progress.WAITS
    ends[0].close()
    assert intake.advance() is Progress.ELSEWHERE
    assert intake.has_left_over
    intake.abandon("the association ended")
    assert ours.objects[0].abandoned
    assert not intake.is_receiving
