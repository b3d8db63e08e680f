"""One answer per study and destination, and which studies are not complete."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.model.reconciliation import Reconciliation, Stage
from archive.model.task import TaskKind, TaskStatus
from tests.fix_commitment import CommitmentBench
from tests.fix_export import exporter, remote_ae
from tests.fix_objects import Study, generate_studies
from tests.fix_peer import CommitmentScp, IanScp, StoreScp
from workers.reconciling import Reconciler


@pytest.fixture
def study(
    commitment_bench: CommitmentBench,
    store_scp: Callable[..., StoreScp],
    tmp_path_factory: pytest.TempPathFactory,
) -> Study:
    """A stored study of three objects with a destination STORESCP that refuses the third."""
    destination = store_scp(
        status=lambda event: (
            0xC000 if str(event.request.AffectedSOPInstanceUID).endswith("3") else 0
        )
    )
    bench = commitment_bench.bench
    bench.add(remote_ae("STORESCP", destination.port))
    (made,) = generate_studies(tmp_path_factory.mktemp("objects"), studies=1, instances=3)
    for path in made.files.values():
        bench.store(path)
    return made


def _answer(bench: CommitmentBench, study: Study) -> Reconciliation:
    found = Reconciler(bench.bench.ledger, bench.bench).study(study.study_instance_uid)
    assert found is not None
    return found


def test_unknown_study(commitment_bench: CommitmentBench) -> None:
    bench = commitment_bench.bench
    assert Reconciler(bench.ledger, bench).study("1.2.3") is None


def test_every_stage_with_what_lags_and_why(
    commitment_bench: CommitmentBench,
    study: Study,
    commitment_scp: Callable[..., CommitmentScp],
    ian_scp: Callable[..., IanScp],
) -> None:
    bench, commits, told = commitment_bench, commitment_scp(), ian_scp()
    bench.bench.add(
        exporter(
            storage_commitment_scp=commits.title,
            ian_destinations=("IANSCP",),
            properties=(("StgCmtSameAssociation", "PT0S"),),
        ),
        remote_ae(commits.title, commits.port),
        remote_ae("IANSCP", told.port),
    )
    assert _answer(bench, study).destinations == ()
    assert bench.export(study.study_instance_uid).status is TaskStatus.WARNING
    uids = list(study.files)
    (state,) = _answer(bench, study).destinations
    assert (state.demanded, state.exported, state.acknowledged) == (3, 3, 2)
    assert (state.committed, dict(state.notified)) == (0, {"IANSCP": 0})
    lag = {each.sop_instance_uid: each for each in state.lagging}
    assert [lag[uid].stage for uid in uids] == [
        Stage.COMMITTED,
        Stage.COMMITTED,
        Stage.ACKNOWLEDGED,
    ]
    assert ("C000" in lag[uids[2]].why, "not asked for" in lag[uids[0]].why) == (True, True)

    bench.by_hand(study.study_instance_uid)
    bench.ask()
    (state,) = _answer(bench, study).destinations
    assert "not reported" in state.lagging[0].why
    bench.report(commits.received[0].report([None, 0x0110]))
    (state,) = _answer(bench, study).destinations
    assert state.committed == 1
    lag = {each.sop_instance_uid: each for each in state.lagging}
    assert (lag[uids[0]].stage, lag[uids[0]].why) == (Stage.NOTIFIED, "notification no task")
    assert "0110 processing failure" in lag[uids[1]].why

    (listed,) = Reconciler(bench.bench.ledger, bench.bench).incomplete()
    assert (listed.study_instance_uid, listed.failed, listed.uncommitted) == (
        study.study_instance_uid,
        1,
        1,
    )
    assert not Reconciler(bench.bench.ledger, bench.bench).incomplete(older_than_s=3600)


def test_complete_study_is_not_listed(
    commitment_bench: CommitmentBench,
    store_scp: Callable[..., StoreScp],
    study: Study,
    ian_scp: Callable[..., IanScp],
) -> None:
    bench, destination, told = commitment_bench, store_scp(), ian_scp()
    bench.bench.add(
        exporter(ian_destinations=("IANSCP",)),
        remote_ae("STORESCP", destination.port),
        remote_ae("IANSCP", told.port),
    )
    assert bench.export(study.study_instance_uid).status is TaskStatus.COMPLETED
    assert len(Reconciler(bench.bench.ledger, bench.bench).incomplete()) == 1
    bench.run(TaskKind.IAN, "IANSCU")
    found = _answer(bench, study)
    assert found.is_complete
    assert found.received == 3
    assert dict(found.destinations[0].notified) == {"IANSCP": 3}
    assert Reconciler(bench.bench.ledger, bench.bench).incomplete() == []


def test_each_destination_has_its_own_answer(
    commitment_bench: CommitmentBench,
    study: Study,
    store_scp: Callable[..., StoreScp],
) -> None:
    bench, second = commitment_bench, store_scp("SECOND")
    bench.bench.add(
        exporter(),
        exporter("SECOND", exporter_id="EXP2"),
        remote_ae("SECOND", second.port),
    )
    uid, uids = study.study_instance_uid, list(study.files)
    bench.export(uid)
    bench.bench.perform(
        bench.bench.export_task(
            uid, series_instance_uid=f"{uid}.1", remote_aet="SECOND", exporter_id="EXP2"
        )
    )
    first, other = _answer(bench, study).destinations
    assert [each.sop_instance_uid for each in first.lagging] == [uids[2]]
    assert (first.lagging[0].aet, first.lagging[0].stage) == ("STORESCP", Stage.ACKNOWLEDGED)
    assert (other.exporter_id, other.remote_aet, other.demanded) == ("EXP2", "SECOND", 3)
    assert (other.acknowledged, other.lagging) == (3, ())


def test_rejected_instances_do_not_lag(commitment_bench: CommitmentBench, study: Study) -> None:
    bench = commitment_bench
    bench.bench.add(exporter())
    bench.export(study.study_instance_uid)
    with bench.bench.ledger.statement() as tx:
        tx.execute(
            "UPDATE instance SET rejected_series_fk = series_fk, series_fk = NULL"
            " WHERE sop_instance_uid = %s",
            [list(study.files)[2]],
        )
    found = _answer(bench, study)
    assert (found.received, found.rejected) == (2, 1)
    (state,) = found.destinations
    assert (state.demanded, state.acknowledged, state.lagging) == (2, 2, ())


def test_on_the_command_line(
    commitment_bench: CommitmentBench, study: Study, ledger_url: str, tmp_path: Path
) -> None:
    commitment_bench.bench.add(exporter())
    commitment_bench.export(study.study_instance_uid)
    environment = {**os.environ, "DATABASE_URL": ledger_url, "DICOMQ_DATA": str(tmp_path)}

    def run(*arguments: str) -> str:
        argv = [sys.executable, "-m", "celery", "-A", "workers", "studies", *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run("show", study.study_instance_uid)
    assert "3 instances received" in shown
    assert "acknowledged (STORESCP)" in shown
    answer = json.loads(run("show", study.study_instance_uid, "--json"))["reconciliation"]
    (state,) = answer["destinations"]
    assert (answer["complete"], state["acknowledged"]) == (False, 2)
    (lagging,) = state["lagging"]
    assert (lagging["sop_instance_uid"], lagging["stage"]) == (
        list(study.files)[2],
        "acknowledged",
    )
    assert "C000" in lagging["why"]
    (listed,) = json.loads(run("incomplete", "--json"))
    assert (listed["study_instance_uid"], listed["failed"]) == (study.study_instance_uid, 1)
    assert study.study_instance_uid in run("incomplete")
    assert study.study_instance_uid not in run("incomplete", "--older-than", "PT1H")
