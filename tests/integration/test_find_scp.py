"""Queries of a running SCP over the network."""

from collections.abc import Callable, Sequence

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from tests.fix_dcmtk import Dcmtk
from tests.fix_query import (
    PATIENT_ROOT,
    PATIENT_STUDY_ONLY,
    STUDY_ROOT,
    Archive,
    Querier,
    image,
    item,
)
from tests.fix_system import ARCHIVE_AE, System

Start = Callable[[Sequence[Dataset]], Archive]
ROOT = "1.2.826.0.1.8"
UTF8 = "ISO_IR 192"

OBJECTS = (
    image(
        1,
        PatientName="Doe^Jane",
        PatientID="P1",
        StudyDescription="Chest CT",
        StudyDate="20250105",
        StudyTime="235959",
        AccessionNumber="A-1",
        Modality="CT",
        ProcedureCodeSequence=[item(CodeValue="X1", CodingSchemeDesignator="99T")],
        PatientAge="030Y",
    ),
    image(
        1,
        2,
        PatientName="Doe^Jane",
        PatientID="P1",
        Modality="SR",
        RequestAttributesSequence=[item(RequestedProcedureID="RP1", ScheduledProcedureStepID="S1")],
    ),
    image(1, 2, 2, PatientName="Doe^Jane", PatientID="P1", Modality="SR"),
    image(
        2,
        PatientName="Müller^Jörg=山田^太郎",
        PatientID="P2",
        StudyDate="20250106",
        StudyTime="000100",
    ),
    image(3, PatientName="Doe^Jane", PatientID="P1", StudyDate="20260101", AccessionNumber="B%1"),
)

STUDY_KEYS: list[tuple[dict[str, object], list[int]]] = [
    ({"StudyInstanceUID": f"{ROOT}.1"}, [1]),
    ({"StudyInstanceUID": [f"{ROOT}.1", f"{ROOT}.2", "9.9"]}, [1, 2]),
    ({"StudyInstanceUID": "9.9"}, []),
    ({"PatientID": "P1"}, [1, 3]),
    ({"PatientID": "p1"}, []),
    ({"PatientID": "P?"}, [1, 2, 3]),
    ({"AccessionNumber": "B%*"}, [3]),
    ({"AccessionNumber": "%*"}, []),
    ({"PatientName": "DOE"}, [1, 3]),
    ({"PatientName": "doe^j*"}, [1, 3]),
    ({"PatientName": "*jane"}, [1, 3]),
    ({"PatientName": "MÜLLER^JÖRG"}, [2]),
    ({"PatientName": "=山田"}, [2]),
    ({"PatientName": "Müller=李"}, []),
    ({"StudyDescription": "CHEST*"}, [1]),
    ({"StudyDate": "20250101-20250106"}, [1, 2]),
    ({"StudyDate": "20250106-"}, [2, 3]),
    ({"StudyDate": "20250105-20250106", "StudyTime": "2300-0030"}, []),
    ({"StudyTime": "00"}, [2]),
    ({"ModalitiesInStudy": "SR"}, [1]),
    ({"ModalitiesInStudy": ["SR", "OT"]}, [1, 2, 3]),
    ({"ProcedureCodeSequence": [item(CodeValue="X1")]}, [1]),
    ({"ProcedureCodeSequence": [item(CodeValue="X?", CodingSchemeDesignator="99T")]}, [1]),
    ({"ProcedureCodeSequence": [item(CodeValue="X1", CodingSchemeDesignator="L")]}, []),
    ({"PatientAge": "030Y"}, [1]),
]


def test_every_kind_of_matching(find_archive: Start) -> None:
    querier = find_archive(OBJECTS).querier
    for keys, expected in STUDY_KEYS:
        answer = querier.find(
            STUDY_ROOT, "STUDY", **{"SpecificCharacterSet": UTF8, "StudyInstanceUID": "", **keys}
        )
        assert answer.status == 0, keys
        assert answer.values("StudyInstanceUID") == [f"{ROOT}.{n}" for n in expected], keys
    combined = Querier(querier.port, extended=b"\x01\x01\x00")
    keys = {"StudyDate": "20250105-20250106", "StudyTime": "2300-0030", "StudyInstanceUID": ""}
    found = combined.find(STUDY_ROOT, "STUDY", **keys)
    assert found.values("StudyInstanceUID") == [f"{ROOT}.1", f"{ROOT}.2"]


