"""The objects of the demonstration: files that pydicom bundles, as four studies of their own.

They get new UIDs, so that the demonstration can be repeated; nothing else changes, and
compressed pixel data stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

STUDIES: dict[str, tuple[str, ...]] = {
    "CT": ("CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"),
    "MR": (
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ),
    "US": ("examples_palette.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm"),
    "OT": ("SC_rgb_small_odd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm"),
}


@dataclass(frozen=True)
class DemoObject:
    """A file to be stored and what its header says."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class DemoStudy:
    """A study to be stored."""

    modality: str
    study_instance_uid: str
    objects: tuple[DemoObject, ...]


def write_studies(directory: Path) -> list[DemoStudy]:
    """Write the studies below `directory` and return them."""
    return [_write_study(directory, *item) for item in STUDIES.items()]


def _write_study(directory: Path, modality: str, names: Sequence[str]) -> DemoStudy:
    study_uid, series_uid = generate_uid(None), generate_uid(None)
    objects = []
    for name in names:
        bundled = get_testdata_file(name, download=False)
        if bundled is None:
            msg = f"this pydicom does not bundle {name}"
            raise FileNotFoundError(msg)
        dataset = dcmread(str(bundled))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
        dataset.SOPInstanceUID = generate_uid(None)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = directory / f"{modality}-{name}"
        dataset.save_as(path)
        objects.append(
            DemoObject(
                path,
                str(dataset.SOPClassUID),
                str(dataset.SOPInstanceUID),
                str(dataset.file_meta.TransferSyntaxUID),
            )
        )
    return DemoStudy(modality, str(study_uid), tuple(objects))
