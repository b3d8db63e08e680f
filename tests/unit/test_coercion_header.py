"""Headers of stored objects with some of their elements rewritten."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.filereader import read_dataset

from archive.errors import DatasetError
from archive.model.encoded_header import EncodedHeader, IncompleteHeaderError
from tests.fix_objects import bundled, encoded_dataset

FILES = [
    *("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "JPEG2000.dcm", "rtdose.dcm"),
    *("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "reportsi.dcm", "nested_priv_SQ.dcm"),
]


def parsed(name: str) -> tuple[EncodedHeader, bytes, bool, bool]:
    path = bundled(name)
    syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    data = encoded_dataset(path)
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    header = EncodedHeader(data, is_implicit=implicit, is_little_endian=little, is_whole=True)
    return header, data, implicit, little


@pytest.mark.parametrize("name", FILES)
def test_nothing_changed_is_nothing_rewritten(name: str) -> None:
    header, data, _, _ = parsed(name)
    assert header.splice(header.dataset(), set()) == data[: header.end]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("value", ["Changed^Name", "Änderung^Ä", "山田^太郎"])
def test_changed_text_arrives_and_the_rest_stays(name: str, value: str) -> None:
    header, data, implicit, little = parsed(name)
    dataset = header.dataset()
    dataset.PatientName = value
    dataset.PatientComments = "added"
    encoded = header.splice(dataset, {0x00100010, 0x00104000})
    whole = encoded + data[header.end :]
    read = read_dataset(io.BytesIO(whole), implicit, little)
    assert str(read.PatientName) == value
    assert read.PatientComments == "added"
    original = dcmread(bundled(name))
    for element in original:
        if element.keyword not in {"PatientName", "PatientComments", "SpecificCharacterSet"}:
            assert read[element.tag] == element, element


def test_removed_elements_are_gone() -> None:
    header, _, _, _ = parsed("CT_small.dcm")
    dataset = header.dataset()
    del dataset.PatientID
    read = read_dataset(io.BytesIO(header.splice(dataset, {0x00100020})), False, True)
    assert "PatientID" not in read
    assert "PatientName" in read


@given(st.integers(min_value=0, max_value=6000))
def test_a_header_that_is_cut_off_asks_for_more(length: int) -> None:
    data = encoded_dataset(bundled("CT_small.dcm"))
    end = parsed("CT_small.dcm")[0].end
    try:
        header = EncodedHeader(
            data[:length], is_implicit=False, is_little_endian=True, is_whole=False
        )
    except IncompleteHeaderError:
        assert length < end + 12
    else:
        assert header.end == end


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for implicit in (True, False):
        try:
            header = EncodedHeader(data, is_implicit=implicit, is_little_endian=True, is_whole=True)
        except DatasetError:
            continue
        assert header.splice(Dataset(), set()) == data[: header.end]


def test_what_cannot_be_encoded_is_an_error() -> None:
    header, _, _, _ = parsed("CT_small.dcm")
    dataset = header.dataset()
    dataset[0x00280010] = DataElement(0x00280010, "US", 70000)
    with pytest.raises(DatasetError):
        header.splice(dataset, {0x00280010})
