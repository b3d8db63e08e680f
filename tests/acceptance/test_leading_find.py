"""The test procedure of the documentation's page on proxying queries and retrieves.

A leading archive holds a study with changed patient attributes; what this archive sends to
STORESCP carries them, once the LDIF of that page has been imported as it is printed there.
"""

from pathlib import Path

from pydicom import dcmread

from tests.fix_dcmtk import Dcmtk
from tests.fix_leading import LeadingArchive
from tests.fix_objects import generate_studies, write
from tests.fix_system import System

PRINTED = """
      version: 1
      dn: dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
      changetype: modify
      add: dcmLeadingCFindSCPQueryCacheStaleTimeout
      dcmLeadingCFindSCPQueryCacheStaleTimeout: PT5M
      -

      dn: dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
      changetype: modify
      add: dcmLeadingCFindSCPQueryCacheSize
      dcmLeadingCFindSCPQueryCacheSize: 50
      -

      dn: cn=Leading DCMQRSCP,dicomDeviceName=dcm4chee-arc,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
      objectClass: dcmArchiveAttributeCoercion
      cn: Leading DCMQRSCP
      dcmDIMSE: C_STORE_RQ
      dicomTransferRole: SCP
      dcmProperty: ReceivingApplicationEntityTitle=STORESCP
      dcmLeadingCFindSCP: QRSCP
      -
"""  # noqa: E501 - as printed


def test_changed_attributes_arrive_at_storescp(
    idle_system: System, dcmtk: Dcmtk, leading_archive: LeadingArchive, tmp_path: Path
) -> None:
    storescp = dcmtk.storescp()
    (study,) = generate_studies(tmp_path / "objects", studies=1, series=2, instances=2)
    for number, path in enumerate(study.files.values()):
        changed = dcmread(path)
        changed.PatientName, changed.StudyDescription = "Changed^Name", "Changed"
        leading_archive.store(write(changed, tmp_path / f"changed-{number}.dcm"))
    idle_system.configure(PRINTED)
    idle_system.place_peer("QRSCP", leading_archive.port)
    idle_system.export_to(storescp.port)
    for name in ("scp-0", "dispatcher", "export", "query"):
        idle_system.start(name)
    idle_system.store_all(study.files)
    received = storescp.wait_for(4)
    assert {str(dcmread(path).PatientName) for path in received.values()} == {"Changed^Name"}
    for uid, path in received.items():
        assert dcmread(path).PixelData == dcmread(study.files[uid]).PixelData
    queries = [task for task in idle_system.tasks() if task.kind == "LEADING_CFIND"]
    assert len(queries) == 1


def test_movescu_brings_changed_attributes_to_storescp(
    idle_system: System, dcmtk: Dcmtk, leading_archive: LeadingArchive, tmp_path: Path
) -> None:
    storescp = dcmtk.storescp()
    (study,) = generate_studies(tmp_path / "objects", studies=1)
    (path,) = study.files.values()
    changed = dcmread(path)
    changed.PatientName = "Changed^Name"
    leading_archive.store(write(changed, tmp_path / "changed.dcm"))
    idle_system.configure(PRINTED)
    idle_system.place_peer("QRSCP", leading_archive.port)
    idle_system.place_peer("STORESCP", storescp.port)
    for name in ("scp-0", "dispatcher", "retrieve", "query"):
        idle_system.start(name)
    idle_system.store_all(study.files)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_instance_uid}"]
    argv = ["movescu", "-v", "-S", "-aec", "DCM4CHEE", "-aem", "STORESCP", *keys]
    moved = dcmtk.run(*argv, "127.0.0.1", str(idle_system.port))
    assert moved.returncode == 0, moved.stdout
    (received,) = storescp.wait_for(1).values()
    assert str(dcmread(received).PatientName) == "Changed^Name"
