"""REST whose answer comes when the work is done, or a peer is asked: through the running system."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive.model.commitment import report_dataset
from tests.fix_monitor import Monitor, protected, start_monitor
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import CommitmentScp, IanScp, ReceivedRequest, StoreScp, send_report
from tests.fix_process import wait_until
from tests.fix_retrieve import Retrieval
from tests.fix_system import device_ldif

RS = "/dcm4chee-arc/aets/DCM4CHEE/rs/studies"
DIMSE = "/dcm4chee-arc/aets/DCM4CHEE/dimse"


@dataclass
class Rest:
    """A running dicomq, Flower beside it, and what it talks to."""

    retrieval: Retrieval
    monitor: Monitor

    def post(self, path: str) -> tuple[int, Any]:
        """Return status and body of the answer."""
        answer = self.monitor.ask(path, "POST")
        return answer.status, json.loads(answer.body)

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return the body of the answer."""
        return json.loads(self.monitor.ask(f"/dcm4chee-arc{path}").body)

    def wait_for_studies(self, studies: list[Study]) -> None:
        """Wait until the archive holds them."""
        wanted = {uid for study in studies for uid in study.files}
        self.retrieval.system.wait_until(
            lambda: wanted <= self.retrieval.system.archived().keys(), what="the objects"
        )


@pytest.fixture
def rest(retrieval: Retrieval, tmp_path: Path) -> Iterator[Rest]:
    """A running dicomq with workers for retrieves, notifications and commitments, and Flower."""
    for name in ("notify", "commit"):
        retrieval.system.start(name)
    environment = retrieval.system.environment
    monitor = start_monitor(environment, tmp_path / "flower.log", *protected())
    yield Rest(retrieval, monitor)
    monitor.process.stop()


@pytest.fixture
def held(rest: Rest, tmp_path: Path) -> Study:
    """A study of two objects that the archive holds."""
    [study] = generate_studies(tmp_path / "held", studies=1, instances=2, root="1.2.826.0.1.8")
    rest.retrieval.store(study)
    return study


def test_store_and_notify_at_once(
    rest: Rest,
    held: Study,
    store_scp: Callable[..., StoreScp],
    ian_scp: Callable[..., IanScp],
) -> None:
    destination, receiver = store_scp(), ian_scp()
    rest.retrieval.place("STORESCP", destination.port)
    rest.retrieval.place("IANSCP", receiver.port)
    entity = f"{RS}/{held.study_instance_uid}"

    assert rest.post(f"{entity}/export/dicom:STORESCP") == (200, {"completed": 2})
    assert len(destination.received_uids()) == 2
    assert rest.post(f"{entity}/ian/dicom:IANSCP") == (200, {"status": "0000", "instances": 2})
    assert receiver.wait_for(1)[0].dataset.StudyInstanceUID == held.study_instance_uid

    destination.stop()
    status, body = rest.post(f"{entity}/export/dicom:STORESCP")
    assert (status, body["completed"], "error" in body) == (502, 0, True)


def test_commitment_at_once(
    rest: Rest, held: Study, commitment_scp: Callable[..., CommitmentScp]
) -> None:
    """The answer tells that the request was accepted; what was committed comes with the report."""
    answers = [0x0000, 0x0110]
    peer = commitment_scp(status=lambda _event: answers.pop(0))
    rest.retrieval.system.configure(device_ldif("STGCMTSCP", peer.port))
    path = f"{RS}/{held.study_instance_uid}/stgcmt/dicom:STGCMTSCP"

    got = rest.post(path)
    assert got == (200, {"status": "0000", "instances": 2}), got
    [request] = peer.wait_for(1)
    assert {each.sop_instance_uid for each in request.references} == set(held.files)
    [pending] = rest.get(f"/stgcmt?studyUID={held.study_instance_uid}")
    assert (pending["status"], pending["requested"]) == ("PENDING", 2)
    assert "seriesUID" not in pending
    assert _reported(rest, request) == 0x0000
    assert [each["status"] for each in rest.get("/stgcmt?status=COMPLETED")] == ["COMPLETED"]

    status, body = rest.post(path)
    assert (status, "0110" in body["error"]) == (502, True)
    assert rest.post(f"{RS}/1.2.3/stgcmt/dicom:STGCMTSCP")[0] == 404
    uid = pending["transactionUID"]
    assert rest.monitor.ask(f"/dcm4chee-arc/stgcmt/{uid}", "DELETE").status == 204
    assert rest.monitor.ask(f"/dcm4chee-arc/stgcmt/{uid}", "DELETE").status == 404


