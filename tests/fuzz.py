"""Mutated PDUs against the receiving side: ``python -m tests.fuzz [--mutations N] [--seed S]``.

`fuzz_decoding` reads mutated C-STOREs from a socket with the code that a running SCP uses, in this
process: whatever comes, each ends with the object, or with one of the errors that abort the
association or refuse the object, within bounded memory. `fuzz_server` sends mutations to a running
SCP and holds every answer against what `fuzz_decoding` made of the same bytes, while another
association goes on storing objects.
"""

import argparse
import contextlib
import random
import resource
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from typing_extensions import override

from archive.clock import SYSTEM_CLOCK
from archive.errors import AssociationAbortedError, DatasetError, PeerError
from scp.dimse import C_STORE_RQ, StoreRequest, store_request
from scp.header import INDEXED_TAGS, read_header
from scp.header_reader import HeaderReader
from scp.messages import Assembly, Step
from scp.pdus import PduType, ProtocolError, encode_command, encode_fragment, iter_fragments
from scp.statuses import StoreStatus, status_of
from scp.store import check_request
from scp.stream import PduStream
from tests.fix_scp import EXPLICIT, SECONDARY_CAPTURE, RawPeer, small_dataset, store_command

MAX_LENGTH = 16384
GROWTH_BYTES = 64 << 20
_LENGTHS = (0, 1, 2, 5, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_CONTEXT = 1
_READER = HeaderReader(INDEXED_TAGS)
"""Has read all mutations before, most of which resemble each other."""


class Aborted(Enum):
    """The end of an association that did not lead to an answer."""

    VIOLATION = "violation"
    ENDED = "ended"
    OTHER = "other message"


Outcome = StoreStatus | Aborted


@dataclass(frozen=True)
class Mutation:
    """Bytes to send on an association, and the object they were made of."""

    number: int
    uid: str
    data: bytes


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """Yield mutated C-STOREs, the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - has to be repeatable
    for number in range(count):
        uid = f"1.2.3.{seed}.{number}"
        yield Mutation(number, uid, _mutated(chance, uid))


def _mutated(chance: random.Random, uid: str) -> bytes:
    command = bytearray(store_command(1, SECONDARY_CAPTURE, uid))
    dataset = bytearray(small_dataset(uid, pixels=64))
    target = chance.randrange(4)
    if target == 0:
        _damage(chance, command)
    elif target == 1:
        _damage(chance, dataset)
    pieces = [encode_command(_CONTEXT, bytes(command))]
    step = chance.choice((16, 100, 4096))
    for start in range(0, len(dataset) or 1, step):
        is_last = start + step >= len(dataset)
        piece = bytes(dataset[start : start + step])
        pieces.append(encode_fragment(_CONTEXT, piece, control=2 if is_last else 0))
    if target == 2:
        _shuffle(chance, pieces)
    data = bytearray(b"".join(pieces))
    if target == 3:
        _damage(chance, data)
    return bytes(data)


def _damage(chance: random.Random, data: bytearray) -> None:
    """Change some bytes, lengths or spans."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + 4] = struct.pack(chance.choice("<>") + "L", chance.choice(_LENGTHS))
            case 2:
                del data[at : at + chance.randint(1, 64)]
            case 3:
                data[at:at] = chance.randbytes(chance.randint(1, 64))
            case _:
                data[at:at] = data[at : at + chance.randint(1, 64)]


def _shuffle(chance: random.Random, pieces: list[bytes]) -> None:
    """Drop, repeat or exchange PDUs."""
    at = chance.randrange(len(pieces))
    match chance.randrange(3):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[at])
        case _:
            pieces.append(pieces.pop(at))


# --- decoding ------------------------------------------------------------------------------------


class _LocalSocket(socket.socket):
    """One end of a socket pair, which has no options of TCP; much cheaper than a connection."""

    @override
    def setsockopt(self, level: int, *options: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *options)


def outcomes_of(data: bytes) -> list[Outcome]:
    """Return what an SCP has to make of `data` on an association that ends with it.

    Reads with the parts of a running SCP.

    Raises
    ------
    Exception
        Any other than those that stand for an outcome: a defect.
    """
    sender, other = socket.socketpair()
    with sender, _LocalSocket(fileno=other.detach()) as receiver:
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        stream = PduStream(receiver, max_length=MAX_LENGTH, timeout_s=5.0)
        found: list[Outcome] = []
        try:
            _collect(stream, found)
        except AssociationAbortedError:
            found.append(Aborted.ENDED)
        except _OtherMessageError:
            found.append(Aborted.OTHER)
        except PeerError:
            found.append(Aborted.VIOLATION)
        return found


class _OtherMessageError(Exception):
    """The mutation is another message than a C-STORE, or no message."""


