"""The command `studies purge`: filters, dry run, confirmation."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fix_objects import generate_studies
from tests.fix_peer import send_files
from tests.fix_scp import Site
from workers.commands.studies import studies


@pytest.fixture
def stored(site: Site, tmp_path: Path) -> Site:
    """Two studies of two objects each."""
    site.start()
    for study in generate_studies(tmp_path / "o", studies=2, instances=2):
        sent = send_files(list(study.files.values()), site.port)
        assert set(sent.statuses.values()) == {0}
    return site


def purge(site: Site, *arguments: str, answer: str | None = None) -> Result:
    """Give the command."""
    runner = CliRunner(env=site.environment)
    return runner.invoke(studies, ["purge", *arguments], input=answer, standalone_mode=True)


def test_filters_and_dry_run(stored: Site) -> None:
    nothing = purge(stored, "--modality", "XA", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "no study with local files fits\n")
    both = ("--patient-id", "P1", "--external-aet", "QRSCP")
    assert "either" in purge(stored, "1.2.3", *both).stderr
    tried = purge(stored, "--older-than", "PT0S", "--external-aet", "QRSCP", "--dry-run", "--json")
    reports = json.loads(tried.stdout)
    assert [(each["purged"], each["instances"], each["dry_run"]) for each in reports] == [
        (True, 2, True)
    ] * 2
    worded = ("--filter", "PatientID=P1", "--filter", "StudyDate=1900-", "--dry-run", "--json")
    assert "1900" in purge(stored, *worded).stderr, "no date"
    worded = ("--filter", "PatientID=P1", "--filter", "PatientName=TEST^", *worded[-2:])
    assert len(json.loads(purge(stored, *worded, "--external-aet", "QRSCP").stdout)) == 1
    assert "is given twice" in purge(stored, *worded, "--patient-id", "P1").stderr
    assert "write NAME=VALUE with one of PatientID" in purge(stored, "--filter", "Id=P1").stderr
    words = purge(stored, "--older-than", "PT0S", "--dry-run")
    assert words.stderr.count("would be refused") == 2
    assert (stored.count("location"), len(stored.files())) == (4, 4)


def test_it_asks_before(stored: Site) -> None:
    one = ("--patient", "test^", "--patient-id", "P1", "--external-aet", "QRSCP")
    asked = purge(stored, *one, answer="n\n")
    assert "Drop the local files of 1 study?" in asked.stderr
    assert stored.count("location") == 4
    silent = purge(stored, *one)
    assert silent.exit_code == 2
    assert "no answer; --yes goes on without asking\nnothing was changed" in silent.stderr
    purge(stored, *one, answer="y\n")
    assert (stored.count("location"), stored.count("instance"), len(stored.files())) == (2, 4, 2)


def test_an_archive_that_is_not_in_the_directory(stored: Site) -> None:
    refused = purge(stored, "--older-than", "PT0S", "--external-aet", "NOWHERE", "--yes")
    assert refused.exit_code
    assert "has no AE NOWHERE" in refused.stderr
    assert stored.count("location") == 4


def test_a_study_that_nobody_knows(stored: Site) -> None:
    refused = purge(stored, "1.2.3", "--yes")
    assert refused.exit_code == 2
    assert refused.stderr == "1.2.3: refused, the archive does not know this study\n"
