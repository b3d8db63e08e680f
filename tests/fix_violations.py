"""What a peer may do wrong inside a data set."""

import struct

from scp.pdus import PduType, encode_command, encode_fragment
from tests.fix_scp import (
    SECONDARY_CAPTURE,
    STORAGE_CONTEXTS,
    RawPeer,
    associate_request,
    small_dataset,
    store_command,
)

SOP = "1.2.3.4.1.7"
COMMAND = encode_command(1, store_command(9, SECONDARY_CAPTURE, SOP))
PIECE = encode_fragment(1, small_dataset(SOP), control=0)
VIOLATIONS: dict[str, bytes] = {
    "unknown PDU type": struct.pack(">BxL", 0x42, 4) + b"junk",
    "oversized PDU": struct.pack(">BxL", 4, 0x7FFFFFFF) + b"x" * 100,
    "PDU of 4 GiB": struct.pack(">BxL", 4, 0xFFFFFFFF) + b"x" * 100,
    "A-ABORT of a megabyte": struct.pack(">BxL", 7, 1 << 20) + b"x" * 100,
    "empty P-DATA-TF": struct.pack(">BxL", 4, 0),
    "fragment longer than its PDU": struct.pack(">BxLLBB", 4, 10, 5000, 1, 0) + b"xxxx",
    "fragment without room for a header": struct.pack(">BxLL", 4, 4, 0),
    "context that was not accepted": encode_fragment(77, b"abc", control=0),
    "command inside the data set": COMMAND,
    "fragment of another context": encode_fragment(3, b"abc", control=0),
    "A-ASSOCIATE-RQ inside": associate_request(STORAGE_CONTEXTS, "RAWPEER", "DCM4CHEE"),
    "release inside": struct.pack(">BxLL", PduType.A_RELEASE_RQ, 4, 0),
}


def assert_aborted(peer: RawPeer) -> None:
    """Expect an A-ABORT and the end of the connection."""
    assert peer.receive()[0] in {PduType.A_ABORT, 0}
    assert peer.receive()[0] == 0
