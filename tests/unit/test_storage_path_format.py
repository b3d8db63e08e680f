from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidValueError
from archive.model.entities import ObjectAttributes
from archive.storage.marks import claim_name, final_path_of
from archive.storage.path_format import (
    DEFAULT_PATH_FORMAT,
    PathFormat,
    check_path,
    java_string_hash,
    with_random_name,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OBJECT = ObjectAttributes(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3",
    study_instance_uid="1.2.4",
    series_instance_uid="1.2.5",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient_id="../../P 1",
    modality="CT",
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", "00000000"), ("a", "00000061"), ("hello", "05E918D2"), ("1.2.3", "02C82A3A")],
)
def test_java_hash(text: str, wanted: str) -> None:
    assert java_string_hash(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (DEFAULT_PATH_FORMAT, "2026/01/02/02C82A3B/02C82A3C/02C82A3A"),
        ("{now,date,yyyy-MM-dd/HHmmss}/{00080018}", "2026-01-02/030405/1.2.3"),
        ("in/{0020000d,hash}/{00080018,upper}.dcm", "in/02C82A3B/1.2.3.dcm"),
        ("{00080060}/{00100020}/{00080018}", "CT/_.._P_1/1.2.3"),
        ("{00100020,urlencoded}/{00080018}", "%2F..%2FP%201/1.2.3"),
        ("{00200010}/{00080018}", "_/1.2.3"),
        ("{0020000D,md5}", "08b3d4e36caf0fd8570aee1dc4acb64e"),
    ],
)
def test_formats(text: str, wanted: str) -> None:
    assert PathFormat.parse(text).expand(OBJECT, NOW) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{", "{}", "{now}", "{now,date,QQQ}", "{00081111}", "{00080018,rot13}", "a{b"],
)
def test_impossible_formats(text: str) -> None:
    with pytest.raises(InvalidValueError):
        PathFormat.parse(text)


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "a/../b", ".", "..", ".incoming/x", "a b", "a\0b", "ä"]
)
def test_paths_that_could_escape(path: str) -> None:
    with pytest.raises(InvalidValueError):
        check_path(path)


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_value_escapes(patient_id: str, study: str) -> None:
    hostile = ObjectAttributes("1.2", "1.3", study, "1.5", "1.6", patient_id=patient_id)
    parsed = PathFormat.parse("{00100020}/{00100020,urlencoded}/{0020000D}/{00080018}")
    try:
        path = parsed.expand(hostile, NOW)
    except InvalidValueError:
        return
    assert check_path(path) == path
    assert ".." not in path.split("/")


def test_claims_tell_their_path() -> None:
    path = "2026/01/02/02C82A3B/02C82A3C/02C82A3A"
    assert final_path_of(claim_name("77-ab", path)) == path
    assert final_path_of("77-ab") is None
    assert final_path_of("77-ab@..%2F..%2Fetc") is None
    assert with_random_name(path).rpartition("/")[0] == path.rpartition("/")[0]
    assert "/" not in with_random_name("x")
