"""Objects that are coerced when they are received, and what is sent of them later."""

from pathlib import Path

from pydicom import dcmread

from tests.fix_dcmtk import Dcmtk
from tests.fix_leading import LeadingArchive
from tests.fix_objects import generate_studies, stored_files, write
from tests.fix_query import STUDY_ROOT, Querier
from tests.fix_system import ARCHIVE, System


def rule(name: str, *lines: str, role: str = "SCU", dimse: str = "C_STORE_RQ") -> str:
    """Return a record that adds a coercion rule of the newer form."""
    head = [f"dn: cn={name},{ARCHIVE}", "changetype: add"]
    head += ["objectClass: dcmArchiveAttributeCoercion2", f"cn: {name}"]
    return "\n".join([*head, f"dcmDIMSE: {dimse}", f"dicomTransferRole: {role}", *lines, ""])


def _find(system: System, **keys: str) -> list[str]:
    answer = Querier(system.port).find(STUDY_ROOT, "STUDY", **{"PatientName": "", **keys})
    return answer.values("PatientName")


def _start(system: System, *names: str) -> None:
    for name in names:
        system.start(name)


def test_the_index_is_coerced_and_the_file_is_not(
    idle_system: System, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    storescp = dcmtk.storescp()
    idle_system.configure(
        rule(
            "Coerce",
            "dcmURI: merge-attrs:",
            "dcmMergeAttribute: PatientName=Coerced^{PatientID}",
            "dcmMergeAttribute: StudyID=",
            "dcmMergeAttribute: ConversionType!",
        )
    )
    idle_system.export_to(storescp.port)
    _start(idle_system, "scp-0", "dispatcher", "export")
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    idle_system.store_all(study.files)
    assert _find(idle_system, PatientName="coerced*") == ["Coerced^P1"]
    (received,) = map(dcmread, storescp.wait_for(1).values())
    assert str(received.PatientName) == "Coerced^P1"
    assert received.StudyID == ""
    assert "ConversionType" not in received
    (original,) = received.OriginalAttributesSequence
    assert original.ReasonForTheAttributeModification == "COERCE"
    assert original.ModifyingSystem == "DCM4CHEE"
    assert str(original.ModifiedAttributesSequence[0].PatientName) == "Test^Object"
    (stored,) = stored_files(idle_system.directory / "fs1")
    assert str(dcmread(stored, force=True).PatientName) == "Test^Object"


def test_a_deaf_leading_archive_delays_nothing(
    idle_system: System, leading_archive: LeadingArchive, tmp_path: Path
) -> None:
    (study,) = generate_studies(tmp_path / "objects", studies=1, instances=2)
    changed = dcmread(next(iter(study.files.values())))
    changed.PatientName, changed.PatientID = "Leading^Name", "NEW"
    leading_archive.store(write(changed, tmp_path / "changed.dcm"))
    leading_archive.stop()
    idle_system.configure(rule("Lead", "dcmURI: leading-arc:QRSCP"))
    idle_system.place_peer("QRSCP", leading_archive.port)
    _start(idle_system, "scp-0", "dispatcher", "query")
    idle_system.store_all(study.files, deadline_s=10)
    assert _find(idle_system) == ["Test^Object"]
    idle_system.wait_for_task("LEADING_CFIND", "SCHEDULED FOR RETRY")
    leading_archive.start()
    with idle_system.ledger.transaction() as tx:
        tx.execute("UPDATE task SET scheduled_time = now() WHERE kind = 'LEADING_CFIND'")
        tx.execute("SELECT pg_notify('dicomq_task', '')")
    idle_system.wait_for_task("LEADING_CFIND", "COMPLETED")
    assert _find(idle_system, PatientID="NEW") == ["Leading^Name"]


def test_answers_to_queries_are_coerced(
    idle_system: System, leading_archive: LeadingArchive, tmp_path: Path
) -> None:
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    (path,) = study.files.values()
    changed = dcmread(path)
    changed.PatientName, changed.AccessionNumber = "Leading^Name", "L1"
    leading_archive.store(write(changed, tmp_path / "changed.dcm"))
    lead = rule("Lead", "dcmURI: leading-arc:QRSCP", dimse="C_FIND_RSP")
    idle_system.configure(lead)
    idle_system.place_peer("QRSCP", leading_archive.port)
    _start(idle_system, "scp-0", "dispatcher", "query")
    idle_system.store_all(study.files)
    answer = Querier(idle_system.port).find(STUDY_ROOT, "STUDY", PatientName="")
    (match,) = answer.matches
    assert str(match.PatientName) == "Leading^Name"
    assert "AccessionNumber" not in match
    assert match.RetrieveAETitle == "DCM4CHEE"


def test_another_archive_answers_too(
    idle_system: System, leading_archive: LeadingArchive, tmp_path: Path
) -> None:
    own, other = generate_studies(tmp_path / "objects", studies=2)
    leading_archive.store(*own.files.values(), *other.files.values())
    idle_system.configure(
        f"dn: {ARCHIVE}\nchangetype: modify\nadd: dcmSpanningCFindSCP\n"
        "dcmSpanningCFindSCP: QRSCP\n-\nadd: dcmSpanningCFindSCPPolicy\n"
        "dcmSpanningCFindSCPPolicy: SUPPLEMENT\n-\nadd: dcmSpanningCFindSCPRetrieveAET\n"
        "dcmSpanningCFindSCPRetrieveAET: OTHER\n"
    )
    idle_system.place_peer("QRSCP", leading_archive.port)
    _start(idle_system, "scp-0")
    idle_system.store_all(own.files)
    answer = Querier(idle_system.port).find(STUDY_ROOT, "STUDY", StudyInstanceUID="")
    found = {str(each.StudyInstanceUID): str(each.RetrieveAETitle) for each in answer.matches}
    assert found == {own.study_instance_uid: "DCM4CHEE", other.study_instance_uid: "OTHER"}
    leading_archive.stop()
    answer = Querier(idle_system.port).find(STUDY_ROOT, "STUDY", StudyInstanceUID="")
    assert answer.status == 0xC000


def test_a_c_get_returns_coerced_objects(idle_system: System, dcmtk: Dcmtk, tmp_path: Path) -> None:
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    merge = rule("Sent", "dcmURI: merge-attrs:", "dcmMergeAttribute: PatientName=Sent", role="SCP")
    idle_system.configure(merge)
    _start(idle_system, "scp-0")
    idle_system.store_all(study.files)
    target = tmp_path / "got"
    target.mkdir()
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}"]
    argv = ["getscu", "-v", "-S", "-aec", "DCM4CHEE", "-od", str(target), *keys]
    done = dcmtk.run(*argv, "127.0.0.1", str(idle_system.port))
    assert done.returncode == 0, done.stdout
    (got,) = (dcmread(path) for path in target.iterdir())
    assert str(got.PatientName) == "Sent"
    assert got.PixelData == dcmread(next(iter(study.files.values()))).PixelData
