"""``celery -A workers config``, the click group itself."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.directory_cases import WIKI_EXPORTER_AS_PRINTED
from workers.commands.config import config


@pytest.fixture
def run(tmp_path: Path) -> "Run":
    return Run(tmp_path)


class Run:
    """Runs the command on a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, text: str | None = None) -> Result:
        environment = {"DICOMQ_DATA": str(self.folder), "DICOMQ_DIRECTORY": None}
        return CliRunner().invoke(config, arguments, input=text, env=environment)


def test_the_wiki_exporter_applies_as_printed(run: Run) -> None:
    done = run("import", "-", text=WIKI_EXPORTER_AS_PRINTED)
    assert done.exit_code == 0, done.output
    assert 'add "dcmExporterID=STORESCP' in done.output
    assert "every line is indented by 6 blanks" in done.output
    assert "notice: " in done.output
    assert "Export1" in run("show").output


def test_a_refused_record_is_named_with_its_line(run: Run) -> None:
    run("import", "-", text=WIKI_EXPORTER_AS_PRINTED)
    done = run("import", "-", text=WIKI_EXPORTER_AS_PRINTED)
    assert done.exit_code == 1
    assert "line 5: ldap_add: Already exists (68)" in done.output


def test_what_is_no_ldif_changes_nothing(run: Run) -> None:
    done = run("import", "-", text=WIKI_EXPORTER_AS_PRINTED + "\n      nonsense\n")
    assert done.exit_code == 1
    assert "line 17" in done.output
    assert run("check").output.endswith("0 problems, 0 of them errors\n")


def test_check_tells_errors_by_its_exit_status(run: Run) -> None:
    text = WIKI_EXPORTER_AS_PRINTED.replace(
        "#dcmSchedule: hour=18-6 dayOfWeek=*", "dcmSchedule: 18-6"
    )
    assert run("import", "-", text=text).exit_code == 0
    done = run("check")
    assert done.exit_code == 1
    assert "schedule '18-6' is not understood" in done.output


def test_an_unusable_directory_is_an_error_without_traceback(run: Run) -> None:
    (run.folder / "directory.ldif").write_text("dn: x\n")
    for command in (("check",), ("show",), ("import", "-")):
        done = run(*command, text="")
        assert done.exit_code == 1
        assert "Error: the directory" in done.output
