"""Objects whose stored transfer syntax the destination does not take."""

import os
import signal
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.data import get_charset_files
from pydicom.uid import UID

from archive.model.task import Failure, TaskStatus
from tests.fix_dcmtk import Dcmtk
from tests.fix_export import EXPLICIT, IMPLICIT, ExportBench, exporter, remote_ae
from tests.fix_objects import bundled, write
from tests.fix_peer import StoreScp
from workers.transcoding import Transcoder, TranscodingError, convert

COMPRESSED = [
    "JPEG2000.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "image_dfl.dcm",
    "MR_small_bigendian.dcm",
    "rtdose_expb.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
]


def _decoded(encoded: bytes, syntax: str) -> Dataset:
    dataset = dcmread(BytesIO(encoded), force=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("name", COMPRESSED)
def test_same_pixels_in_native_syntax(name: str, syntax: str, tmp_path: Path) -> None:
    source = dcmread(bundled(name))
    target = tmp_path / "native"
    convert(bundled(name), target, syntax)
    native = _decoded(target.read_bytes(), syntax)
    assert (native.pixel_array == source.pixel_array).all()
    assert native.SOPInstanceUID == source.SOPInstanceUID
    expected = {e.tag for e in source if e.keyword != "DataSetTrailingPadding" and e.tag.element}
    assert {element.tag for element in native} >= expected


@pytest.mark.parametrize("path", get_charset_files("*.dcm"), ids=lambda p: Path(p).stem)
def test_text_of_every_character_set_stays(path: str, tmp_path: Path) -> None:
    source = dcmread(path)
    target = tmp_path / "native"
    convert(Path(path), target, IMPLICIT)
    native = _decoded(target.read_bytes(), IMPLICIT)
    assert native.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
    assert native.get("PatientName") == source.get("PatientName")


@pytest.mark.parametrize(("option", "syntax"), [("+xi", IMPLICIT), ("+x=", EXPLICIT)])
def test_compressed_study_reaches_a_native_destination(
    bench: ExportBench, dcmtk: Dcmtk, option: str, syntax: str
) -> None:
    peer = dcmtk.storescp(option)
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    bench.store(bundled("JPEG2000.dcm"))
    study = str(dcmread(bundled("JPEG2000.dcm"), stop_before_pixels=True).StudyInstanceUID)
    outcome = bench.perform(bench.export_task(study))
    assert outcome.status is TaskStatus.COMPLETED
    (received,) = peer.wait_for(1).values()
    assert dcmread(received).file_meta.TransferSyntaxUID == syntax
    pixels = dcmread(bundled("JPEG2000.dcm")).pixel_array
    assert (dcmread(received).pixel_array == pixels).all()


def test_only_what_cannot_be_decoded_fails(
    bench: ExportBench, store_scp: Callable[..., StoreScp], tmp_path: Path
) -> None:
    peer = store_scp(transfer_syntaxes=[EXPLICIT])
    bench.add(exporter(), remote_ae("STORESCP", peer.port))
    good = dcmread(bundled("MR_small_RLE.dcm"))
    damaged = dcmread(bundled("MR_small_RLE.dcm"))
    damaged.SOPInstanceUID = UID("1.2.3.4")
    damaged.PixelData = damaged.PixelData[:20] + b"\xff" * 40 + damaged.PixelData[60:]
    for dataset in (damaged, good):
        path = tmp_path / f"{dataset.SOPInstanceUID}.dcm"
        bench.store(write(dataset, path, dataset.file_meta.TransferSyntaxUID))
    task = bench.export_task(str(good.StudyInstanceUID))
    outcome = bench.perform(task)
    assert (outcome.status, outcome.failure) == (TaskStatus.WARNING, Failure.PERMANENT)
    assert peer.received_uids() == [good.SOPInstanceUID]
    delivered, status, message = bench.results(task)["1.2.3.4"]
    assert (delivered, status) == (False, None)
    assert "cannot be transcoded to Explicit VR Little Endian" in message


def test_decoder_that_dies_costs_one_object_only(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Transcoder() as transcoder:
        first = transcoder.transcode(bundled("MR_small_RLE.dcm"), EXPLICIT)
        assert first.stat().st_size > 8192
        child = transcoder.child_pid
        assert child is not None
        os.kill(child, signal.SIGKILL)
        with pytest.raises(TranscodingError, match="decoder crashed"):
            transcoder.transcode(bundled("MR_small_RLE.dcm"), EXPLICIT)
        second = transcoder.transcode(bundled("MR_small_RLE.dcm"), EXPLICIT)
        assert second.read_bytes() == first.read_bytes()
        assert transcoder.child_pid != child


def test_decoder_that_never_ends_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"  # opening it for reading blocks for ever
    os.mkfifo(fifo)
    with Transcoder(time_limit_s=1.0) as transcoder:
        with pytest.raises(TranscodingError, match="not decoded within 1 s"):
            transcoder.transcode(fifo, EXPLICIT)
        assert transcoder.transcode(bundled("MR_small_RLE.dcm"), EXPLICIT).exists()


def test_nothing_is_left_behind() -> None:
    with Transcoder() as transcoder:
        result = transcoder.transcode(bundled("MR_small_RLE.dcm"), EXPLICIT)
        assert result.parent.exists()
    assert not result.parent.exists()
