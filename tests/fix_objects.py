"""DICOM objects for tests: pydicom's bundled files and small generated ones."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.data import get_testdata_file
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from archive.storage.marks import INCOMING

BUNDLED = ("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm", "JPEG2000.dcm")


@dataclass(frozen=True)
class Study:
    """A generated study and where its files lie, by SOP Instance UID."""

    study_instance_uid: str
    files: dict[str, Path]


def stored_files(root: Path) -> list[Path]:
    """Return every file on a storage, in-doubt and temporary ones included.

    Marks that mark nothing, which are kept to be used again, are left out.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [path for path in files if not is_idle_mark(path)]


def is_idle_mark(path: Path) -> bool:
    """Tell whether a file on a storage is a mark that marks nothing."""
    return path.parent.name == INCOMING and "@" not in path.name and not path.stat().st_size


def bundled(name: str) -> Path:
    """Return the path of one of the files that pydicom brings along."""
    found = get_testdata_file(name, download=False)
    if found is None:
        msg = f"pydicom does not bundle {name}"
        raise FileNotFoundError(msg)
    return Path(found)


def secondary_capture(study_uid: str, series: int, number: int, *, size: int = 16) -> Dataset:
    """Return a small Secondary Capture image, different from every other of its study."""
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = f"{study_uid}.{series}.{number}"
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = f"{study_uid}.{series}"
    dataset.PatientID = f"P{study_uid.rsplit('.', 1)[-1]}"
    dataset.PatientName = "Test^Object"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyDate = dt.date(2026, 1, 2).strftime("%Y%m%d")
    dataset.StudyTime = "101112"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = series
    dataset.InstanceNumber = number
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = size
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes((series * 31 + number + i) % 256 for i in range(size * size))
    return dataset


def write(dataset: Dataset, path: Path, transfer_syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a DICOM file and return its path."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def generate_studies(
    directory: Path,
    *,
    studies: int,
    series: int = 1,
    instances: int = 1,
    root: str = "1.2.826.0.1.9",
) -> list[Study]:
    """Write `studies` × `series` × `instances` small objects and return them by study."""
    generated = []
    for index in range(1, studies + 1):
        uid = f"{root}.{index}"
        files = {
            dataset.SOPInstanceUID: write(dataset, directory / f"{dataset.SOPInstanceUID}.dcm")
            for dataset in _objects(uid, series, instances)
        }
        generated.append(Study(uid, files))
    return generated


def _objects(study_uid: str, series: int, instances: int) -> Iterator[Dataset]:
    for series_number in range(1, series + 1):
        for number in range(1, instances + 1):
            yield secondary_capture(study_uid, series_number, number)


def encoded_dataset(path: Path) -> bytes:
    """Return the encoded data set of a DICOM file: what follows the file meta information."""
    raw = path.read_bytes()
    if raw[128:132] != b"DICM" or raw[132:136] != b"\x02\x00\x00\x00":
        msg = f"{path} does not start with a group length of the file meta information"
        raise ValueError(msg)
    length = int.from_bytes(raw[140:144], "little")
    return raw[144 + length :]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A generated study with one object."""
    return generate_studies(tmp_path / "objects", studies=1)[0]