def test_return_keys_and_levels(find_archive: Start) -> None:
    querier = find_archive(OBJECTS).querier
    (study,) = querier.find(
        STUDY_ROOT,
        "STUDY",
        StudyInstanceUID=f"{ROOT}.1",
        NumberOfStudyRelatedSeries="",
        NumberOfStudyRelatedInstances="",
        ModalitiesInStudy="",
        SOPClassesInStudy="",
        NumberOfPatientRelatedStudies="",
        InstitutionName="",
        PatientComments="",
        ProcedureCodeSequence=[item(CodeValue="", CodeMeaning="")],
    ).matches
    assert (study.NumberOfStudyRelatedSeries, study.NumberOfStudyRelatedInstances) == (2, 3)
    assert list(study.ModalitiesInStudy) == ["CT", "SR"]
    assert study.SOPClassesInStudy == "1.2.840.10008.5.1.4.1.1.7"
    assert study.NumberOfPatientRelatedStudies == 2
    assert (study.InstitutionName, study.PatientComments) == ("", "")
    assert (study.RetrieveAETitle, study.InstanceAvailability) == ("DCM4CHEE", "ONLINE")
    assert study.ProcedureCodeSequence[0].CodeValue == "X1"
    assert study.ProcedureCodeSequence[0].CodeMeaning == ""
    series = querier.find(
        STUDY_ROOT,
        "SERIES",
        StudyInstanceUID=f"{ROOT}.1",
        SeriesInstanceUID="",
        NumberOfSeriesRelatedInstances="",
        RequestAttributesSequence=[item(RequestedProcedureID="RP1")],
    )
    assert series.values("SeriesInstanceUID") == [f"{ROOT}.1.2"]
    assert series.values("NumberOfSeriesRelatedInstances") == ["2"]
    uids = {"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.2"}
    images = querier.find(STUDY_ROOT, "IMAGE", SOPInstanceUID="", InstanceNumber="2", **uids)
    assert images.values("SOPInstanceUID") == [f"{ROOT}.1.2.2"]
    patients = querier.find(PATIENT_STUDY_ONLY, "PATIENT", PatientID="", PatientName="Doe*")
    assert patients.values("PatientID") == ["P1"]
    relational = Querier(querier.port, extended=b"\x01")
    assert len(relational.find(PATIENT_ROOT, "IMAGE", PatientID="P1").matches) == 4


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("ISO_IR 100", "ISO_IR 192"), ("GB18030", "GB18030"), ("", "ISO_IR 192")],
)
def test_character_sets_of_answers(find_archive: Start, asked: str, answered: str) -> None:
    querier = find_archive(OBJECTS[3:4]).querier
    keys = {"SpecificCharacterSet": asked} if asked else {}
    (match,) = querier.find(STUDY_ROOT, "STUDY", PatientName="", **keys).matches
    assert match.SpecificCharacterSet == answered
    assert str(match.PatientName) == "Müller^Jörg=山田^太郎"


def test_refusals_and_the_limit(find_archive: Start) -> None:
    archive = find_archive(OBJECTS)
    refused = archive.querier.find(STUDY_ROOT, "SERIES", SeriesInstanceUID="")
    assert refused.status == 0xA900
    assert refused.final.OffendingElement == 0x0020000D
    assert "STUDY" in refused.final.ErrorComment
    archive.system.configure(
        f"dn: {ARCHIVE_AE}\nchangetype: modify\nadd: dcmQueryMaxNumberOfResults\n"
        "dcmQueryMaxNumberOfResults: 2\n"
    )
    archive.system.wait_until(
        lambda: archive.querier.find(STUDY_ROOT, "STUDY").status == 0xC000, what="the limit"
    )
    limited = archive.querier.find(STUDY_ROOT, "STUDY")
    assert limited.final.ErrorComment == "Request entity too large: more than 2 matches"
    assert not limited.matches
    assert archive.querier.find(STUDY_ROOT, "STUDY", PatientID="P1").status == 0
    uids = [f"{ROOT}.{number}" for number in (1, 2, 3)]
    assert len(archive.querier.find(STUDY_ROOT, "STUDY", StudyInstanceUID=uids).matches) == 3


HOSTILE = (
    b"\x08\x00\x52\x00\xff\xff\xff\xff",
    b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x20\x00\x0d\x00\xff\xff\xff\x7f1.2",
    b"\x08\x00\x05\x00\x04\x00\x00\x00\xff\xfe\x00\x01\x08\x00\x52\x00\x06\x00\x00\x00STUDY ",
    b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x10\x00\x10\x00\x06\x00\x00\x00\x1b$B\x00\xff*",
    b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x08\x00\x32\x10\xff\xff\xff\xff\xfe\xff\x00\xe0",
    b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x10\x00\x10\x00\x08\x00\x00\x00'; DROP*\x00",
    b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY \x10\x00\x10\x00\x40\x00\x00\x00" + b"*a" * 32,
)


