"""What docs/deployment.md tells administrators to do with a stack: ``make test-compose``."""

import os
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest
from pydicom import dcmread

from tests.fix_compose import Stack, all_stored
from tests.fix_dcmtk import Dcmtk
from tests.fix_objects import Study, encoded_dataset, generate_studies
from tests.fix_process import wait_until

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not os.environ.get("DICOMQ_TEST_COMPOSE"),
        reason="make test-compose runs it: it builds images",
    ),
]
KNOWN = "SELECT sop_instance_uid FROM instance"
IN_TURN = """
SELECT pre.applied_time < oldest.start, oldest.start < post.applied_time
FROM schema_version pre, schema_version post,
     (SELECT min(backend_start) AS start FROM pg_stat_activity
      WHERE application_name ~ '^dicomq') oldest
WHERE pre.name ~ '^9001' AND post.name ~ '^9002'
"""
"""First `pre`, then no process of the previous release is left, then `post`."""


def new_study(folder: Path, number: int) -> Study:
    root = f"1.2.826.0.1.11.{number}"
    return generate_studies(folder / str(number), studies=1, instances=3, root=root)[0]


def store(stack: Stack, dcmtk: Dcmtk, study: Study) -> None:
    """Store a study, as often as it takes."""

    def accepted() -> bool:
        done = dcmtk.storescu(*study.files.values(), port=stack.dicom_port)
        return all_stored(done, len(study.files))

    wait_until(accepted, deadline_s=240, what="a study to be accepted")


def test_a_stack_is_rotated_backed_up_restored_and_upgraded(
    stack: Stack, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    stack.script("up.sh", timeout_s=1800)
    first, second, later = (new_study(tmp_path, number) for number in (1, 2, 3))
    store(stack, dcmtk, first)
    rotate(stack)
    store(stack, dcmtk, second)

    saved = tmp_path / "saved"
    stack.script("backup.sh", str(saved), timeout_s=300)
    store(stack, dcmtk, later)
    # the objects are copied every few minutes to another machine
    copy_objects(stack, saved)
    stack.down()

    stack.script("restore.sh", str(saved), timeout_s=900)
    kept = {**first.files, **second.files}
    assert set(stack.query(KNOWN)) == set(kept)
    files = objects(stack, tmp_path / "restored")
    for uid, path in {**kept, **later.files}.items():
        assert encoded_dataset(files[uid]) == encoded_dataset(path), uid
    # what came after the dump is sent in again from the storage, with what is known already
    done = dcmtk.storescu(*files.values(), port=stack.dicom_port)
    assert all_stored(done, len(files)), done.stdout
    assert set(stack.query(KNOWN)) == set(files)

    upgrade(stack, dcmtk, tmp_path)


def rotate(stack: Stack) -> None:
    """Every password is made anew; the old ones are refused, and everything works."""
    names = ["postgres_password", "redis_password", "ldap_admin_password"]
    names += ["ldap_reader_password", "flower_login"]
    old = {name: stack.secret(name) for name in names}
    stack.script("rotate.sh", *names, timeout_s=900)
    assert all(stack.secret(name) != value for name, value in old.items())
    ask = ["exec", "-T", "redis", "redis-cli", "--no-auth-warning", "-a"]
    assert "PONG" not in stack.compose(*ask, old["redis_password"], "ping")
    assert "PONG" in stack.compose(*ask, stack.secret("redis_password"), "ping")
    stack.ldapmodify(  # with the new password of the administrator
        "dn: cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org\n"
        "changetype: modify\nreplace: cn\ncn: Devices\n\n"
    )


def copy_objects(stack: Stack, saved: Path) -> None:
    """Copy the objects over those of the back-up."""
    archive = stack.output(
        "run", "--rm", "-T", "--no-deps", "scp", "tar", "-C", "/data", "-cf-", "."
    )
    (saved / "data.tar").write_bytes(archive)


def objects(stack: Stack, folder: Path) -> dict[str, Path]:
    """Return the files on the storage by SOP Instance UID."""
    archive = folder.with_suffix(".tar")
    argv = ["run", "--rm", "-T", "--no-deps", "scp", "tar", "-C", "/data", "-cf-", "fs1"]
    archive.write_bytes(stack.output(*argv))
    shutil.unpack_archive(archive, folder, filter="data")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    images = [path for path in paths if path.read_bytes()[128:132] == b"DICM"]
    return {str(dcmread(path).SOPInstanceUID): path for path in images}


def upgrade(stack: Stack, dcmtk: Dcmtk, tmp_path: Path) -> None:
    """A release with a migration of each stage comes while objects come in."""
    migrations = stack.directory / "archive" / "ledger" / "sql" / "migrations"
    (migrations / "9001_pre_more.sql").write_text("CREATE TABLE upgraded (at timestamptz);\n")
    (migrations / "9002_post_less.sql").write_text(
        "INSERT INTO upgraded SELECT now(); -- the previous release is gone\n"
    )
    stop, stored = Event(), list[Study]()

    def store_on() -> None:
        while not stop.is_set():
            study = new_study(tmp_path, 100 + len(stored))
            store(stack, dcmtk, study)
            stored.append(study)

    thread = Thread(target=store_on)
    thread.start()
    try:
        stack.script("up.sh", timeout_s=1800)
    finally:
        stop.set()
        thread.join()
    applied = stack.query(
        "SELECT name FROM schema_version WHERE name ~ '^90' ORDER BY applied_time"
    )
    assert applied == ["9001_pre_more.sql", "9002_post_less.sql"]
    assert stack.query(IN_TURN) == ["t|t"]
    wanted = {uid for study in stored for uid in study.files}
    assert wanted <= set(stack.query(KNOWN))