def _collect(stream: PduStream, found: list[Outcome]) -> None:
    """Add the statuses of the objects that arrive, up to the end of the association."""
    assembly, received = Assembly(), bytearray()
    while True:
        pdu_type, length = stream.peek_header()
        if pdu_type is not PduType.P_DATA_TF:
            raise _OtherMessageError
        for fragment in iter_fragments(stream.take_body(length)):
            if fragment.context_id != _CONTEXT:
                msg = "context not accepted"
                raise ProtocolError(msg)
            step = assembly.take(fragment)
            if step is Step.COMMAND:
                _request(assembly)
                received.clear()
            elif step is not Step.COMMAND_PART:
                received += fragment.data
            if step is not Step.COMMAND_PART and assembly.is_idle:
                found.append(_status(_request(assembly), bytes(received)))


def _request(assembly: Assembly) -> StoreRequest:
    assert assembly.command is not None
    if assembly.command.command_field != C_STORE_RQ:
        raise _OtherMessageError
    return store_request(assembly.command, _CONTEXT)


def _status(request: StoreRequest, data: bytes) -> StoreStatus:
    """Return the status for one object."""

    def reading(start: int, size: int) -> bytes:
        return data[start : start + size]

    try:
        check_request(request, SECONDARY_CAPTURE)
        header = read_header(reading, len(data), EXPLICIT, INDEXED_TAGS)
        attributes = header.attributes(request, EXPLICIT)
        assert header.attributes_like(attributes, request, EXPLICIT) == attributes
    except DatasetError as error:
        return status_of(error)
    assert _READER.read(reading, len(data), EXPLICIT).elements == header.elements
    return StoreStatus.SUCCESS


def fuzz_decoding(seed: int, count: int) -> Counter[Outcome]:
    """Decode mutations and return how often each outcome came.

    Raises
    ------
    AssertionError
        When one leads to anything but an outcome, or memory grows.
    """
    found: Counter[Outcome] = Counter()
    before = _peak_bytes()
    for mutation in mutations(seed, count):
        try:
            found.update(outcomes_of(mutation.data))
        except Exception as error:
            msg = f"seed {seed}, mutation {mutation.number}: {mutation.data.hex()}"
            raise AssertionError(msg) from error
    grown = _peak_bytes() - before
    assert grown < GROWTH_BYTES, f"memory grew by {grown} bytes"
    return found


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- a running SCP -------------------------------------------------------------------------------


def fuzz_server(port: int, seed: int, count: int) -> Counter[Outcome]:
    """Send mutations to the SCP on `port`, each on an association of its own.

    Every other one of these has stored an object before, so that its lane receives for it
    (`scp.lane`). Another association stores an unharmed object after each hundred of them.

    Raises
    ------
    AssertionError
        When an answer is not the one that `outcomes_of` tells.
    """
    found: Counter[Outcome] = Counter()
    with RawPeer(port) as witness:
        witness.associate()
        for mutation in mutations(seed, count):
            expected = outcomes_of(mutation.data)
            found.update(expected)
            _hold_against(port, mutation, expected)
            if mutation.number % 100 == 0:
                uid = f"1.2.4.{seed}.{mutation.number}"
                assert witness.store(uid, small_dataset(uid)).status == StoreStatus.SUCCESS
        witness.release()
    return found


def _hold_against(port: int, mutation: Mutation, expected: list[Outcome]) -> None:
    """Send a mutation and compare the statuses of the answers up to the association's end."""
    wanted = [each for each in expected if isinstance(each, StoreStatus)]
    got: list[int] = []
    with RawPeer(port) as peer:
        peer.associate({_CONTEXT: (SECONDARY_CAPTURE, [EXPLICIT])})
        if mutation.number % 2:
            uid = f"{mutation.uid}.1"
            assert peer.store(uid, small_dataset(uid)).status == StoreStatus.SUCCESS
        with contextlib.suppress(ConnectionError):
            peer.send(mutation.data)
            peer.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while len(got) < MAX_LENGTH:
                got.append(peer.reply().status)
    ends_well = Aborted.VIOLATION not in expected and Aborted.OTHER not in expected
    # An abort may overtake the answers before it: the system discards what was not read.
    is_as_expected = got == wanted if ends_well else got == wanted[: len(got)]
    if Aborted.OTHER not in expected:
        message = f"mutation {mutation.number}: {got} instead of {wanted}: {mutation.data.hex()}"
        assert is_as_expected, message


def main() -> None:
    """Fuzz the decoding, as long as it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201 - to repeat it
    began = SYSTEM_CLOCK.monotonic()
    found = fuzz_decoding(options.seed, options.mutations)
    for outcome, number in found.most_common():
        print(f"{number:9} {outcome.name}")  # noqa: T201 - the result
    print(f"{SYSTEM_CLOCK.monotonic() - began:.0f} s")  # noqa: T201 - the same


if __name__ == "__main__":
    main()
