import struct
import warnings
import zlib
from io import BytesIO
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_charset_files
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from archive.errors import DatasetError
from archive.model.entities import ObjectAttributes
from scp.dimse import StoreRequest
from scp.header import Header, read_header
from scp.statuses import RefusedObjectError, StoreStatus
from tests.fix_objects import bundled, encoded_dataset

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
CT = "1.2.840.10008.5.1.4.1.1.2"
REQUEST = StoreRequest(1, 1, CT, "1.2.3")


def sample(*, undefined_length: bool = False) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = "1.2.3"
    dataset.StudyDate = "20260102"
    dataset.Modality = "CT"
    dataset.PatientName = "Bäcker^Jörg"
    dataset.PatientID = "P1"
    dataset.StudyInstanceUID = "1.2.4"
    dataset.SeriesInstanceUID = "1.2.5"
    dataset.Rows, dataset.Columns = 512, 256
    dataset.NumberOfFrames = 3
    step = Dataset()
    step.ScheduledProcedureStepID = "SPS1"
    step.is_undefined_length_sequence_item = undefined_length
    dataset.RequestAttributesSequence = Sequence([step, step])
    dataset["RequestAttributesSequence"].is_undefined_length = undefined_length
    dataset.BitsAllocated = 8
    dataset.PixelData = bytes(4096)
    dataset["PixelData"].VR = "OB"
    return dataset


def encoded(dataset: Dataset, syntax: str) -> bytes:
    """Return the data set as it would travel, without file meta information."""
    buffer = BytesIO()
    deflated = syntax == DeflatedExplicitVRLittleEndian
    dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    raw = buffer.getvalue()
    if deflated:
        packer = zlib.compressobj(wbits=-15)
        raw = packer.compress(raw) + packer.flush()
    return raw


def header_of(raw: bytes, syntax: str) -> Header:
    return read_header(lambda start, size: raw[start : start + size], len(raw), syntax)


@pytest.mark.parametrize(("syntax", "undefined"), list(product(SYNTAXES, [False, True])))
def test_every_encoding(syntax: str, undefined: bool) -> None:
    raw = encoded(sample(undefined_length=undefined), syntax)
    header = header_of(raw, syntax)
    found = header.attributes(REQUEST, syntax)
    assert found.patient_name == "Bäcker^Jörg"
    assert (found.study_instance_uid, found.series_instance_uid) == ("1.2.4", "1.2.5")
    assert (found.rows, found.columns, found.number_of_frames) == (512, 256, "3")
    assert found.study_description is None
    dataset = header.dataset()
    assert "PixelData" not in dataset
    assert dataset.RequestAttributesSequence[1].ScheduledProcedureStepID == "SPS1"
    assert str(dataset.PatientName) == "Bäcker^Jörg"


def attributes_or_none(raw: bytes, syntax: str) -> ObjectAttributes | None:
    """Return the attributes that an encoded data set has, or None when it is refused."""
    try:
        return header_of(raw, syntax).attributes(REQUEST, syntax)
    except DatasetError:
        return None


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_cut_is_noticed(syntax: str) -> None:
    whole = sample()
    raw = encoded(whole, syntax)
    ends = {len(encoded(whole[: each.tag], syntax)) for each in whole}
    if syntax == DeflatedExplicitVRLittleEndian:
        ends = set()
    passed = [
        length
        for length in set(range(len(raw) - 1)) - ends
        if attributes_or_none(raw[:length], syntax) is not None
    ]
    assert passed == [], f"cut after so many of {len(raw)} bytes, yet taken for a whole object"


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
def test_any_bytes_give_a_header_or_a_dataset_error(raw: bytes, syntax: str) -> None:
    found = attributes_or_none(raw, syntax)
    assert found is None or found.sop_instance_uid == REQUEST.sop_instance_uid


