"""Validated identifiers: UIDs (PS3.5 §9.1) and application entity titles (PS3.5 §6.2)."""

import re
import uuid

from archive.errors import InvalidValueError

UID_MAX_LENGTH = 64
AE_TITLE_MAX_LENGTH = 16

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_UID_LENIENT = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]+")


def check_uid(value: str, name: str = "UID") -> str:
    """Return `value` without trailing padding if it is a usable UID.

    Components with leading zeros are met in real archives and are let through; anything that
    is not digits and dots, is empty or longer than 64 characters is not.

    Parameters
    ----------
    value
        The UID as received, possibly padded with a NUL or blanks (PS3.5 §9.1).
    name
        Element keyword for the error text.

    Raises
    ------
    InvalidValueError
        When the value is empty, too long or holds other characters than digits and dots.
    """
    uid = value.rstrip("\0 ")
    if not uid or len(uid) > UID_MAX_LENGTH or not _UID_LENIENT.fullmatch(uid):
        msg = f"{name} {value[:80]!r} is not a UID (1-64 digits and dots, PS3.5 §9.1)"
        raise InvalidValueError(msg)
    return uid


def is_strict_uid(value: str) -> bool:
    """Tell whether `value` obeys every rule of PS3.5 §9.1, leading zeros included."""
    return len(value) <= UID_MAX_LENGTH and _UID.fullmatch(value) is not None


def check_ae_title(value: str, name: str = "AE title") -> str:
    """Return `value` without surrounding blanks if it is an AE title (PS3.5 §6.2, VR AE).

    Raises
    ------
    InvalidValueError
        When it is blank, longer than 16 characters, or has control characters or a backslash.
    """
    title = value.strip(" ")
    if not title or len(title) > AE_TITLE_MAX_LENGTH or not _AE_TITLE.fullmatch(title):
        msg = f"{name} {value[:40]!r} is not an AE title (1-16 printable characters, PS3.5 §6.2)"
        raise InvalidValueError(msg)
    return title


def new_uid() -> str:
    """Return a UID derived from a random UUID (PS3.5 §B.2)."""
    return f"2.25.{uuid.uuid4().int}"
