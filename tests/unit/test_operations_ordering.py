"""Exports by hand: what a CSV file asks for, and which tasks an order means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.configuration.descriptors import ArchiveDevice, Exporter, Snapshot
from archive.errors import ConfigurationError, InvalidValueError
from archive.model.task import IanDetails, TaskKind
from workers.ordering import CsvColumns, Entity, Only, Order, check_order, new_tasks, read_csv

STUDY, SERIES = CsvColumns(), CsvColumns(1, 2)
EXPORTER = Exporter(
    "PACS",
    "dicom",
    "STORESCP",
    "Export",
    aet="ARC",
    ian_destinations=("IAN1", "IAN2"),
    storage_commitment_scp="COMMIT",
    dn="dcmExporterID=PACS",
)
SNAPSHOT = Snapshot(
    ArchiveDevice(
        name="arc",
        aes={},
        exporters={"PACS": EXPORTER},
        queues={},
        storages={},
        retrieve_aets=("ARC-RETRIEVE",),
    ),
    {},
    (),
    "1",
)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("1.2.3\n1.2.4\n", STUDY, [("1.2.3", None), ("1.2.4", None)]),
        ("StudyInstanceUID\n1.2.3\n", STUDY, [("1.2.3", None)]),
        ("Study Instance UID,x\n1.2.3,y\n", STUDY, [("1.2.3", None)]),
        ("\ufeffStudyInstanceUID\n1.2.3\n", STUDY, [("1.2.3", None)]),
        ("\ufeff1.2.3\n", STUDY, [("1.2.3", None)]),
        ('"1.2.3","x,y"\r\n"1.2.4",z\r\n', STUDY, [("1.2.3", None), ("1.2.4", None)]),
        ("x;1.2.3;1.2.3.1\n", CsvColumns(2, 3, ";"), [("1.2.3", "1.2.3.1")]),
        ("1.2.3.1,1.2.3\n", CsvColumns(2, 1), [("1.2.3", "1.2.3.1")]),
        (" 1.2.3 , 1.2.3.1 \n", SERIES, [("1.2.3", "1.2.3.1")]),
        ("1.2.3\n\n,\n1.2.3\n", STUDY, [("1.2.3", None)]),
    ],
)
def test_csv(text: str, columns: CsvColumns, expected: list[tuple[str, str | None]]) -> None:
    """Each entity once; a header, empty rows and rows without study are passed over."""
    content = read_csv(text.splitlines(keepends=True), columns)
    assert [(e.study_instance_uid, e.series_instance_uid) for e in content.entities] == expected
    assert content.refused == ()


@pytest.mark.parametrize(
    ("text", "columns", "line", "reason"),
    [
        ("1.2.3\nnonsense!\n", STUDY, 2, "Study Instance UID 'nonsense!' is not a UID"),
        ("1.2.3\nheader\n", STUDY, 2, "'header' is not a UID"),
        ("1.2.3,x.y\n", SERIES, 1, "Series Instance UID 'x.y' is not a UID"),
        ("1.2.3,\n", SERIES, 1, "Series Instance UID '' is not a UID"),
        ("1.2.3\n", SERIES, 1, "the row has 1 columns only; is the delimiter ','"),
        ("1.2.3;1.2.3.1\n", SERIES, 1, "the row has 1 columns only"),
        ("1." * 40 + "1\n", STUDY, 1, "is not a UID"),
    ],
)
def test_csv_rows_are_refused_alone(text: str, columns: CsvColumns, line: int, reason: str) -> None:
    """Decision 19: a bad series never exports the whole study."""
    (row,) = read_csv(text.splitlines(keepends=True), columns).refused
    assert row.line == line
    assert reason in row.reason


def test_what_is_no_csv_is_refused_whole() -> None:
    with pytest.raises(InvalidValueError, match="line 2 is not CSV"):
        read_csv(['"1.2.3"\n', '"1.2.4"x\n'], STUDY)


@pytest.mark.parametrize(("study", "series"), [(0, None), (1, 0), (1, -1), (2, 2)])
def test_impossible_columns(study: int, series: int | None) -> None:
    with pytest.raises(InvalidValueError):
        CsvColumns(study, series)


@given(st.lists(st.text(max_size=20), max_size=20))
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    """Whatever is read is valid; nothing else escapes than the refusal."""
    try:
        content = read_csv(lines, SERIES)
    except InvalidValueError:
        return
    for entity in content.entities:
        assert entity.series_instance_uid


@pytest.mark.parametrize(
    "uids", [("",), ("1.2.3", "x"), ("1.2.3", None, "1.2"), ("1.2.3", "1", "")]
)
def test_impossible_entities(uids: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValueError):
        Entity(*uids)


def test_order_of_an_export() -> None:
    """It is the exporter's queue and destination, and sends everything: no follow-up."""
    (task,) = new_tasks(Entity("1.2.3", "1.2.3.1"), Order("PACS", batch_id="b"), EXPORTER, SNAPSHOT)
    assert (task.kind, task.queue_name, task.device_name) == (TaskKind.EXPORT, "Export", "arc")
    assert (task.local_aet, task.remote_aet, task.exporter_id) == ("ARC", "STORESCP", "PACS")
    assert (task.series_instance_uid, task.sop_instance_uid) == ("1.2.3.1", None)
    assert (task.batch_id, task.ian) == ("b", None)


def test_order_of_notifications_only() -> None:
    """One per destination; they announce what the archive holds, retrievable from it."""
    tasks = new_tasks(
        Entity("1.2.3", "1.2.3.1"), Order("PACS", only=Only.IAN, batch_id="b"), EXPORTER, SNAPSHOT
    )
    assert [task.remote_aet for task in tasks] == ["IAN1", "IAN2"]
    assert {(task.kind, task.series_instance_uid, task.batch_id) for task in tasks} == {
        (TaskKind.IAN, "1.2.3.1", "b")
    }
    assert {task.ian for task in tasks} == {IanDetails(("ARC-RETRIEVE",), "ONLINE")}


@pytest.mark.parametrize(
    ("only", "exporter", "words"),
    [
        (Only.IAN, Exporter("X", "dicom", "S", "Q", aet="A", dn="cn=x"), "dcmIanDestination"),
        (Only.COMMITMENT, Exporter("X", "dicom", "S", "Q", aet="A", dn="cn=x"), "dcmStgCmtSCP"),
    ],
)
def test_order_without_destination_is_refused(only: Only, exporter: Exporter, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check_order(Order("X", only=only), exporter)
