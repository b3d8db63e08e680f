"""Whose connection a balancer passes on: the PROXY protocol, version 2, before anything else.

Only the balancers that DICOMQ_PROXIES names are believed; what anybody else sends is read as DICOM
or TLS, of which neither begins with the protocol's signature.
"""

import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PeerAddress = tuple[str, int] | tuple[str, int, int, int]

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = struct.Struct(">12sBBH")
_LONGEST: Final = 4096
_TIMEOUT_S: Final = 2.0
_VERSION: Final = 2
_PROXY: Final = 1
_IPV4: Final = 1
_IPV6: Final = 2


def is_proxy(address: str, proxies: Sequence[Network]) -> bool:
    """Tell whether a connection comes from a balancer that is believed."""
    return bool(proxies) and any(ipaddress.ip_address(address) in each for each in proxies)


def original_address(connection: socket.socket, address: PeerAddress) -> PeerAddress:
    """Take the header off a balancer's connection and return whose connection it is.

    Parameters
    ----------
    connection
        A connection of a balancer. Its header is there as soon as the kernel hands it out; one
        that says nothing has none, and nobody waits for it.
    address
        Of the balancer; it holds when there is no header, or one for the balancer's own checks.

    Raises
    ------
    ConnectionAbortedError
        When the header is broken or does not come.
    """
    try:
        start = connection.recv(len(SIGNATURE), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return address
    if not start or not SIGNATURE.startswith(start):
        return address
    connection.settimeout(_TIMEOUT_S)
    try:
        _, version_command, family, length = _FIXED.unpack(_exactly(connection, _FIXED.size))
        if version_command >> 4 != _VERSION or length > _LONGEST:
            msg = f"a PROXY header of version {version_command >> 4} and {length} bytes"
            raise ConnectionAbortedError(msg)
        body = _exactly(connection, length)
    except TimeoutError as error:
        msg = f"the PROXY header did not come within {_TIMEOUT_S:g} s"
        raise ConnectionAbortedError(msg) from error
    finally:
        connection.settimeout(None)
    if version_command & 0x0F != _PROXY:
        return address
    return source_address(family >> 4, body) or address


def source_address(family: int, body: bytes) -> PeerAddress | None:
    """Return the source address of a header's body; None for families that are no addresses."""
    if family == _IPV4 and len(body) >= struct.calcsize(">4s4sHH"):
        source, _, port, _ = struct.unpack_from(">4s4sHH", body)
        return str(ipaddress.IPv4Address(source)), port
    if family == _IPV6 and len(body) >= struct.calcsize(">16s16sHH"):
        source, _, port, _ = struct.unpack_from(">16s16sHH", body)
        return str(ipaddress.IPv6Address(source)), port, 0, 0
    return None


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            msg = "hung up inside a PROXY header"
            raise ConnectionAbortedError(msg)
        data += piece
    return data
