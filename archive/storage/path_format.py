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
from typing import Final

from archive.errors import InvalidValueError
from archive.model.entities import ObjectAttributes
from archive.model.identifiers import check_uid

DEFAULT_PATH_FORMAT: Final = "{now,date,yyyy/MM/dd}/{0020000D,hash}/{0020000E,hash}/{00080018,hash}"

_PIECE = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SAFE_PART = re.compile(r"[A-Za-z0-9._%+-]{1,128}")

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
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
}
_JAVA_TOKEN = re.compile(r"yyyy|yy|MM|dd|HH|mm|ss|[A-Za-z]+|[^A-Za-z]+")


@lru_cache(maxsize=1024)
def java_string_hash(text: str) -> str:
    """Return the 32-bit hash of ``java.lang.String`` as 8 upper-case hexadecimal digits."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return f"{value:08X}"


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
        path = "".join(piece(attributes, now) for piece in self.pieces)
        return check_path(path)


def check_path(path: str) -> str:
    """Return `path` if every part of it is harmless below a root.

    Raises
    ------
    InvalidValueError
        When a part is empty, too long, ``.`` or ``..``, starts with a dot or has other characters.
    """
    for part in path.split("/"):
        if part.startswith(".") or not _SAFE_PART.fullmatch(part):
            msg = f"storage path {path[:200]!r} has the unusable part {part[:80]!r}"
            raise InvalidValueError(msg)
    return path


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
        pattern = _date_pattern(parameters.removeprefix("date,"), text)
        return lambda _attributes, now: now.strftime(pattern)
    if key == "rnd":
        return lambda _attributes, _now: secrets.token_hex(4).upper()
    convert = _CONVERSIONS.get(parameters)
    if key.upper() not in _FIELDS or convert is None:
        msg = f"dcmStoragePathFormat {text!r}: {{{piece}}} is not supported"
        raise InvalidValueError(msg)
    return lambda attributes, _now: convert(_value(attributes, key.upper()))


def _value(attributes: ObjectAttributes, tag: str) -> str:
    name = _FIELDS[tag]
    value = str(getattr(attributes, name) or "")
    return check_uid(value, name) if tag in _UID_FIELDS else value


def _date_pattern(java: str, text: str) -> str:
    tokens = _JAVA_TOKEN.findall(java)
    unknown = [token for token in tokens if token[:1].isalpha() and token not in _JAVA_DATE]
    if unknown:
        msg = f"dcmStoragePathFormat {text!r}: date letters {unknown[0]!r} are not supported"
        raise InvalidValueError(msg)
    return "".join(_JAVA_DATE.get(token, token.replace("%", "%%")) for token in tokens)


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
