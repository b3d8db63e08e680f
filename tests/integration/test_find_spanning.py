"""Queries that are also put to another archive (dcmSpanningCFindSCP): policies, errors, cancel."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE

from archive.configuration.settings import Settings
from archive.configuration.source import open_source
from tests.fix_find_peer import FindScp
from tests.fix_objects import secondary_capture, write
from tests.fix_peer import echo, send_files
from tests.fix_process import free_port, wait_until
from tests.fix_query import STUDY_ROOT, Answer, Querier
from tests.fix_scp import Site
from tests.fix_system import ARCHIVE, configuration_read, device_ldif

ROOT = "1.2.826.0.1.8"
OWN, BOTH, OTHER = (f"{ROOT}.{number}" for number in (1, 2, 3))


def found(uid: str, name: str) -> Dataset:
    """Return a match of the other archive."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = "STUDY"
    dataset.StudyInstanceUID = uid
    dataset.PatientName = name
    dataset.RetrieveAETitle = "ELSEWHERE"
    return dataset


MATCHES = (found(BOTH, "Remote^Two"), found(OTHER, "Remote^Three"))


@pytest.fixture
def archive(site: Site, tmp_path: Path) -> Iterator[Site]:
    """Two studies, of which the other archive has one."""
    site.start()
    files = []
    for uid, series in ((OWN, 1), (OWN, 2), (BOTH, 1)):
        dataset = secondary_capture(uid, series, 1, size=2)
        dataset.PatientName = f"Own^{uid[-1]}"
        files.append(write(dataset, tmp_path / "o" / f"{uid}.{series}.dcm"))
    assert set(send_files(files, site.port).statuses.values()) == {0}
    yield site
    assert "Traceback" not in site.log()


@pytest.fixture
def other() -> Iterator[FindScp]:
    made = FindScp(MATCHES, "ELSEWHERE")
    made.start()
    yield made
    made.stop()


def span(site: Site, port: int, **attributes: str) -> None:
    """Have queries put to ELSEWHERE too, and wait until the SCP has read that."""
    site.configure(device_ldif("ELSEWHERE", port))
    site.modify(ARCHIVE, dcmSpanningCFindSCP="ELSEWHERE", **attributes)
    settings = Settings.from_environment(site.environment)
    wanted = open_source(settings).snapshot().fingerprint
    wait_until(
        lambda: echo(site.port) and configuration_read(site.log()) == wanted,
        what="the configuration to be read",
    )


def ask(site: Site) -> Answer:
    """Ask for all studies."""
    keys = {"StudyInstanceUID": "", "PatientName": "", "RetrieveAETitle": ""}
    return Querier(site.port).find(STUDY_ROOT, "STUDY", **keys)


def told(answer: Answer) -> list[tuple[str, str, str]]:
    """Return what matters of the matches, in their order."""
    return [
        (str(m.StudyInstanceUID), str(m.PatientName), str(m.get("RetrieveAETitle", "")))
        for m in answer.matches
    ]


HERE = ((OWN, "Own^1", "DCM4CHEE"), (BOTH, "Own^2", "DCM4CHEE"))
THERE = ((BOTH, "Remote^Two", "ELSEWHERE"), (OTHER, "Remote^Three", "ELSEWHERE"))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, THERE),
        ("REPLACE", THERE),
        ("MERGE", (*THERE, HERE[0])),
        ("SUPPLEMENT", (*HERE, THERE[1])),
    ],
)
def test_policies(
    archive: Site, other: FindScp, policy: str | None, expected: Sequence[tuple[str, str, str]]
) -> None:
    more = {"dcmSpanningCFindSCPPolicy": policy} if policy else {}
    span(archive, other.port, **more)
    answer = ask(archive)
    assert (answer.status, told(answer)) == (0, list(expected))
    asked = other.queries[-1]
    assert (asked.QueryRetrieveLevel, asked.PatientName) == ("STUDY", "")


def test_retrieve_ae_title_and_a_key_that_was_not_asked_for(archive: Site, other: FindScp) -> None:
    span(archive, other.port, dcmSpanningCFindSCPRetrieveAET="GATEWAY")
    assert told(ask(archive))[0] == (BOTH, "Remote^Two", "GATEWAY")
    answer = Querier(archive.port).find(STUDY_ROOT, "STUDY", PatientName="Remote*")
    assert "StudyInstanceUID" in other.queries[-1]  # to tell studies apart
    assert all("StudyInstanceUID" not in match for match in answer.matches)


def test_entities_are_told_apart_by_a_key_that_was_not_asked_for(archive: Site) -> None:
    nothing = FindScp([], "ELSEWHERE")
    nothing.start()
    span(archive, nothing.port, dcmSpanningCFindSCPPolicy="MERGE")
    answer = Querier(archive.port).find(
        STUDY_ROOT, "SERIES", StudyInstanceUID=OWN, Modality="", SeriesNumber=""
    )
    nothing.stop()
    assert answer.values("SeriesNumber") == ["1", "2"]
    assert all("SeriesInstanceUID" not in match for match in answer.matches)


@pytest.mark.parametrize("policy", ["REPLACE", "MERGE", "SUPPLEMENT"])
def test_an_archive_that_fails_fails_the_query(archive: Site, policy: str) -> None:
    failing = FindScp(MATCHES[:1], "ELSEWHERE", status=0xA700)
    failing.start()
    span(archive, failing.port, dcmSpanningCFindSCPPolicy=policy)
    count = {"REPLACE": 1, "MERGE": 1, "SUPPLEMENT": 2}[policy]
    answer = ask(archive)
    failing.stop()
    assert (answer.status, len(answer.matches)) == (0xC000, count)
    assert "ELSEWHERE failed" in answer.final.ErrorComment


def test_an_archive_that_is_down_fails_the_query(archive: Site) -> None:
    span(archive, free_port())
    answer = ask(archive)
    assert (answer.status, answer.matches) == (0xC000, [])


def test_cancel(archive: Site) -> None:
    many = FindScp([found(f"{OTHER}.{n}", "Remote^X") for n in range(500)], "ELSEWHERE")
    many.start()
    span(archive, many.port)
    assert len(ask(archive).matches) == 500
    ae = AE(ae_title="FINDSCU")
    ae.add_requested_context(STUDY_ROOT)
    association = ae.associate("127.0.0.1", archive.port, ae_title="DCM4CHEE")
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = ""
    statuses: list[int] = []
    for status, _ in association.send_c_find(identifier, STUDY_ROOT):
        if not statuses:
            association.send_c_cancel(1, query_model=STUDY_ROOT)
        statuses.append(int(status.Status))
    association.release()
    many.stop()
    assert statuses[-1] == 0xFE00
    assert len(statuses) < 400
