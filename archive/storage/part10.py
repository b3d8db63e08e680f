"""File preamble and file meta information of stored objects (PS3.10 §7.1)."""

import struct
from functools import lru_cache
from typing import NamedTuple

IMPLEMENTATION_CLASS_UID = "2.25.300416182229874911127733604137561839127"
IMPLEMENTATION_VERSION_NAME = "DICOMQ_01"

_PREAMBLE = bytes(128) + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_GROUP_LENGTH = struct.Struct("<HH2sHL")


class FileMeta(NamedTuple):
    """What the file meta information of an object says."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_aet: str = ""


def encode_file_header(meta: FileMeta) -> bytes:
    """Return preamble, prefix and file meta information, Explicit VR Little Endian.

    The data set of the object follows right after these bytes.
    """
    before = _before(meta.sop_class_uid)
    own = _uid_element(0x0003, meta.sop_instance_uid)
    after = _after(meta.transfer_syntax_uid, meta.source_aet)
    length = len(before) + len(own) + len(after)
    group_length = _GROUP_LENGTH.pack(0x0002, 0x0000, b"UL", 4, length)
    return b"".join((_PREAMBLE, group_length, before, own, after))


@lru_cache(maxsize=256)
def _before(sop_class_uid: str) -> bytes:
    """Return the elements between group length and SOP Instance UID."""
    version = struct.pack("<HH2s2xL", 0x0002, 0x0001, b"OB", 2) + b"\x00\x01"
    return version + _uid_element(0x0002, sop_class_uid)


@lru_cache(maxsize=256)
def _after(transfer_syntax_uid: str, source_aet: str) -> bytes:
    """Return the elements after the SOP Instance UID."""
    elements = [
        _uid_element(0x0010, transfer_syntax_uid),
        _uid_element(0x0012, IMPLEMENTATION_CLASS_UID),
        _short_element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
    ]
    if source_aet:
        elements.append(_short_element(0x0016, b"AE", _padded(source_aet, b" ")))
    return b"".join(elements)


def _uid_element(element: int, uid: str) -> bytes:
    return _short_element(element, b"UI", _padded(uid, b"\0"))


def _padded(text: str, pad: bytes) -> bytes:
    """Return `text` in ASCII with an even number of bytes (PS3.5 §6.2)."""
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value


def _short_element(element: int, vr: bytes, value: bytes) -> bytes:
    return _SHORT.pack(0x0002, element, vr, len(value)) + value
