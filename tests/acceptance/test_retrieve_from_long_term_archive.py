"""The procedure "Retrieve from Long Term Archive", with the LDIF and the tools as printed there."""

from pathlib import Path

from tests.fix_objects import generate_studies
from tests.fix_retrieve import Counters, Retrieval

LDIF = """\
version: 1
dn: dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
changetype: modify
add: dcmExternalRetrieveAEDestination
dcmExternalRetrieveAEDestination: DCM4CHEE
-
"""


def import_printed_ldif(retrieval: Retrieval, ldif: Path) -> None:
    """Import the record of the page and return when every process has read it."""
    ldif.write_text(LDIF)
    imported = retrieval.celery("config", "import", str(ldif))
    assert imported.returncode == 0, imported.stdout
    retrieval.system.configure()


def test_purged_study_is_fetched_and_delivered(retrieval: Retrieval, tmp_path: Path) -> None:
    """Objects that were deleted here come from the other archive, through here, to STORESCP."""
    # storescp -b STORESCP:11115, and the long term archive with the study in it
    destination = retrieval.dcmtk.storescp()
    retrieval.place("STORESCP", destination.port)
    archive = retrieval.qrscp()
    (study,) = generate_studies(tmp_path / "study", studies=1, series=3, instances=5)
    archive.store(list(study.files.values()))
    # the study was here once; its objects have been deleted
    retrieval.store(study)
    purged = retrieval.purge(study, "QRSCP")
    assert purged.returncode == 0, purged.stdout
    assert not list((retrieval.system.directory / "fs1").rglob("1.2.*"))
    refused = retrieval.purge(study, None)
    assert refused.returncode == 0, refused.stdout  # nothing left to lose

    import_printed_ldif(retrieval, tmp_path / "external-retrieve.ldif")
    # movescu -c DCM4CHEE@localhost:11112 -m StudyInstanceUID=... --dest STORESCP
    moved = retrieval.study(study)
    assert moved.exit_status == 0, moved.output
    assert moved.status == 0x0000, moved.output + retrieval.system.explain()
    assert moved.counters == Counters(remaining=None, completed=15, failed=0, warning=0)
    assert sorted(destination.received()) == sorted(study.files)
    for uid, path in destination.received().items():
        sent = study.files[uid].read_bytes()
        assert path.read_bytes()[-200:] == sent[-200:]
    assert "C-STORE" in archive.process.output() or "Store" in archive.process.output()
    # they stay here as well, and the next C-MOVE needs nobody else
    archive.process.kill()
    assert retrieval.study(study).status == 0x0000


def test_purging_what_nobody_else_holds_is_refused(retrieval: Retrieval, tmp_path: Path) -> None:
    (study,) = generate_studies(tmp_path / "study", studies=1, instances=2)
    retrieval.store(study)
    refused = retrieval.purge(study, None)
    assert refused.returncode == 2, refused.stdout
    assert "2 of its objects are not known to be held by another archive" in refused.stdout
    unknown = retrieval.purge(study, "NOWHERE")
    assert unknown.returncode == 2
    assert "no AE NOWHERE" in unknown.stdout
    destination = retrieval.dcmtk.storescp()
    retrieval.place("STORESCP", destination.port)
    assert retrieval.study(study).counters == Counters(None, 2, 0, 0)