def test_hostile_identifiers_are_answered(find_archive: Start) -> None:
    archive = find_archive(OBJECTS[:1])
    for encoded in HOSTILE:
        status = _send_raw(archive.querier.port, encoded)
        assert status in {0x0000, 0xA900, 0xC000}, encoded
    assert len(archive.querier.find(STUDY_ROOT, "STUDY").matches) == 1


def _send_raw(port: int, encoded: bytes) -> int | None:
    """Send a C-FIND whose identifier is these bytes, and return the final status."""
    from io import BytesIO  # noqa: PLC0415 - only here

    from pynetdicom.dimse_primitives import C_FIND  # noqa: PLC0415 - only here

    ae = AE()
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    ae.add_requested_context(STUDY_ROOT, "1.2.840.10008.1.2")
    association = ae.associate("127.0.0.1", port, ae_title="DCM4CHEE")
    request = C_FIND()
    request.MessageID, request.AffectedSOPClassUID, request.Priority = 1, STUDY_ROOT, 2
    request.Identifier = BytesIO(encoded)
    association._reactor_checkpoint.clear()  # noqa: SLF001 - its thread must not take the answer
    while not association._is_paused:  # noqa: SLF001
        association._reactor_checkpoint.wait(0.01)  # noqa: SLF001
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id or 1)
    status: int | None = 0xFF00
    while status == 0xFF00:
        _, response = association.dimse.get_msg(block=True)
        status = response.Status if response is not None else None
    association._reactor_checkpoint.set()  # noqa: SLF001
    association.release()
    return status


def test_many_matches_are_streamed_and_can_be_cancelled(
    idle_system: System, find_archive: Start
) -> None:
    archive = find_archive(())
    with idle_system.ledger.transaction() as tx:
        tx.execute(
            "WITH p AS (INSERT INTO patient (patient_id) SELECT 'N' || n FROM"
            " generate_series(1, 3000) n RETURNING pk, patient_id)"
            " INSERT INTO study (patient_fk, study_instance_uid)"
            " SELECT pk, '1.9.' || substr(patient_id, 2) FROM p"
        )
    answer = archive.querier.find(STUDY_ROOT, "STUDY", StudyInstanceUID="")
    assert answer.status == 0
    assert len(set(answer.values("StudyInstanceUID"))) == 3000
    assert _cancel_after(archive.querier.port, 10) == 0xFE00


def _cancel_after(port: int, count: int) -> int | None:
    """Send a C-CANCEL after some matches and return the final status."""
    ae = AE()
    ae.add_requested_context(STUDY_ROOT, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="DCM4CHEE")
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", ""
    final = None
    for number, (status, _) in enumerate(association.send_c_find(keys, STUDY_ROOT, msg_id=7)):
        if number == count:
            association.send_c_cancel(7, query_model=STUDY_ROOT)
        final = status.get("Status")
    association.release()
    return final


def test_what_was_stored_wrong_is_returned_as_it_is(
    idle_system: System, find_archive: Start, dcmtk: Dcmtk
) -> None:
    archive = find_archive(OBJECTS)
    with idle_system.ledger.transaction() as tx:
        tx.execute("UPDATE series SET series_number = 'third', modality = 'lower case'")
    argv = ["findscu", "-v", "-S", "-aec", "DCM4CHEE", "127.0.0.1", str(archive.system.port)]
    keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={ROOT}.1"]
    keys += ["-k", "SeriesNumber", "-k", "Modality", "-k", "RequestAttributesSequence"]
    for syntax in ("-xi", "-xe", "-xb"):
        done = dcmtk.run(*argv, *keys, syntax)
        assert done.stdout.count("[third") == 2, done.stdout
        assert "Received Final Find Response (Success)" in done.stdout


def test_findscu_finds(find_archive: Start, dcmtk: Dcmtk) -> None:
    archive = find_archive(OBJECTS)
    argv = ["findscu", "-v", "-S", "-aec", "DCM4CHEE", "127.0.0.1", str(archive.system.port)]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=DOE*", "-k", "StudyInstanceUID"]
    done = dcmtk.run(*argv, *keys)
    assert done.returncode == 0
    assert done.stdout.count("(Pending)") == 2
    assert "Received Final Find Response (Success)" in done.stdout
