"""File preamble and file meta information of stored objects (PS3.10 §7.1)."""

import struct
from dataclasses import dataclass

IMPLEMENTATION_CLASS_UID = "2.25.300416182229874911127733604137561839127"
IMPLEMENTATION_VERSION_NAME = "DICOMQ_01"

_PREAMBLE = bytes(128) + b"DICM"


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the file meta information of an object says."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_aet: str = ""


def encode_file_header(meta: FileMeta) -> bytes:
    """Return preamble, prefix and file meta information, Explicit VR Little Endian.

    The data set of the object follows right after these bytes.
    """
    elements = [
        _long_element(0x0001, b"OB", b"\x00\x01"),
        _uid_element(0x0002, meta.sop_class_uid),
        _uid_element(0x0003, meta.sop_instance_uid),
        _uid_element(0x0010, meta.transfer_syntax_uid),
        _uid_element(0x0012, IMPLEMENTATION_CLASS_UID),
        _short_element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
    ]
    if meta.source_aet:
        elements.append(_short_element(0x0016, b"AE", _padded(meta.source_aet, b" ")))
    group = b"".join(elements)
    return _PREAMBLE + _short_element(0x0000, b"UL", struct.pack("<L", len(group))) + group


def _uid_element(element: int, uid: str) -> bytes:
    return _short_element(element, b"UI", _padded(uid, b"\0"))


def _padded(text: str, pad: bytes) -> bytes:
    """Return `text` in ASCII with an even number of bytes (PS3.5 §6.2)."""
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value


def _short_element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _long_element(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2s2xL", 0x0002, element, vr, len(value)) + value