def _reported(rest: Rest, request: ReceivedRequest) -> int | None:
    return send_report(rest.retrieval.system.port, report_dataset(request.report()))


def test_retrieve_at_once(rest: Rest, tmp_path: Path) -> None:
    destination = rest.retrieval.dcmtk.storescp()
    archive = rest.retrieval.qrscp(destinations={"STORESCP": destination.port})
    [study] = generate_studies(tmp_path / "far", studies=1, series=2, instances=2)
    archive.store(list(study.files.values()))
    studies = f"{DIMSE}/QRSCP/studies"
    uid = study.study_instance_uid

    found = rest.post(f"{studies}/{uid}/export/dicom:STORESCP?priority=1")
    assert found == (200, {"status": "0000", "completed": 4})
    series = f"{studies}/{uid}/series/{uid}.1"
    assert rest.post(f"{series}/export/dicom:STORESCP")[1]["completed"] == 2
    instance = next(iter(study.files))
    one = rest.post(f"{series}/instances/{instance}/export/dicom:STORESCP")
    assert one[1]["completed"] == 1
    assert set(destination.received()) == set(study.files)
    status, body = rest.post(f"{studies}/{uid}/export/dicom:NOWHERE")
    assert (status, body["status"]) == (502, "A801"), body
    assert rest.post(f"{DIMSE}/NOBODY/studies/{uid}/export/dicom:STORESCP")[0] == 404


def test_retrieve_by_query(rest: Rest, tmp_path: Path) -> None:
    """A C-FIND at the archive, or at another one, says what is retrieved."""
    archive = rest.retrieval.qrscp()
    studies = generate_studies(tmp_path / "far", studies=2, series=2)
    for study in studies:
        archive.store(list(study.files.values()))
    to = "export/dicom:DCM4CHEE"
    wanted = f"StudyInstanceUID={','.join(each.study_instance_uid for each in studies)}"

    answer = rest.post(f"{DIMSE}/QRSCP/studies/{to}?{wanted}&batchID=old&dcmQueueName=Retrieve")
    assert answer == (202, {"count": 2})
    rest.wait_for_studies(studies)
    done = partial(rest.get, "/monitor/retrieve?DestinationAET=DCM4CHEE&status=COMPLETED")
    wait_until(lambda: len(done()) == 2, what="the retrieves to be completed")
    told = ("RemoteAET", "DestinationAET", "batchID", "completed", "failed", "statusCode")
    assert {tuple(each[name] for name in told) for each in done()} == {
        ("QRSCP", "DCM4CHEE", "old", 2, 0, "0000")
    }
    assert rest.get("/monitor/retrieve/count?DestinationAET=ELSEWHERE") == {"count": 0}


def test_retrieve_by_query_at_another_archive(rest: Rest, tmp_path: Path) -> None:
    """INDEX says what there is, also below a study; QRSCP delivers it."""
    archive, other = rest.retrieval.qrscp(), rest.retrieval.qrscp(title="INDEX")
    studies = generate_studies(tmp_path / "far", studies=2, series=2)
    for study in studies:
        archive.store(list(study.files.values()))
    other.store(list(studies[1].files.values()))
    to = "export/dicom:DCM4CHEE"
    query = f"{DIMSE}/QRSCP/query:INDEX/studies"

    assert rest.post(f"{query}/{to}?PatientID=*") == (202, {"count": 1})
    rest.wait_for_studies(studies[1:])
    uid, later = studies[1].study_instance_uid, "scheduledTime=20991231000000"
    assert rest.post(f"{query}/{uid}/series/{to}?{later}") == (202, {"count": 2})
    instances = f"{query}/{uid}/series/{uid}.1/instances/{to}"
    assert rest.post(f"{instances}?{later}") == (202, {"count": 1})
    assert rest.post(f"{query}/{uid}/series/{to}?Modality=MR") == (202, {"count": 0})

    other.process.kill()
    status, body = rest.post(f"{query}/{to}?PatientID=X")
    assert (status, "INDEX" in body["errorMessage"]) == (502, True)
