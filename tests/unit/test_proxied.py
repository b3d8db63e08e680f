import ipaddress
import socket
import struct

import pytest

from archive.clock import SYSTEM_CLOCK
from scp.proxied import SIGNATURE, PeerAddress, is_proxy, original_address

BALANCER = ("10.0.0.5", 40000)
REQUEST = b"\x01\x00\x00\x00\x00\xd0"
IPV4 = ipaddress.ip_address("192.0.2.7").packed + bytes(4) + struct.pack(">HH", 5000, 11112)
IPV6 = ipaddress.ip_address("2001:db8::7").packed + bytes(16) + struct.pack(">HH", 5000, 11112)
EXTENSION = b"\x04\x00\x03\x00\x00\x00"


def header(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def read(data: bytes) -> tuple[PeerAddress, bytes]:
    """Return the address that was found and what is left for the association."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        return original_address(near, BALANCER), near.recv(100)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (header(0x21, 0x11, IPV4), ("192.0.2.7", 5000)),
        (header(0x21, 0x11, IPV4 + EXTENSION), ("192.0.2.7", 5000)),
        (header(0x21, 0x21, IPV6), ("2001:db8::7", 5000, 0, 0)),
        # the balancer's own check, and a family without addresses
        (header(0x20, 0x00, b""), BALANCER),
        (header(0x21, 0x00, b"anything"), BALANCER),
        (header(0x21, 0x11, b"short"), BALANCER),
        # no header
        (b"", BALANCER),
    ],
)
def test_the_address_of_the_peer(start: bytes, expected: PeerAddress) -> None:
    assert read(start + REQUEST) == (expected, REQUEST)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(0x11, 0x11, IPV4), "version 1"),
        (SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 5000), "5000 bytes"),
        (header(0x21, 0x11, IPV4)[:-1], "hung up"),
        (SIGNATURE[:5], "hung up"),
    ],
)
def test_a_broken_header_ends_the_connection(data: bytes, words: str) -> None:
    with pytest.raises(ConnectionAbortedError, match=words):
        read(data)


def test_only_named_networks_are_believed() -> None:
    networks = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert is_proxy("10.0.0.5", networks)
    assert is_proxy("fd00::1", networks)
    assert not is_proxy("192.0.2.7", networks)
    assert not is_proxy("10.0.0.5", ())


def test_nobody_waits_for_who_says_nothing() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
        began = SYSTEM_CLOCK.monotonic()
        assert original_address(near, BALANCER) == BALANCER
        assert SYSTEM_CLOCK.monotonic() - began < 4
