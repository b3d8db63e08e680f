from pathlib import Path

import pytest

from archive.configuration.defaults import default_entries, default_folder
from archive.configuration.embedded import EmbeddedDirectory, content_fingerprint
from archive.configuration.ldif import parse_ldif
from archive.configuration.refusals import RefusedChangeError
from archive.errors import DirectoryUnavailableError
from tests.directory_cases import CASES, DEVICE, WIKI_EXPORTER


@pytest.fixture
def directory(tmp_path: Path) -> EmbeddedDirectory:
    """The default directory without its many transfer capabilities."""
    entries = [one for one in default_entries() if not one.has_class("dicomTransferCapability")]
    made = EmbeddedDirectory(tmp_path / "directory.ldif")
    made.create(entries)
    return made


def codes(directory: EmbeddedDirectory, text: str) -> list[int]:
    done = directory.apply_all(parse_ldif(text.encode()).records, go_on=True)
    return [0 if one.refusal is None else one.refusal.code for one in done]


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_changes_end_as_with_an_ldap_server(
    directory: EmbeddedDirectory, text: str, expected: list[int]
) -> None:
    assert codes(directory, text) == expected


def test_a_refused_record_changes_nothing(directory: EmbeddedDirectory) -> None:
    before = directory.path.read_bytes()
    text = f"dn: {DEVICE}\nchangetype: modify\nadd: dicomStationName\ndicomStationName: X\n-\n"
    text += "add: dicomInstalled\ndicomInstalled: FALSE\n"
    with pytest.raises(RefusedChangeError):
        directory.apply(parse_ldif(text.encode()).records[0])
    assert directory.path.read_bytes() == before


def test_work_ends_at_the_first_refused_record_unless_told(directory: EmbeddedDirectory) -> None:
    text = "dn: cn=no,dc=no\nchangetype: delete\n\n" + WIKI_EXPORTER
    records = parse_ldif(text.encode()).records
    assert len(directory.apply_all(records)) == 1
    assert [one.refusal is None for one in directory.apply_all(records, go_on=True)] == [
        False,
        True,
    ]


def test_the_message_has_code_words_and_a_hint(directory: EmbeddedDirectory) -> None:
    record = parse_ldif(f"dn: {DEVICE}\nobjectClass: dcmQueue\ndcmQueueName: X\n".encode())
    with pytest.raises(RefusedChangeError, match=r"naming attribute 'dicomDeviceName'|hint"):
        directory.apply(record.records[0])


def test_what_is_saved_is_read_as_the_same(directory: EmbeddedDirectory) -> None:
    first = directory.read()
    directory.apply_all(parse_ldif(WIKI_EXPORTER.encode()).records)
    text = "dn: dcmExporterID=STORESCP," + DEVICE + "\nchangetype: delete\n"
    directory.apply_all(parse_ldif(text.encode()).records)
    assert content_fingerprint(directory.read()) == content_fingerprint(first)


def test_the_fingerprint_tells_changes(directory: EmbeddedDirectory) -> None:
    before = directory.fingerprint()
    assert directory.fingerprint() == before
    directory.apply_all(parse_ldif(WIKI_EXPORTER.encode()).records)
    assert directory.fingerprint() != before


def test_create_keeps_an_existing_directory(directory: EmbeddedDirectory) -> None:
    assert not directory.create([])
    assert len(directory.read()) > 1


@pytest.mark.parametrize("content", [b"dn: nonsense\n", b"dn: cn=a\nchangetype: delete\n", b"\xff"])
def test_a_file_that_is_no_directory_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.ldif"
    path.write_bytes(content)
    with pytest.raises(DirectoryUnavailableError, match=r"d\.ldif"):
        EmbeddedDirectory(path).read()


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DirectoryUnavailableError):
        EmbeddedDirectory(tmp_path / "none.ldif").fingerprint()


def test_the_samples_apply_to_the_default(directory: EmbeddedDirectory) -> None:
    samples = default_folder().parent / "samples"
    for name in ("exporter", "ian", "export-rule"):
        records = parse_ldif((samples / f"{name}.ldif").read_bytes()).records
        assert [one.refusal for one in directory.apply_all(records)] == [None] * len(records)
