"""Data sets of commitment written and read as bytes, beside what pydicom makes of them."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom.dsutils import decode, encode

from archive.model.commitment import (
    Report,
    ReportedInstance,
    SopReference,
    read_report,
    read_request,
    report_dataset,
    request_dataset,
)
from archive.model.commitment_encoding import (
    EXPLICIT_VR_LE,
    IMPLICIT_VR_LE,
    UnusualEncodingError,
    decode_elements,
    encoded_report,
    encoded_request,
)

SYNTAXES = [IMPLICIT_VR_LE, EXPLICIT_VR_LE]
uids = st.integers(1, 10**30).map("1.2.{}".format)
references = st.lists(st.builds(SopReference, uids, uids), min_size=1, max_size=5)
reported = st.builds(
    ReportedInstance,
    uids,
    uids,
    st.sampled_from([None, 0x0110, 0x0112, 0x0213]),
    st.sampled_from([None, "A", "LONGTITLE"]),
)


def _bytes(dataset: Dataset, syntax: str) -> bytes:
    encoded = encode(dataset, syntax == IMPLICIT_VR_LE, True)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(uid=uids, asked=references)
def test_request_is_what_pydicom_writes(syntax: str, uid: str, asked: list[SopReference]) -> None:
    quick = _bytes(encoded_request(uid, asked, syntax), syntax)
    plain = _bytes(request_dataset(uid, asked), syntax)
    assert decode(BytesIO(quick), syntax == IMPLICIT_VR_LE, True) == decode(
        BytesIO(plain), syntax == IMPLICIT_VR_LE, True
    )
    for data in (quick, plain):
        assert read_request(decode_elements(data, syntax)) == (uid, tuple(asked))


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(
    uid=uids,
    instances=st.lists(reported, min_size=1, max_size=6, unique_by=lambda r: r.sop_instance_uid),
)
def test_report_is_what_pydicom_writes(
    syntax: str, uid: str, instances: list[ReportedInstance]
) -> None:
    report = Report(uid, tuple(instances))
    quick = _bytes(encoded_report(report, syntax), syntax)
    plain = _bytes(report_dataset(report), syntax)
    read = [read_report(decode_elements(data, syntax)) for data in (quick, plain)]
    slow = read_report(decode(BytesIO(plain), syntax == IMPLICIT_VR_LE, True))
    assert read[0] == read[1] == slow
    assert read[0].failures == report.failures


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_undefined_lengths(syntax: str) -> None:
    dataset = request_dataset("1.2", [SopReference("1.3", "1.4"), SopReference("1.5", "1.6")])
    dataset["ReferencedSOPSequence"].is_undefined_length = True
    for item in dataset.ReferencedSOPSequence:
        item.is_undefined_length_sequence_item = True
    data = _bytes(dataset, syntax)
    assert b"\xfe\xff\xdd\xe0" in data
    assert [each.sop_instance_uid for each in read_request(decode_elements(data, syntax))[1]] == [
        "1.4",
        "1.6",
    ]


@given(st.binary(max_size=200))
def test_hostile_bytes_are_left_to_pydicom(data: bytes) -> None:
    for syntax in SYNTAXES:
        try:
            elements = decode_elements(data, syntax)
        except UnusualEncodingError:
            continue
        assert elements.get("TransactionUID", None) is None or b"\x08\x00\x95\x11" in data
        assert elements.get("ReferencedSOPSequence", None) is None or b"\x08\x00\x99\x11" in data


def test_other_syntaxes_are_left_to_pydicom() -> None:
    with pytest.raises(UnusualEncodingError):
        decode_elements(b"", "1.2.840.10008.1.2.2")