@settings(max_examples=300)
@given(st.integers(0, 700), st.integers(0, 255), st.sampled_from(SYNTAXES))
def test_a_changed_byte_never_crashes(position: int, byte: int, syntax: str) -> None:
    raw = bytearray(encoded(sample(undefined_length=True), syntax))
    raw[position % len(raw)] = byte
    found = attributes_or_none(bytes(raw), syntax)
    if found is not None:
        assert found.sop_instance_uid == REQUEST.sop_instance_uid
        assert isinstance(header_of(bytes(raw), syntax).dataset(), Dataset)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StudyInstanceUID", None),
        ("SeriesInstanceUID", None),
        ("StudyInstanceUID", ""),
        ("SOPInstanceUID", "1.2.9"),
        ("SOPClassUID", "1.2.9"),
    ],
)
def test_uids_that_do_not_fit(name: str, value: str | None) -> None:
    dataset = sample()
    if value is None:
        del dataset[name]
    else:
        setattr(dataset, name, value)
    header = header_of(encoded(dataset, ExplicitVRLittleEndian), ExplicitVRLittleEndian)
    with pytest.raises(RefusedObjectError) as caught:
        header.attributes(REQUEST, ExplicitVRLittleEndian)
    assert caught.value.status is StoreStatus.DATA_SET_MISMATCH


CHARSET_FILES = sorted(
    path
    for path in get_charset_files("*.dcm")
    if "chrSQ" not in path and "chrKoreanMulti" not in path
)


@pytest.mark.parametrize("path", CHARSET_FILES, ids=lambda path: Path(path).stem)
def test_character_sets(path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path)
        wanted = str(dataset.PatientName).strip()
    raw, syntax = encoded_dataset(Path(path)), str(dataset.file_meta.TransferSyntaxUID)
    request = StoreRequest(1, 1, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    found = header_of(raw, syntax).attributes(request, syntax).patient_name
    assert found is not None
    assert found.rstrip("=") == wanted  # pydicom leaves empty component groups out


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtplan.dcm"]
)
def test_bundled_objects(name: str) -> None:
    path = bundled(name)
    dataset = dcmread(path, stop_before_pixels=True)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    request = StoreRequest(1, 1, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    header = header_of(encoded_dataset(path), syntax)
    found = header.attributes(request, syntax)
    assert found.study_instance_uid == dataset.StudyInstanceUID
    for each in header.dataset():
        assert each.tag in dataset


def test_only_the_beginning_of_a_large_object_is_read() -> None:
    raw = encoded(sample(), ExplicitVRLittleEndian)
    huge = raw[:-4100] + struct.pack("<L", 1 << 30)
    read = 0

    def reading(start: int, size: int) -> bytes:
        nonlocal read
        read += size
        return huge[start : start + size]

    read_header(reading, len(huge) + (1 << 30), ExplicitVRLittleEndian)
    assert read <= 65536


def test_a_value_too_long_to_keep_is_skipped() -> None:
    dataset = sample()
    dataset.add_new(0x00091010, "OB", bytes(1 << 20))
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    header = header_of(encoded(dataset, ExplicitVRLittleEndian), ExplicitVRLittleEndian)
    assert 0x00091010 not in header.dataset()
    assert header.attributes(REQUEST, ExplicitVRLittleEndian).rows == 512


def test_a_deflated_bomb_stays_small() -> None:
    head = encoded(sample(), ExplicitVRLittleEndian)[:-4096]
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(64))
    bomb += packer.flush()
    header = header_of(bomb, DeflatedExplicitVRLittleEndian)
    assert header.attributes(REQUEST, DeflatedExplicitVRLittleEndian).patient_id == "P1"


@pytest.mark.parametrize("step", [0, 1])
def test_a_flood_of_tiny_elements_is_refused(step: int) -> None:
    flood = b"".join(
        struct.pack("<HH2sH", 0x0009 + (number * step >> 16), number * step & 0xFFFF, b"LO", 0)
        for number in range(1_100_000)
    )
    with pytest.raises(DatasetError, match="more than"):
        header_of(flood, ExplicitVRLittleEndian)
