"""``celery -A workers config``, the click group itself."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.directory_cases import DEVICE, WIKI_EXPORTER_AS_PRINTED
from workers.commands.config import config

LIMIT = f"dn: {DEVICE}\nchangetype: modify\nreplace: dcmTaskFetchSize\ndcmTaskFetchSize: 7\n"


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
    assert "notice " in done.output
    assert "Export1" in run("show").output


def test_a_refused_record_is_named_with_its_line(run: Run) -> None:
    run("import", "-", text=WIKI_EXPORTER_AS_PRINTED)
    done = run("import", "-", text=f"{WIKI_EXPORTER_AS_PRINTED}\n")
    assert done.exit_code == 1
    assert "line 5: ldap_add: Already exists (68)" in done.output
    assert "0 records applied, 1 refused, 0 not tried" in done.output


def test_what_follows_a_refused_record_is_not_tried(run: Run) -> None:
    absent = "dn: cn=absent,dc=dcm4che,dc=org\nchangetype: delete\n"
    done = run("import", "-", text=f"{absent}\n{LIMIT}")
    assert "0 records applied, 1 refused, 1 not tried" in done.output
    assert run("import", "--continue", "-", text=f"{absent}\n{LIMIT}").exit_code == 1
    assert run("diff", "-", text=LIMIT).exit_code == 0


def test_what_is_no_ldif_changes_nothing(run: Run) -> None:
    done = run("import", "-", text=WIKI_EXPORTER_AS_PRINTED + "\n      nonsense\n")
    assert done.exit_code == 2
    assert "line 17" in done.output
    assert run("check").output.endswith("0 problems, 0 of them errors\n")


def test_a_dry_run_says_what_would_be_done_and_does_nothing(run: Run) -> None:
    done = run("import", "--dry-run", "-", text=WIKI_EXPORTER_AS_PRINTED)
    assert done.exit_code == 0
    assert 'add "dcmExporterID=STORESCP' in done.output
    assert "nothing was changed" in done.output
    assert run("import", "-", text=WIKI_EXPORTER_AS_PRINTED).exit_code == 0
    refused = run("import", "--dry-run", "-", text=WIKI_EXPORTER_AS_PRINTED)
    assert refused.exit_code == 1
    assert "Already exists (68)" in refused.output


def test_check_tells_errors_by_its_exit_status(run: Run) -> None:
    text = WIKI_EXPORTER_AS_PRINTED.replace(
        "#dcmSchedule: hour=18-6 dayOfWeek=*", "dcmSchedule: 18-6"
    )
    assert run("import", "-", text=text).exit_code == 0
    done = run("check")
    assert done.exit_code == 1
    assert "schedule '18-6' is not understood" in done.output
    found = json.loads(run("check", "--json").output)
    assert found["outage"] is None
    assert [one["attribute"] for one in found["problems"] if one["severity"] == "error"] == [
        "dcmSchedule"
    ]


def test_an_unusable_directory_is_an_error_without_traceback(run: Run) -> None:
    (run.folder / "directory.ldif").write_text("dn: x\n")
    for command in (("check",), ("show",), ("export",), ("diff", "-"), ("import", "-")):
        done = run(*command, text="")
        assert done.exit_code == 2
        assert "Error: the directory" in done.output


def test_diff_shows_what_an_import_would_change(run: Run) -> None:
    done = run("diff", "-", text=LIMIT)
    assert done.exit_code == 1
    assert "1 attribute of 1 entry differs" in done.output
    found = json.loads(run("diff", "--json", "-", text=LIMIT).output)
    assert found["refused"] == []
    assert found["differences"] == [
        {"dn": DEVICE, "attribute": "dcmTaskFetchSize", "before": [], "after": ["7"]}
    ]
    run("import", "-", text=LIMIT)
    again = run("diff", "-", text=LIMIT)
    assert (again.exit_code, again.output) == (0, "0 attributes of 0 entries differ\n")


def test_diff_names_what_would_be_refused(run: Run) -> None:
    text = "dn: cn=absent,dc=dcm4che,dc=org\nchangetype: delete\n"
    done = run("diff", "-", text=text)
    assert done.exit_code == 1
    assert "refused: - line 1: ldap_delete: No such object (32)" in done.output


def test_diff_compares_with_another_directory_and_hides_secrets(run: Run) -> None:
    other = run.folder / "other.ldif"
    run("check")
    other.write_bytes((run.folder / "directory.ldif").read_bytes())
    assert run("diff", "--against", str(other)).exit_code == 0
    pin = f"{LIMIT}-\nadd: dcmKeyStorePin\ndcmKeyStorePin: hunter2\n"
    assert run("import", "-", text=pin).exit_code == 0
    done = run("diff", "--against", str(other))
    assert done.exit_code == 1
    assert "dcmKeyStorePin" in done.output
    assert "hunter2" not in done.output
    assert run("diff").exit_code == 2
    assert run("diff", "--against", str(run.folder / "none.ldif")).exit_code == 2


def test_an_export_is_the_same_every_time_and_can_be_imported(run: Run, tmp_path: Path) -> None:
    run("import", "-", text=WIKI_EXPORTER_AS_PRINTED)
    first, second = tmp_path / "first.ldif", tmp_path / "second.ldif"
    assert run("export", str(first)).exit_code == 0
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert run("export").output.encode() == first.read_bytes()
    other = Run(tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "directory.ldif").write_bytes(b"")
    assert other("import", str(first)).exit_code == 0
    assert other("export", str(second)).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


MARKUP = f"""dn: cn=Markup,{DEVICE}
changetype: add
objectClass: dcmExportRule
cn: Markup
dcmEntity: Study
dcmExporterID: STORESCP
dcmProperty: Modality=[a-z]+
dcmProperty: StudyDescription=[bold]x[/i]
"""


def test_text_of_the_directory_is_shown_as_it_is(run: Run) -> None:
    assert run("import", "-", text=WIKI_EXPORTER_AS_PRINTED).exit_code == 0
    assert run("import", "-", text=MARKUP).exit_code == 0
    done = run("show")
    assert done.exit_code == 0, done.output
    assert "Modality=[a-z]+ & StudyDescription=[bold]x[/i]" in done.output


def test_a_folder_to_compare_with_is_named_as_one(run: Run, tmp_path: Path) -> None:
    done = run("diff", "--against", str(tmp_path))
    assert done.exit_code == 2
    assert "is a folder, no LDIF file" in done.output
