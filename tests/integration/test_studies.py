"""What the archive holds, and which destinations hold it too."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner

from archive.ledger import deliveries, objects, studies, tasks
from archive.ledger.connection import Ledger
from archive.ledger.studies import StudyFilter
from archive.model.entities import (
    InstanceResult,
    ObjectAttributes,
    Reception,
    StoredFile,
    StorePolicy,
)
from archive.model.task import NewTask, TaskKind
from workers.commands.studies import studies as studies_command

EXPORT = NewTask(TaskKind.EXPORT, "Export", "arc", "ARC", "PACS", "1.1", exporter_id="STORE")
ATTRIBUTES = ObjectAttributes(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    sop_instance_uid="1.1.1.1",
    study_instance_uid="1.1",
    series_instance_uid="1.1.1",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    patient_id="P1",
    patient_name="Müller^[red]Jörg\x1b[2J",
    study_date="20261101",
    accession_number="A1",
    modality="CT",
)

Store = Callable[..., int]


@pytest.fixture
def store(ledger: Ledger) -> Store:
    """Store an object of the given attributes; return its instance's primary key."""

    def store_one(**attributes: str) -> int:
        wanted = replace(ATTRIBUTES, **attributes)  # type: ignore[arg-type] # texts only
        path = f"{wanted.study_instance_uid}/{wanted.sop_instance_uid}"
        file = StoredFile("fs1", path, "1.2.840.10008.1.2.1", 9, 1, f"md5:{path}")
        with ledger.transaction() as tx:
            return objects.store_object(
                tx, wanted, file, Reception("MOD", "ARC"), intents=(), policy=StorePolicy()
            ).instance_pk

    return store_one


@pytest.fixture
def archive(store: Store) -> list[int]:
    """Two studies: one of two series with three instances, one of another patient."""
    return [
        store(),
        store(sop_instance_uid="1.1.1.2"),
        store(series_instance_uid="1.1.2", sop_instance_uid="1.1.2.1", modality="SR"),
        store(
            study_instance_uid="1.2",
            series_instance_uid="1.2.1",
            sop_instance_uid="1.2.1.1",
            patient_id="P2",
            patient_name="Ono^Yoko",
            study_date="20261115",
            accession_number="A2",
            modality="MR",
        ),
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (StudyFilter(), ["1.2", "1.1"]),
        (StudyFilter(study_instance_uids=("1.1", "9")), ["1.1"]),
        (StudyFilter(patient_id="P2"), ["1.2"]),
        (StudyFilter(patient_name="müll"), ["1.1"]),
        (StudyFilter(patient_name="%"), []),
        (StudyFilter(accession_number="A1"), ["1.1"]),
        (StudyFilter(modality="SR"), ["1.1"]),
        (StudyFilter(study_date_since="20261102"), ["1.2"]),
        (StudyFilter(study_date_until="20261101"), ["1.1"]),
        (StudyFilter(study_date_since="20261101", study_date_until="20261115"), ["1.2", "1.1"]),
        (StudyFilter(patient_id="P2", modality="CT"), []),
    ],
)
@pytest.mark.usefixtures("archive")
def test_filters(ledger: Ledger, wanted: StudyFilter, found: list[str]) -> None:
    """The latest received first; conditions hold together."""
    with ledger.statement() as tx:
        assert [each.study_instance_uid for each in studies.page(tx, wanted)] == found


@pytest.mark.usefixtures("archive")
def test_summary_and_pages(ledger: Ledger) -> None:
    with ledger.statement() as tx:
        (later,) = studies.page(tx, StudyFilter(), limit=1)
        (study,) = studies.page(tx, StudyFilter(), before_pk=later.pk)
        series = studies.series(tx, "1.1")
    assert (study.modalities, study.num_series, study.num_instances) == (["CT", "SR"], 2, 3)
    assert [(each.modality, each.num_instances) for each in series] == [("CT", 2), ("SR", 1)]


def test_holdings(ledger: Ledger, archive: list[int]) -> None:
    """What a destination acknowledged of the present versions, once per instance."""
    with ledger.transaction() as tx:
        for _ in range(2):
            task = tasks.get(tx, tasks.stage(tx, EXPORT, actor="test"))
            results = [
                InstanceResult(archive[0], 1, delivered=True, dimse_status=0),
                InstanceResult(archive[1], 1, delivered=False, dimse_status=0xA700),
                InstanceResult(archive[2], 9, delivered=True, dimse_status=0),
            ]
            deliveries.record(tx, task, results)
        (holding,) = studies.holdings(tx, "1.1")
        assert studies.holdings(tx, "1.2") == []
    assert (holding.exporter_id, holding.remote_aet, holding.num_instances) == ("STORE", "PACS", 1)


def test_commands(ledger: Ledger, ledger_url: str, archive: list[int]) -> None:
    """Tables are inert, JSON is whole, a missing study is an error."""
    with ledger.transaction() as tx:
        task = tasks.get(tx, tasks.stage(tx, EXPORT, actor="test"))
        deliveries.record(tx, task, [InstanceResult(archive[0], 1, delivered=True, dimse_status=0)])
    cli = CliRunner(env={"DATABASE_URL": ledger_url})

    def run(line: str, status: int = 0) -> str:
        result = cli.invoke(studies_command, line.split())
        assert result.exit_code == status, result.output
        return result.output

    assert "Müller^[red]Jörg\\x1b[2J" in run("list --patient-id P1")
    assert "\x1b" not in run("list --csv") + run("show 1.1")
    assert "1 of 3" in run("show 1.1")
    shown = json.loads(run("show 1.1 --json"))
    assert (shown["patient_id"], shown["num_instances"]) == ("P1", 3)
    assert shown["holdings"][0]["num_instances"] == 1
    assert [each["study_instance_uid"] for each in json.loads(run("list --json"))] == ["1.2", "1.1"]
    assert json.loads(run("list --date 20261102- --json"))[0]["study_instance_uid"] == "1.2"
    assert json.loads(run("list --date 20261101 --json"))[0]["study_instance_uid"] == "1.1"
    assert "is not a date" in run("list --date yesterday", 2)
    assert "the archive has no study 9.9" in run("show 9.9", 2)
