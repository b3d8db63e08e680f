"""dcmStoragePathFormat: from the attributes of an object to a path below a storage's root.

Pure. No value of an object becomes a path part unchecked: a UID must be a UID, any other text is
reduced to letters, digits, dot, hyphen and underscore, and the result is checked as a whole.
"""

import hashlib
import re
import secrets
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Final

from archive.errors import InvalidValueError
from archive.model.entities import ObjectAttributes
from archive.model.identifiers import check_uid

DEFAULT_PATH_FORMAT: Final = "{now,date,yyyy/MM/dd}/{0020000D,hash}/{0020000E,hash}/{00080018,hash}"

_PIECE = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SAFE_PART = re.compile(r"(?!\.)[A-Za-z0-9._%+-]{1,128}")
_SAFE_PATH = re.compile(rf"{_SAFE_PART.pattern}(?:/{_SAFE_PART.pattern})*")

_FIELDS: Final[dict[str, str]] = {
    "00080016": "sop_class_uid",
    "00080018": "sop_instance_uid",
    "00080020": "study_date",
    "00080050": "accession_number",
    "00080060": "modality",
    "00100020": "patient_id",
    "00100021": "issuer_of_patient_id",
    "0020000D": "study_instance_uid",
    "0020000E": "series_instance_uid",
    "00200010": "study_id",
    "00200011": "series_number",
    "00200013": "instance_number",
}
_UID_FIELDS: Final = frozenset({"00080016", "00080018", "0020000D", "0020000E"})
_JAVA_DATE: Final = {
    "yyyy": "{0.year:04}",
    "yy": "{0:%y}",
    "MM": "{0.month:02}",
    "dd": "{0.day:02}",
    "HH": "{0.hour:02}",
    "mm": "{0.minute:02}",
    "ss": "{0.second:02}",
}
_JAVA_TOKEN = re.compile(r"yyyy|yy|MM|dd|HH|mm|ss|[A-Za-z]+|[^A-Za-z]+")


def java_string_hash(text: str) -> str:
    """Return the 32-bit hash of ``java.lang.String`` as 8 upper-case hexadecimal digits."""
    # UIDs of one series begin alike.
    beginning, dot, end = text.rpartition(".")
    return f"{_hashed(end, _hash_of_beginning(beginning + dot)):08X}"


@lru_cache(maxsize=1024)
def _hash_of_beginning(text: str) -> int:
    return _hashed(text, 0)


def _hashed(text: str, value: int) -> int:
    """Return the hash of what has the hash `value`, and `text` after it."""
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return value


@dataclass(frozen=True, slots=True)
class PathFormat:
    """A parsed dcmStoragePathFormat: literal text and pieces, in order."""

    pieces: tuple[Callable[[ObjectAttributes, datetime], str], ...]

    @classmethod
    def parse(cls, text: str) -> "PathFormat":
        """Parse a format such as ``{now,date,yyyy/MM/dd}/{0020000D,hash}/{00080018}``.

        Raises
        ------
        InvalidValueError
            When a piece is unknown or its parameters are.
        """
        pieces: list[Callable[[ObjectAttributes, datetime], str]] = []
        position = 0
        for match in _PIECE.finditer(text):
            if match.start() > position:
                pieces.append(_literal(text[position : match.start()]))
            pieces.append(_piece(match.group(1), text))
            position = match.end()
        if position < len(text):
            pieces.append(_literal(text[position:]))
        if position == 0 or "{" in _PIECE.sub("", text):
            msg = f"dcmStoragePathFormat {text!r} has no balanced {{...}} piece"
            raise InvalidValueError(msg)
        return cls(tuple(pieces))

    def expand(self, attributes: ObjectAttributes, now: datetime) -> str:
        """Return the path for an object received at `now`.

        Raises
        ------
        InvalidValueError
            When a UID is not a UID or the result is not a path below the root.
        """
        path = "".join([piece(attributes, now) for piece in self.pieces])
        return check_path(path)


def check_path(path: str) -> str:
    """Return `path` if every part of it is harmless below a root.

    Raises
    ------
    InvalidValueError
        When a part is empty, too long, ``.`` or ``..``, starts with a dot or has other characters.
    """
    if _SAFE_PATH.fullmatch(path):
        return path
    unusable = next(part for part in path.split("/") if not _SAFE_PART.fullmatch(part))
    msg = f"storage path {path[:200]!r} has the unusable part {unusable[:80]!r}"
    raise InvalidValueError(msg)


def with_random_name(path: str) -> str:
    """Return `path` with another last element of 8 random hexadecimal digits (RANDOM_PATH)."""
    directory, _, _ = path.rpartition("/")
    name = secrets.token_hex(4).upper()
    return f"{directory}/{name}" if directory else name


def _literal(text: str) -> Callable[[ObjectAttributes, datetime], str]:
    return lambda _attributes, _now: text


def _piece(piece: str, text: str) -> Callable[[ObjectAttributes, datetime], str]:
    key, _, parameters = piece.partition(",")
    if key == "now" and parameters.startswith("date,"):
        dated = _date_pattern(parameters.removeprefix("date,"), text).format
        return lambda _attributes, now: dated(now)
    if key == "rnd":
        return lambda _attributes, _now: secrets.token_hex(4).upper()
    convert = _CONVERSIONS.get(parameters)
    tag = key.upper()
    if tag not in _FIELDS or convert is None:
        msg = f"dcmStoragePathFormat {text!r}: {{{piece}}} is not supported"
        raise InvalidValueError(msg)
    name = _FIELDS[tag]
    value_of = attrgetter(name)
    if tag not in _UID_FIELDS:
        return lambda attributes, _now: convert(value_of(attributes) or "")

    def converted(uid: str) -> str:
        return convert(check_uid(uid, name))

    # The other ones are the same for all objects of a series.
    of_uid = converted if name == "sop_instance_uid" else lru_cache(maxsize=128)(converted)
    return lambda attributes, _now: of_uid(value_of(attributes))


def _date_pattern(java: str, text: str) -> str:
    tokens = _JAVA_TOKEN.findall(java)
    unknown = [token for token in tokens if token[:1].isalpha() and token not in _JAVA_DATE]
    if unknown:
        msg = f"dcmStoragePathFormat {text!r}: date letters {unknown[0]!r} are not supported"
        raise InvalidValueError(msg)
    return "".join(_JAVA_DATE.get(token, token) for token in tokens)


def _cleaned(value: str) -> str:
    return _UNSAFE.sub("_", value).lstrip(".") or "_"


def _md5(value: str) -> str:
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()


def _quoted(value: str) -> str:
    return urllib.parse.quote(value, safe="").lstrip(".") or "_"


_CONVERSIONS: Final[dict[str, Callable[[str], str]]] = {
    "": _cleaned,
    "hash": java_string_hash,
    "md5": _md5,
    "urlencoded": _quoted,
    "upper": lambda value: _cleaned(value).upper(),
}
